"""Two studies side by side: what was set differently, what came out differently, and which verdicts changed.

A pure function of two results. Numbers of the two studies stand beside each other with their own intervals; no
difference between them is judged, since nothing pairs their items.
"""

from __future__ import annotations

import difflib

from kringle.study import figures, tables, units
from kringle.study.markup import Markup, join, tag
from kringle.study.page import Section, bullets, chip, notice, paragraph, present
from kringle.study.results import Arm, Comparison, Estimate, Results
from kringle.study.tables import Cell, Column, Table, estimate_column


def _settings(one: Results, other: Results) -> list[str]:
    pairs = [
        ("Study", one.study, other.study),
        ("Kringle", one.kringle_version, other.kringle_version),
        ("Fidelity", one.fidelity, other.fidelity),
        ("Corpus", one.corpus.fingerprint, other.corpus.fingerprint),
        ("Tokenizer", one.tokenizer.fingerprint, other.tokenizer.fingerprint),
        ("Processor", one.machine.cpu, other.machine.cpu),
        ("PyTorch", one.machine.torch, other.machine.torch),
        ("Held-out files", units.count(one.held_out.files), units.count(other.held_out.files)),
    ]
    said = [f"{name}: {a} before, {b} now." for name, a, b in pairs if a != b]
    said += [
        f"{name}: {one.versions.get(name, 'absent')} before, {other.versions.get(name, 'absent')} now."
        for name in sorted({*one.versions, *other.versions})
        if one.versions.get(name) != other.versions.get(name) and name != "kringle"
    ]
    before, now = ({arm.name for arm in results.arms} for results in (one, other))
    said += [f"Only before: {', '.join(sorted(before - now))}."] if before - now else []
    said += [f"Only now: {', '.join(sorted(now - before))}."] if now - before else []
    return said


def _recipe(one: Results, other: Results) -> Markup | None:
    lines = list(
        difflib.unified_diff(
            one.recipe.text.splitlines(), other.recipe.text.splitlines(), "before", "now", lineterm="", n=1
        )
    )
    if not lines:
        return None
    return tag("pre", tag("code", join(*lines, between="\n")), tabindex="0", role="region", aria_label="Recipe")


def _measures(arm: Arm) -> dict[str, tuple[Estimate, bool]]:
    """An arm's estimates by name of the measure, and whether it is bits per byte."""
    found: dict[str, tuple[Estimate, bool]] = {}
    if arm.bits_per_byte:
        found["bits per byte"] = (arm.bits_per_byte.total, True)
    if arm.infilling and arm.infilling.total:
        found["infilling"] = (arm.infilling.total.exact_match, False)
    for suite in arm.suites:
        # Scores on different prompts are not comparable, so the fingerprint is part of the measure's name
        found |= {f"pass@{at.k} on {suite.suite} ({suite.prompts})": (at.estimate, False) for at in suite.pass_at}
    return found


def _measures_table(one: Results, other: Results) -> Table:
    before = {(arm.name, arm.seed): arm for arm in one.arms}
    rows = []
    for arm in other.arms:
        earlier = before.get((arm.name, arm.seed))
        for name, (now, bits) in _measures(arm).items():
            then = _measures(earlier).get(name) if earlier else None
            gap = tables.missing()
            if then is not None:
                change = now.value - then[0].value
                gap = Cell(units.bits_difference(change) if bits else units.points(change), (change,))
            rows.append(
                (
                    tables.words(figures.arm_label(other, arm)),
                    tables.words(name),
                    tables.estimate(then[0], bits=bits) if then else tables.missing(columns=3),
                    tables.estimate(now, bits=bits),
                    gap,
                )
            )
    columns = (
        Column("Arm", number=False),
        Column("Measure", number=False),
        estimate_column("Before"),
        estimate_column("Now"),
        Column("Change"),
    )
    return Table("changes", "Every measure before and now", columns, tuple(rows), central=True)


def _verdicts(one: Results, other: Results) -> tuple[list[str], int, Table]:
    """Sentences on the verdicts that differ, of how many that both studies have, and all of them."""

    def by_name(results: Results) -> dict[tuple[str, str, str], Comparison]:
        return {(c.arm, c.base, c.measure): c for c in results.comparisons}

    before, now = by_name(one), by_name(other)
    shared = 0
    said, rows = [], []
    for key in dict.fromkeys([*before, *now]):
        then, later = before.get(key), now.get(key)
        if then is not None and later is not None:
            shared += 1
        if then is not None and later is not None and then.verdict != later.verdict:
            arm, base, measure = key
            said.append(f"{arm} against {base}, {measure}: {then.verdict} before, {later.verdict} now.")
        cells = [
            tables.missing(columns=3)
            if c is None
            else Cell(
                tables.interval(*(figures.write_difference(c, x) for x in (c.difference, c.low, c.high))),
                (c.difference, c.low, c.high),
            )
            for c in (then, later)
        ]
        verdicts = [
            tables.missing()
            if c is None
            else tables.words(c.verdict, chip(figures.VERDICT_SIGNS[c.verdict], figures.VERDICT_TONES[c.verdict]))
            for c in (then, later)
        ]
        names = (tables.words(f"{key[0]} {units.MINUS} {key[1]}"), tables.words(key[2]))
        rows.append((*names, cells[0], verdicts[0], cells[1], verdicts[1]))
    columns = (
        Column("Arms", number=False),
        Column("Measure", number=False),
        estimate_column("Before"),
        Column("Verdict before", number=False),
        estimate_column("Now"),
        Column("Verdict now", number=False),
    )
    return said, shared, Table("verdicts", "Every difference before and now", columns, tuple(rows), central=True)


def sections(one: Results, other: Results) -> tuple[Section, ...]:
    """The page of two studies: `one` is the earlier."""
    changed, shared, table = _verdicts(one, other)
    settings, recipe = _settings(one, other), _recipe(one, other)
    return (
        Section(
            "study",
            "What changed",
            present(
                paragraph(f"{len(changed)} of the {shared} verdicts that both studies have differ.", "lede"),
                bullets(changed, "findings") if changed else None,
                table if table.rows else notice("Neither study compares anything."),
            ),
        ),
        Section(
            "settings",
            "What was set differently",
            present(
                bullets(settings) if settings else notice("Nothing that the results record."),
                recipe if recipe is not None else notice("The recipes are the same."),
            ),
        ),
        Section("measures", "Every measure", (_measures_table(one, other),)),
    )
