"""A data card as Markdown and as one HTML page: offline, light and dark, no script."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from kringle.study import tables, units
from kringle.study.card import Card, Section, Table
from kringle.study.markup import Markup, tag, visible
from kringle.study.page import bullets
from kringle.study.provenance import facts
from kringle.study.theme import page_css


def written(value: Any, kind: str) -> str:
    """A table's value as people read it."""
    if value is None:
        return "\N{EN DASH}"
    if kind == "count":
        return units.count(value)
    if kind == "size":
        return units.size(value)
    if kind == "share":
        return units.percent(value)
    if kind == "seconds":
        return units.duration(value)
    return str(value)


# -- Markdown ----------------------------------------------------------------------------------------------------------


def to_markdown(card: Card) -> str:
    """The card as Markdown."""
    parts = [f"# Data card: {_plain(card.name)}", f"{card.summary}. Written {card.created} by Kringle {card.kringle}."]
    for section in card.sections:
        parts.append(f"## {section.title}")
        if section.facts:
            parts.append("\n".join(f"- {name}: {_plain(value)}" for name, value in section.facts))
        parts += [_markdown_table(table) for table in section.tables]
        if section.notes:
            parts.append("\n".join(f"- {_plain(note)}" for note in section.notes))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: special characters escaped, on one line."""
    shown = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in visible(text))
    return " ".join(shown.split())


def _markdown_table(table: Table) -> str:
    head = [f"**{table.title}**", ""]
    head.append("| " + " | ".join(table.columns) + " |")
    head.append("|" + "|".join("---" if kind == "text" else "---:" for kind in table.kinds) + "|")
    rows = [
        "| " + " | ".join(_plain(written(v, k)) for v, k in zip(row, table.kinds, strict=True)) + " |"
        for row in table.rows
    ]
    return "\n".join(head + rows)


# -- HTML --------------------------------------------------------------------------------------------------------------


def to_html(card: Card) -> str:
    """The card as one page, with a content security policy that allows its own style alone."""
    style = page_css() + resources.files("kringle.study").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{card.name} \N{MIDDLE DOT} data card"),
        tag("style", Markup(style)),
    )
    title = tag(
        "header",
        tag("h1", f"Data card: {card.name}"),
        tag("p", f"{card.summary}. Written {card.created} by Kringle {card.kringle}."),
    )
    main = tag("main", title, *(_section(section, number) for number, section in enumerate(card.sections)))
    footer = tag("footer", f"Kringle {card.kringle}. Beside this page: card.json, data-card.md.")
    body = tag("body", tag("div", main, footer, class_="layout"))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _section(section: Section, number: int) -> Markup:
    parts = [tag("h2", section.title)]
    if section.facts:
        parts.append(facts(section.facts))
    parts += [_html_table(table, f"{number}-{index}") for index, table in enumerate(section.tables)]
    if section.notes:
        parts.append(bullets(section.notes))
    return tag("section", *parts)


def _html_table(table: Table, key: str) -> Markup:
    columns = tuple(
        tables.Column(title, number=kind != "text") for title, kind in zip(table.columns, table.kinds, strict=True)
    )
    rows = tuple(
        tuple(
            tables.missing() if value is None else tables.Cell(written(value, kind), (value,))
            for value, kind in zip(row, table.kinds, strict=True)
        )
        for row in table.rows
    )
    return tables.to_html(tables.Table(key, table.title, columns, rows))
