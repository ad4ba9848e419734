"""The report of a study: one HTML file that needs no network, no fonts, no library, and no script to be read.

`render` is a pure function of the results. `write` also puts the results (JSON), the figures (SVG) and the tables (CSV)
beside the page. A content security policy with hashes of our own style and script forbids everything else, should any
text ever slip through the escaping.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TypeVar

from kringle.errors import UserError
from kringle.study import canary, difference, gallery, lessons, memorisation, problem_table, provenance, sections, units
from kringle.study.figures import NARROW, Figure
from kringle.study.markup import Markup, tag
from kringle.study.page import Part, Section
from kringle.study.results import Results
from kringle.study.tables import Cell, Column, Raw, Table, to_csv, to_html
from kringle.study.theme import page_css

_LISTED = 8  # rows of a table that are shown without unfolding


def all_sections(results: Results) -> tuple[Section, ...]:
    """The page in reading order: the verdict first, how it was made last."""
    planted, memorised = canary.section(results), memorisation.section(results)
    return (
        sections.findings(results),
        lessons.lessons(results),
        sections.differences(results),
        sections.ablations(results),
        sections.bits_per_byte(results),
        *([attention] if (attention := lessons.attention(results)) is not None else []),
        lessons.models(results),
        sections.training(results),
        gallery.examples(results),
        problem_table.problems(results),
        *([memorised] if memorised else []),
        provenance.data(results),
        *([planted] if planted else []),
        provenance.limitations(results),
        provenance.making(results),
    )


# -- parts to HTML -----------------------------------------------------------------------------------------------------


def _figure(figure: Figure) -> Markup:
    """A figure with its caption: drawn once for wide and once for narrow windows, one of them hidden by the style."""
    drawings = [
        figure.draw(width).svg(
            figure.alt, class_="half" if len(figure.widths) == 1 else "narrow" if width == NARROW else "wide"
        )
        for width in figure.widths
    ]
    caption = tag("figcaption", tag("b", figure.title), " ", figure.caption)
    return tag("figure", caption, *drawings, id=f"figure-{figure.key}")


def _table(table: Table) -> Markup:
    whole = to_html(table)
    if table.central or len(table.rows) <= _LISTED:
        return whole
    return tag("details", tag("summary", f"{table.caption} ({len(table.rows)} rows)"), whole)


def _part(part: Part) -> Markup:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Figure):
        return _figure(part)
    if isinstance(part, tuple):
        return tag("div", *(_part(inner) for inner in part), class_="side-by-side")
    return part


def _section(section: Section) -> Markup:
    heading = tag("h2", section.title, id=f"{section.key}-title")
    body = [_part(part) for part in section.parts]
    return tag("section", heading, *body, id=section.key, aria_labelledby=f"{section.key}-title")


# -- the page ----------------------------------------------------------------------------------------------------------


def _between(numbers: list[float], write: str) -> str:
    """ "1.04M", or "1.04M to 1.20M" where they differ."""
    ends = [units.short_count(n) if write == "count" else units.duration(n) for n in (min(numbers), max(numbers))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _title_block(results: Results) -> Markup:
    trained = [arm.training for arm in results.arms if arm.training]
    pairs = [("Ablations", units.count(len(trained)))]
    if trained:
        pairs.append(("Parameters", _between([float(t.parameters) for t in trained], "count")))
        pairs.append(("Tokens each", _between([float(t.tokens) for t in trained], "count")))
    time = units.duration(sum(stage.wall_seconds for stage in results.stages))
    pairs.append(("All stages together", f"{time} on {results.machine.cores} cores"))
    pairs.append(("Fidelity", results.fidelity))
    made = f"{datetime.fromisoformat(results.created):%d %B %Y, %H:%M %Z}".lstrip("0")
    stamp = tag("p", results.release_note, class_="stamp") if results.release_note else ""
    return tag(
        "header",
        tag("p", "Kringle study", class_="kicker"),
        tag("h1", results.study),
        tag("p", tag("time", made, datetime=results.created), " by ", tag("code", results.command_line), class_="made"),
        stamp,
        provenance.facts(pairs, "facts strip"),
        class_="title",
    )


def _contents(parts: tuple[Section, ...]) -> Markup:
    items = [tag("li", tag("a", section.title, href=f"#{section.key}")) for section in parts]
    return tag("nav", tag("ol", *items), aria_label="Contents", class_="contents")


def _resource(name: str) -> str:
    return resources.files("kringle.study").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(results: Results) -> str:
    """The whole page as HTML text."""
    foot = f"Kringle {results.kringle_version}. Beside this page: results.json, figures/, tables/."
    title = f"{results.study} \N{MIDDLE DOT} Kringle study"
    return _document(title, results.kringle_version, _title_block(results), all_sections(results), foot)


def render_difference(one: Results, other: Results) -> str:
    """Two studies side by side as a page of HTML; `one` is the earlier."""
    names = f"{one.study} and {other.study}"
    when = [f"{datetime.fromisoformat(results.created):%d %B %Y, %H:%M %Z}".lstrip("0") for results in (one, other)]
    header = tag(
        "header",
        tag("p", "Two Kringle studies", class_="kicker"),
        tag("h1", names),
        tag("p", f"Before: {when[0]}, ", tag("code", one.command_line), class_="made"),
        tag("p", f"Now: {when[1]}, ", tag("code", other.command_line), class_="made"),
        class_="title",
    )
    title = f"{names} \N{MIDDLE DOT} Kringle"
    parts = difference.sections(one, other)
    return _document(title, other.kringle_version, header, parts, f"Kringle {other.kringle_version}.")


def _document(title: str, version: str, header: Markup, parts: tuple[Section, ...], foot: str) -> str:
    style, script = page_css() + _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="generator", content=f"Kringle {version}"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the findings", href="#study", class_="skip"),
        tag(
            "div",
            _contents(parts),
            tag("main", header, *(_section(section) for section in parts)),
            tag("footer", foot),
            class_="layout",
        ),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


# -- files -------------------------------------------------------------------------------------------------------------


Kind = TypeVar("Kind", Figure, Table)


def _parts_of(sections: tuple[Section, ...], kind: type[Kind]) -> Iterator[Kind]:
    """The figures or the tables of these sections, those that stand side by side too."""
    for section in sections:
        for part in section.parts:
            if isinstance(part, kind):
                yield part
            elif isinstance(part, tuple):
                yield from (inner for inner in part if isinstance(inner, kind))


def _curve_table(results: Results) -> Table:
    """Every point of the loss curves; too long for the page."""
    columns = (
        Column("arm"),
        Column("seed"),
        Column("step"),
        Column("tokens"),
        Column("loss"),
        Column("held-out bits per byte"),
    )
    rows = []
    for arm in results.arms:
        if arm.training is None:
            continue
        points: list[tuple[Raw, ...]] = [(p.step, p.tokens, p.loss, None) for p in arm.training.curve]
        points += [(p.step, p.tokens, None, p.bits_per_byte) for p in arm.training.held_out_curve]
        rows += [tuple(Cell("", (value,)) for value in (arm.name, arm.seed, *point)) for point in points]
    return Table("curves", "Training curves", columns, tuple(rows))


def files(results: Results) -> dict[str, str]:
    """Everything that `write` writes: text by path inside the folder."""
    parts = all_sections(results)
    found = {"results.json": results.to_json(), "report.html": render(results)}
    for figure in _parts_of(parts, Figure):
        drawing = figure.draw(figure.widths[0])
        found[f"figures/{figure.key}.svg"] = f"{drawing.svg(figure.alt, standalone=True)}\n"
    for table in [*_parts_of(parts, Table), _curve_table(results)]:
        found[f"tables/{table.key}.csv"] = to_csv(table)
    return found


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or an earlier report."""
    if not folder.is_dir():
        return False
    return not any(folder.iterdir()) or all((folder / name).is_file() for name in ("report.html", "results.json"))


def write(results: Results, folder: Path) -> Path:
    """Write the report into `folder`, all of it or nothing, and return the page's path.

    An earlier report there is replaced as a whole; a folder that holds anything else is refused (`UserError`).
    """
    if folder.exists() and not _replaceable(folder):
        raise UserError("is in the way and holds no report", where=str(folder), hint="name another folder")
    contents = files(results)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for left_over in (new, old):  # of a run that was killed
        if left_over.exists():
            shutil.rmtree(left_over)
    for name, text in contents.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        shutil.rmtree(old)
    return folder / "report.html"
