"""The report's sections that hold a study beside the paper: SantaCoder's lessons, published models, MQA beside MHA.

A claim about programs is held beside pass@1 where the base solves at least `SOLVES` of a suite, else beside the bits
per byte of the suite's own solutions: a model that solves nothing says nothing of pass@1. The rule looks at the base
alone, so the answer cannot choose its measure.
"""

from __future__ import annotations

from collections.abc import Sequence

from kringle.study import figures, published, tables, units
from kringle.study.findings import CONTROL
from kringle.study.markup import Markup, join, tag
from kringle.study.page import Section, chip, notice, paragraph, present, reproduce
from kringle.study.published import CLAIMS, INFILLING, Claim
from kringle.study.results import Arm, Comparison, Results
from kringle.study.tables import Cell, Column, Table, estimate_column

SOLVES = 0.05
ANSWERS = {"agrees": "better", "disagrees": "worse", "undecided": "muted", "not run": "muted"}


def measure_for(results: Results, claim: Claim) -> str | None:
    """The name of the measure that a claim is held beside; None where the study has none."""
    names = list(dict.fromkeys(c.measure for c in results.comparisons))
    if claim.kind == INFILLING:
        return "infilling" if "infilling" in names else None
    base = next((arm for arm in results.arms if arm.is_base), None)
    for suite in base.suites if base else ():
        solved = next((at.estimate.value for at in suite.pass_at if at.k == 1), 0.0)
        name = f"pass@1 on {suite.suite}"
        if solved >= SOLVES and name in names:
            return name
    solutions = [name for name in names if name.startswith("bits per byte of solutions")]
    return solutions[0] if solutions else "bits per byte" if "bits per byte" in names else None


def answer(results: Results, claim: Claim) -> tuple[str, Comparison | None, str]:
    """(agrees, disagrees, undecided or not run; our comparison; why)."""
    runs = [arm for arm in results.arms if arm.name == claim.arm]
    if not runs:
        return "not run", None, "this study has no such arm"
    if all(run.not_run is not None for run in runs):
        return "not run", None, runs[0].not_run or ""
    measure = measure_for(results, claim)
    base = next((a.name for a in results.arms if a.is_base), None)
    ours = next((c for c in results.comparisons if (c.arm, c.base, c.measure) == (claim.arm, base, measure)), None)
    if ours is None:
        return "not run", None, "not measured"
    if ours.verdict == "undecided":
        return "undecided", ours, ours.words
    if ours.verdict == "no difference" and "no difference" not in claim.agree:
        # Within our margin there is room for what the paper found, unless it measured the same and lies outside.
        same = published.beside(ours.arm, ours.measure)
        if same is None or ours.low <= same <= ours.high:
            why = "no difference, and the paper's may be smaller than this study's margin"
            return "undecided", ours, f"{why}; {ours.remark}" if ours.remark else why
    return ("agrees" if ours.verdict in claim.agree else "disagrees"), ours, ours.remark


def _answer(said: str, why: str) -> Markup:
    reason = tag("div", why, class_="why") if why and said != "agrees" else ""
    return join(chip(said, ANSWERS[said]), reason)


def _lessons_table(results: Results) -> Table:
    rows = []
    for claim in CLAIMS:
        said, ours, why = answer(results, claim)
        number = tables.missing(columns=3)
        if ours is not None:
            write = [figures.write_difference(ours, x) for x in (ours.difference, ours.low, ours.high)]
            number = Cell(tables.interval(*write), (ours.difference, ours.low, ours.high))
        rows.append(
            (
                tables.words(claim.claim),
                tables.words(claim.arm),
                Cell(claim.published, (claim.published,)),
                number,
                tables.words(ours.measure if ours else ""),
                tables.words(f"{said}: {why}" if why else said, _answer(said, why)),
            )
        )
    columns = (
        Column("The paper says", number=False, wide=True),
        Column("Arm", number=False),
        Column("Published difference", number=False, wide=True),
        estimate_column("Ours"),
        Column("On", number=False),
        Column("Answer", number=False),
    )
    rows.append(
        (
            tables.words("Good data lets a small model (1.1B) beat larger ones (InCoder 6.7B, CodeGen-Multi 2.7B)"),
            tables.missing(),
            tables.words("see the published models below"),
            tables.missing(columns=3),
            tables.words(""),
            tables.words("not run", _answer("not run", "none of these models was evaluated here")),
        )
    )
    return Table("lessons", "SantaCoder's lessons beside this study", columns, tuple(rows), central=True)


