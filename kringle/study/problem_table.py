"""The report's map of problems by models: a cell says how many samples passed, and holds a completion of each kind."""

from __future__ import annotations

from kringle.study import tables
from kringle.study.markup import Markup, join, tag
from kringle.study.page import Section, notice, paragraph, present, reproduce
from kringle.study.results import ProblemResult, Results
from kringle.study.tables import Cell, Column, Table

SHADES = 4  # of a cell's colour, by the share that passed
_SHOWN = 24  # lines of a completion in a cell


def _clipped(text: str) -> Markup:
    lines = text.split("\n")
    more = [tag("span", f"\N{MIDLINE HORIZONTAL ELLIPSIS} {len(lines) - _SHOWN} more lines", class_="cut")]
    return join(*lines[:_SHOWN], *(more if len(lines) > _SHOWN else []), between="\n")


def _block(title: str, text: str | None) -> list[Markup]:
    if text is None:
        return []
    return [tag("p", title, class_="label"), tag("pre", tag("code", _clipped(text)), tabindex="0")]


def _cell(result: ProblemResult | None) -> Cell:
    if result is None:
        return tables.missing()
    shade = 0 if not result.passed else 1 + round((SHADES - 1) * result.passed / result.samples)
    inside = [*_block("One that passed", result.passing), *_block("One that did not", result.failing)]
    said = f"{result.passed} of {result.samples}"
    shown = tag("details", tag("summary", tag("span", said, class_=f"pass-{shade}")), *inside)
    return Cell(shown, (result.passed,))


def _table(results: Results, suite: str) -> Table:
    cells = {(r.problem, r.arm): r for r in results.problems if r.suite == suite}
    problems = list(dict.fromkeys(problem for problem, _ in cells))
    arms = list(dict.fromkeys(arm for _, arm in cells))
    rows = tuple((tables.words(problem), *(_cell(cells.get((problem, arm))) for arm in arms)) for problem in problems)
    columns = (Column("Problem", number=False), *(Column(arm, number=False) for arm in arms))
    return Table(f"map-{suite}", f"Samples that passed, by problem and arm: {suite}", columns, rows, central=False)


def problems(results: Results) -> Section:
    """Problem by model; a section of its own, because it is long."""
    suites = list(dict.fromkeys(result.suite for result in results.problems))
    if not suites:
        return Section("problems", "Problem by problem", (notice("No suite of problems was run."),))
    return Section(
        "problems",
        "Problem by problem",
        present(
            paragraph("Each cell opens: one completion that passed and one that did not, of the arm's first seed."),
            *(_table(results, suite) for suite in suites),
            reproduce(results, "left-to-right"),
        ),
    )
