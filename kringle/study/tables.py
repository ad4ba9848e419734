"""Tables that are written twice: for people as HTML, for spreadsheets as CSV with the unrounded numbers.

A cell holds both, so that the two cannot disagree. A script may add sorting; without one the tables read the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kringle.study import units
from kringle.study.markup import Markup, join, tag, visible
from kringle.study.results import Estimate

Raw = str | int | float | None


class Cell(NamedTuple):
    """`shown` is text or markup; `raw` has one value per CSV column; `bar` is a share of the column's longest bar."""

    shown: str
    raw: tuple[Raw, ...]
    bar: float | None = None


@dataclass(frozen=True)
class Column:
    """`raw` names the CSV columns where they are not just the title; numbers are set flush right.

    A column with `lift` whose cells all say the same is told once, in the caption, instead of in every row; `wide` is
    for running text.
    """

    title: str
    number: bool = True
    raw: tuple[str, ...] = ()
    lift: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """`key` is the CSV file's name and the element's id; the first column heads its row. A long table is folded away
    unless it is `central`."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    central: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            for cell, column in zip(row, self.columns, strict=True):
                if len(cell.raw) != len(column.raw or (column.title,)):
                    raise ValueError(f"table {self.key}: {cell.raw} under {column}")


# -- cells -------------------------------------------------------------------------------------------------------------


def words(text: str, shown: Markup | None = None) -> Cell:
    return Cell(text if shown is None else shown, (text,))


def code(text: str) -> Cell:
    return Cell(tag("code", text), (text,))


def missing(reason: str = "\N{EN DASH}", columns: int = 1) -> Cell:
    """Where there is no number; `columns` is how many CSV columns stay empty."""
    return Cell(tag("span", reason, class_="none"), (None,) * columns)


def count(number: int) -> Cell:
    return Cell(units.count(number), (number,))


def size(number: int) -> Cell:
    return Cell(units.size(number), (number,))


def duration(seconds: float) -> Cell:
    return Cell(units.duration(seconds), (seconds,))


def decimal(value: float, digits: int) -> Cell:
    return Cell(f"{value:.{digits}f}".replace("-", units.MINUS), (value,))


def estimate(value: Estimate, bits: bool = False) -> Cell:
    """A value with its interval behind it, smaller."""
    write = units.bits if bits else units.percent
    return Cell(interval(write(value.value), write(value.low), write(value.high)), (value.value, value.low, value.high))


def interval(value: str, low: str, high: str) -> Markup:
    unit = "%" if value.endswith("%") and low.endswith("%") else ""
    ends = f"{low.removesuffix(unit)} to {high.removesuffix(unit)}"
    return join(tag("span", value, class_="value"), " ", tag("span", ends, class_="interval"))


def estimate_column(title: str) -> Column:
    return Column(title, raw=(title, f"{title} low", f"{title} high"))


def with_bars(rows: Sequence[tuple[Cell, ...]], column: int) -> tuple[tuple[Cell, ...], ...]:
    """Rows whose cells in one column get a bar, as long as their share of the largest number there."""
    numbers = [float(row[column].raw[0] or 0) for row in rows]
    longest = max(numbers, default=0.0) or 1.0
    barred = (row[column]._replace(bar=number / longest) for row, number in zip(rows, numbers, strict=True))
    return tuple((*row[:column], cell, *row[column + 1 :]) for row, cell in zip(rows, barred, strict=True))


# -- the two forms -----------------------------------------------------------------------------------------------------


def _barred(shown: str, share: float) -> Markup:
    """A number behind a bar of at most 60 pixels; decoration, since the number says it all."""
    shape = tag("rect", class_="fill-0", width=max(share * 60, 0.75), height=8)
    bar = tag("svg", shape, class_="figure bar", viewBox="0 0 60 8", aria_hidden="true")
    return tag("div", bar, tag("span", shown), class_="barred")


def _sort_key(cell: Cell) -> str:
    first = cell.raw[0]
    return "" if first is None else repr(first) if isinstance(first, int | float) else first


def _shared(table: Table) -> dict[int, Cell]:
    """Liftable columns by index, with the cell that all rows (apart from empty ones) have in common."""
    found = {}
    for index, column in enumerate(table.columns):
        filled = [row[index] for row in table.rows if row[index].raw[0] is not None]
        if column.lift and len(table.rows) > 1 and len({cell.raw for cell in filled}) == 1:
            found[index] = filled[0]
    return found


def _caption(table: Table, shared: dict[int, Cell]) -> Markup:
    told = [
        join(", " if rank else ". In all rows: ", f"{table.columns[index].title.lower()} ", tag("b", cell.shown))
        for rank, (index, cell) in enumerate(shared.items())
    ]
    return tag("caption", tag("span", table.caption, *told))


def _class(column: Column, first_of_group: bool = True) -> str | None:
    names = ["number"] * column.number + ["text"] * column.wide + ["again"] * (not first_of_group)
    return " ".join(names) or None


def to_html(table: Table) -> Markup:
    shared = _shared(table)
    columns = [(index, column) for index, column in enumerate(table.columns) if index not in shared]
    head = [tag("th", column.title, scope="col", class_=_class(column)) for _, column in columns]
    body = []
    before: Cell | None = None
    for row in table.rows:
        cells = []
        for index, column in columns:
            cell = row[index]
            inner = _barred(cell.shown, cell.bar) if cell.bar is not None else cell.shown
            if index == 0:
                named = _class(column, first_of_group=before is None or before.raw != cell.raw)
                cells.append(tag("th", inner, scope="row", class_=named, data_sort=_sort_key(cell)))
            else:
                cells.append(tag("td", inner, class_=_class(column), data_sort=_sort_key(cell)))
        before = row[0]
        body.append(tag("tr", *cells))
    inner = tag(
        "table",
        _caption(table, shared),
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
        id=f"table-{table.key}",
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=table.caption)


def _guard(value: Raw) -> Raw:
    """Text in visible characters; where a spreadsheet would take it for a formula, with an apostrophe in front (OWASP,
    CSV injection)."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else visible(value)


def to_csv(table: Table) -> str:
    """CSV with a header line; full precision, empty where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(name for column in table.columns for name in (column.raw or (column.title,)))
    writer.writerows(_flat(row) for row in table.rows)
    return out.getvalue()


def _flat(row: Iterable[Cell]) -> list[Raw]:
    return ["" if value is None else _guard(value) for cell in row for value in cell.raw]