def lessons(results: Results) -> Section:
    size = max((arm.training.parameters for arm in results.arms if arm.training), default=0)
    return Section(
        "lessons",
        "SantaCoder's lessons",
        present(
            paragraph(
                "One row per claim of the article. Published numbers are means of three languages at 1.1 billion "
                "parameters, from one training each and without intervals; ours are this study's, at "
                f"{units.short_count(size)} parameters. Claims about programs are held beside pass@1 where the base "
                f"solves {SOLVES:.0%} of a suite, else beside the bits per byte of the suite's own solutions."
            ),
            _lessons_table(results),
            reproduce(results, "comparisons"),
        ),
    )


# -- multi-query and multi-head attention ------------------------------------------------------------------------------


def _attention_table(arms: Sequence[Arm]) -> Table:
    rows = []
    for arm in arms:
        t = arm.training
        assert t is not None
        rows.append(
            (
                tables.words(f"{arm.name}, seed {arm.seed}"),
                tables.count(t.parameters),
                tables.count(t.key_value_bytes) if t.key_value_bytes is not None else tables.missing(),
                tables.count(round(t.tokens_per_second)),
                tables.estimate(arm.bits_per_byte.total, bits=True) if arm.bits_per_byte else tables.missing(columns=3),
                tables.estimate(arm.infilling.total.exact_match)
                if arm.infilling and arm.infilling.total
                else tables.missing(columns=3),
            )
        )
    columns = (
        Column("Arm", number=False),
        Column("Parameters"),
        Column("Key-value bytes a token"),
        Column("Training tokens/s"),
        estimate_column("Bits per byte"),
        estimate_column("Infilling"),
    )
    return Table(
        "attention", "Multi-query beside multi-head attention; key-value cache in 16 bits", columns, tuple(rows)
    )


def attention(results: Results) -> Section | None:
    """The base beside the arm that differs by its attention alone; None where there is none."""
    other = [
        arm.name for arm in results.arms if set(arm.changes) == {"model.attention"} and arm.training and not arm.is_base
    ]
    chosen = [arm for arm in results.arms if arm.training and (arm.is_base or arm.name in other)]
    if not other:
        return None
    return Section(
        "attention",
        "One key-value head or many",
        present(
            paragraph(
                "Multi-query attention shares one head of keys and values among all queries: a smaller cache while "
                "writing, for a small loss. At SantaCoder's size the cache is 12,288 bytes a token instead of 196,608."
            ),
            _attention_table(chosen),
        ),
    )


# -- published models --------------------------------------------------------------------------------------------------


def _models_table(results: Results) -> Table:
    rows = []
    for model in published.MODELS:
        passes = [model.pass_at_100.get(language) for language in published.LANGUAGES]
        lines = [model.infilling.get(language) for language in published.LANGUAGES]
        rows.append(
            (
                tables.words(model.name),
                Cell(units.short_count(model.parameters), (model.parameters,)),
                *(tables.missing() if x is None else Cell(units.percent(x), (x,)) for x in (*passes, *lines)),
                tables.missing(),
                tables.words("published"),
            )
        )
    suites = figures.suites_of(results)
    for arm in figures.shown_arms(results):
        at = [(s.suite, p) for s in arm.suites for p in s.pass_at if s.suite in suites[:1] and p.k == 1]
        if arm.training is None or not at or arm.name.startswith(CONTROL):
            continue
        rows.append(
            (
                tables.words(figures.arm_label(results, arm)),
                Cell(units.short_count(arm.training.parameters), (arm.training.parameters,)),
                *(tables.missing() for _ in range(6)),
                Cell(units.percent(at[0][1].estimate.value), (at[0][1].estimate.value,)),
                tables.words("here"),
            )
        )
    ours = f"pass@1, {suites[0]}" if suites else "pass@1"
    columns = (
        Column("Model", number=False),
        Column("Parameters"),
        *(Column(f"HumanEval pass@100, {language}") for language in published.LANGUAGES),
        *(Column(f"Infilling, {language}") for language in published.LANGUAGES),
        Column(ours),
        Column("Where", number=False),
    )
    caption = "Different prompt sets never share a column. " + "; ".join(
        f"{name}: {what}" for name, what in published.PROMPT_SETS.items()
    )
    return Table("models", f"{caption} ({published.SOURCE})", columns, tuple(rows), central=True)


def models(results: Results) -> Section:
    return Section(
        "models",
        "Beside published models",
        present(
            paragraph(
                "SantaCoder's claim about size: 1.1 billion parameters do better than InCoder with 6.7 billion and "
                "CodeGen-Multi with 2.7 billion, on their own prompt sets."
            ),
            notice("The published numbers were measured elsewhere, with other samples; they are here to be looked at."),
            _models_table(results),
        ),
    )
