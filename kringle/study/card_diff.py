"""What differs between two data cards: facts and rows by name, with both values and the change of every number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kringle.study.card import Card, Table
from kringle.study.card_page import written

_VOLATILE = frozenset(("Time and cost",))  # tables that differ from run to run without meaning anything


def compare(old: Card, new: Card) -> list[str]:
    """Lines, one a difference, in the order of the new card; empty when the cards say the same."""
    lines = [] if old.summary == new.summary else [f"in all: {old.summary} -> {new.summary}"]
    before = {section.title: section for section in old.sections}
    for section in new.sections:
        other = before.pop(section.title, None)
        if other is None:
            lines.append(f"{section.title}: new")
            continue
        lines += _facts(section.title, dict(other.facts), dict(section.facts))
        tables = {table.title: table for table in other.tables}
        for table in section.tables:
            if table.title not in _VOLATILE:
                lines += _rows(section.title, tables.pop(table.title, None), table)
        lines += [f"{section.title}: no longer a table {title!r}" for title in tables if title not in _VOLATILE]
        lines += [f"{section.title}: new remark: {note}" for note in section.notes if note not in other.notes]
        lines += [f"{section.title}: no longer said: {note}" for note in other.notes if note not in section.notes]
    return lines + [f"{title}: no longer there" for title in before]


def _facts(title: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            yield f"{title}: {name}: {old.get(name, 'not said')} -> {new.get(name, 'not said')}"


def _rows(title: str, old: Table | None, new: Table) -> Iterator[str]:
    before = {} if old is None else _by_name(old)
    after = _by_name(new)
    for name in dict.fromkeys((*after, *before)):
        was, now = before.get(name), after.get(name)
        where = f"{title}: {' / '.join(name)}"
        if now is None:
            yield f"{where}: no longer there"
        elif was is None:
            yield f"{where}: new: {', '.join(_cells(now, new))}"
        else:
            changes = [
                _change(column, a, b, kind)
                for column, kind, a, b in zip(new.columns, new.kinds, was, now, strict=True)
                if a != b and kind in ("count", "size", "text")
            ]
            if changes:
                yield f"{where}: {'; '.join(changes)}"


def _by_name(table: Table) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Rows by their leading cells of text."""
    width = next((i for i, kind in enumerate(table.kinds) if kind != "text"), len(table.kinds))
    return {tuple(map(str, row[:width])): row for row in table.rows}


def _cells(row: tuple[Any, ...], table: Table) -> list[str]:
    return [
        f"{column.lower()} {written(value, kind)}"
        for column, kind, value in zip(table.columns, table.kinds, row, strict=True)
        if kind != "text"
    ]


def _change(column: str, a: Any, b: Any, kind: str) -> str:
    told = f"{column.lower()} {written(a, kind)} -> {written(b, kind)}"
    if isinstance(a, int) and isinstance(b, int):
        told += f" ({b - a:+,})"
    return told
