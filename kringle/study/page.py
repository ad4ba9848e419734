"""The pieces that the report's sections are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kringle.study.figures import Figure
from kringle.study.markup import Markup, tag
from kringle.study.results import Results
from kringle.study.results import Section as SectionName
from kringle.study.tables import Table

Part: TypeAlias = Markup | Table | Figure | tuple[Figure, ...] | tuple[Table, ...]


@dataclass(frozen=True)
class Section:
    """`key` is the anchor; a tuple of figures or tables stands side by side where there is room."""

    key: str
    title: str
    parts: tuple[Part, ...]


def paragraph(text: str, class_: str | None = None) -> Markup:
    return tag("p", text, class_=class_)


def bullets(items: Iterable[str], class_: str | None = None) -> Markup:
    return tag("ul", *(tag("li", item) for item in items), class_=class_)


def notice(text: str) -> Markup:
    """Something that is not there, and why."""
    return tag("p", text, class_="notice")


def reproduce(results: Results, *names: SectionName) -> Markup:
    """The commands behind a section's numbers; nothing where the results name none."""
    found = [command for command in results.commands if command.section in names]
    lines = [tag("li", tag("span", command.makes), tag("code", command.command)) for command in found]
    return (
        tag("div", tag("p", "Reproduce", class_="label"), tag("ul", *lines), class_="reproduce")
        if found
        else Markup("")
    )


def chip(text: str, tone: str) -> Markup:
    return tag("span", text, class_=f"chip {tone}")


def present(*parts: Part | None) -> tuple[Part, ...]:
    return tuple(part for part in parts if part is not None and part != "")


def listing(names: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return tag("h3", text)
