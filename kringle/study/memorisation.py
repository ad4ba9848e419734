"""The report's section on memorisation: what models wrote that stands in their training data, by temperature.

`read` works the shares out of what the memorisation stages kept; `section` shows them, each beside the same share of
text that no model wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kringle.evaluation.kept import read_lines
from kringle.study import charts, figures, tables, units
from kringle.study.figures import Figure, arm_label
from kringle.study.gallery import lines_around
from kringle.study.judgements import estimate
from kringle.study.licences import summary
from kringle.study.markup import Markup, join, tag
from kringle.study.memorising import CONTINUATION, INFILLING
from kringle.study.page import Section, notice, paragraph, present, reproduce
from kringle.study.plan import Run
from kringle.study.results import Copied, Estimate, Memorisation, MemorisedExample, Results
from kringle.study.statistics import Interval, rate_interval, ratio_interval, wilson
from kringle.study.tables import Column, Table, estimate_column

SHORTEST = 50  # characters: what counts as a copy (`kringle.attribution.index`)
_AROUND = 200  # characters of a completion that are kept before and after a copy, for the reader


# -- from the stages' files --------------------------------------------------------------------------------------------


def read(runs: Sequence[Run]) -> tuple[tuple[Memorisation, ...], tuple[MemorisedExample, ...]]:
    """Shares of every run, and the longest copy of each kind that any model wrote. Both empty where nothing was looked
    up, which `reason` explains."""
    found: list[Memorisation] = []
    longest: dict[str, tuple[int, MemorisedExample]] = {}
    for run in runs:
        if reason([run]) is not None:
            continue
        rows = list(read_lines(run.memorisation.folder / "memorisation.jsonl"))
        for what, temperature in dict.fromkeys((row["what"], row["temperature"]) for row in rows):
            here = [row for row in rows if (row["what"], row["temperature"]) == (what, temperature)]
            written, held_out = ([row for row in here if row["by"] == by] for by in ("model", "held-out"))
            shares = (_copied(written), _copied(held_out))
            found.append(Memorisation(run.arm.name, run.seed, what, temperature, *shares))
        for row in read_lines(run.memorisation.folder / "copies.jsonl"):
            length = row["end"] - row["start"]
            if row["sources"] and length > longest.get(row["kind"], (0, None))[0]:
                longest[row["kind"]] = length, _example(run.arm.name, row)
    return tuple(found), tuple(example for _, (_, example) in sorted(longest.items()))


def reason(runs: Iterable[Run]) -> str | None:
    """Why nothing was looked up in any of these runs; None where something was."""
    reasons = [summary(run.memorisation).get("not_run") for run in runs]
    return None if not reasons or None in reasons else str(reasons[0])


def _copied(rows: Sequence[dict[str, Any]]) -> Copied:
    sizes, units_ = [row["characters"] for row in rows], [row["unit"] for row in rows]
    kinds = ([row["exact"] for row in rows], [row["white_space"] for row in rows])
    exact, white_space = (_share([float(n > 0) for n in kind], units_) for kind in kinds)
    exact_characters, white_space_characters = (_characters(kind, sizes, units_) for kind in kinds)
    return Copied(len(rows), sum(sizes), exact, exact_characters, white_space, white_space_characters)


def _share(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    if len(set(clusters)) < 2:  # everything in one cluster: at least the texts differ
        return estimate(wilson(sum(values), len(values)))
    return estimate(rate_interval(values, clusters))


def _characters(copied: Sequence[int], sizes: Sequence[int], clusters: Sequence[str]) -> Estimate:
    """Of texts that have any; where none or everything is copied, resampling shows no spread, so as many trials as
    there are clusters bound the share."""
    kept = [i for i, size in enumerate(sizes) if size]
    total, part = sum(sizes), sum(copied)
    several = len({clusters[i] for i in kept})
    if part in (0, total) or several < 2:
        share = part / total if total else 0.0
        found = wilson(share * max(1, several), max(1, several))
        return estimate(Interval(share, found.low, found.high, found.level, found.method))
    numerators, denominators = [copied[i] for i in kept], [sizes[i] for i in kept]
    return estimate(ratio_interval(numerators, denominators, [clusters[i] for i in kept]))


def _example(arm: str, row: dict[str, Any]) -> MemorisedExample:
    source, start, end = row["sources"][0], row["start"], row["end"]
    return MemorisedExample(
        arm=arm,
        what=row["what"],
        temperature=row["temperature"],
        kind=row["kind"],
        before=row["text"][max(0, start - _AROUND) : start],
        copied=row["text"][start:end],
        after=row["text"][end : end + _AROUND],
        repository=source["repository"],
        path=source["path"],
        line=source["line"],
        licence=source["licence"],
        places=len(row["sources"]) + row["more"],
    )


# -- the section -------------------------------------------------------------------------------------------------------


def _named(what: str, temperature: float) -> str:
    words = {CONTINUATION: "held-out file, continued", INFILLING: "line filled in"}.get(what, what)
    return f"{words}, temperature {temperature:g}"


def _bar(name: str, label: str, share: Estimate, texts: int) -> charts.Bar:
    shown = units.percent(share.value)
    tip = f"{label}, {name}: {shown} of {texts:,} texts, {units.percent(share.low)} to {units.percent(share.high)}"
    return charts.Bar(name, figures.span(share), shown, tip)


def figure(results: Results) -> Figure | None:
    """By arm: the share of continuations with an exact copy at each temperature, and that of the files themselves."""
    series, rows, told = figures.series_of(results), [], []
    for arm in figures.shown_arms(results):
        own = [m for m in results.memorisation if (m.arm, m.seed, m.what) == (arm.name, arm.seed, CONTINUATION)]
        if not own:
            continue
        label = arm_label(results, arm)
        bars = [_bar(f"at {m.temperature:g}", label, m.written.exact, m.written.texts) for m in own]
        bars.append(_bar("the file itself", label, own[0].held_out.exact, own[0].held_out.texts))
        told += [bar.tip for bar in bars]
        rows.append(charts.BarRow(label, series[arm.name], arm.is_base, tuple(bars)))
    if not rows:
        return None
    title = "Continuations that hold a copy, by temperature"
    estimates = [m.written.exact for m in results.memorisation]
    caption = (
        f"Share of continuations of held-out files with {SHORTEST} characters or more that stand exactly so in the "
        f"training data, and of what the files themselves go on with. {figures.interval_words(estimates)}."
    )
    return Figure(
        "memorisation",
        title,
        caption,
        f"Bar chart, {title}. {'. '.join(told)}.",
        lambda width: charts.bars(rows, width, lambda share: f"{share * 100:.3g}%"),
    )


def table(results: Results) -> Table:
    """Every run, kind of text and temperature; who wrote it in the third column."""
    labels = {(arm.name, arm.seed): arm_label(results, arm) for arm in results.arms}
    rows = []
    for m in results.memorisation:
        for by, copied in (("the model", m.written), ("people, held out", m.held_out)):
            rows.append(
                (
                    tables.words(labels[m.arm, m.seed]),
                    tables.words(_named(m.what, m.temperature)),
                    tables.words(by),
                    tables.count(copied.texts),
                    tables.count(copied.characters),
                    tables.estimate(copied.exact),
                    tables.estimate(copied.exact_characters),
                    tables.estimate(copied.white_space),
                    tables.estimate(copied.white_space_characters),
                )
            )
    columns = (
        Column("Arm", number=False),
        Column("Text", number=False),
        Column("Written by", number=False),
        Column("Texts"),
        Column("Characters"),
        estimate_column("Texts with an exact copy"),
        estimate_column("Characters in exact copies"),
        estimate_column("Texts with a copy but for white space"),
        estimate_column("Characters in copies but for white space"),
    )
    caption = f"Stretches of {SHORTEST} characters or more that stand in the training data"
    return Table("memorisation", caption, columns, tuple(rows))


def _example_card(example: MemorisedExample) -> Markup:
    kind = "an exact copy" if example.kind == "exact" else "a copy but for white space"
    where = f"{example.repository}/{example.path}, line {example.line}"
    others = "" if example.places < 2 else f", and at least {example.places - 1:,} other files"
    head = tag(
        "header",
        tag("h3", tag("span", kind, class_="kind"), " ", tag("span", where, class_="where")),
        tag(
            "p",
            f"{len(example.copied):,} characters by {example.arm}, {_named(example.what, example.temperature)}; in the "
            f"training data under {example.licence or 'an unknown licence'}{others}",
        ),
    )
    code = tag(
        "code",
        tag("span", lines_around(example.before, keep_end=True), class_="prefix"),
        tag("mark", lines_around(example.copied)),
        tag("span", lines_around(example.after), class_="suffix"),
    )
    block = tag("pre", code, tabindex="0", role="region", aria_label=f"A copy from {where}")
    return tag("article", head, block, class_="example")


def section(results: Results) -> Section | None:
    """The section, or None where nothing was looked up."""
    if not results.memorisation:
        return None
    cards = [_example_card(example) for example in results.memorised]
    nothing = notice(f"No model wrote {SHORTEST} characters in a row that stand in the training data.")
    return Section(
        "memorisation",
        "Memorisation",
        present(
            paragraph(
                f"How much of what the models wrote stands in their training data, in stretches of {SHORTEST} "
                "characters or more: exactly, or but for white space. Common boilerplate is in everybody's files, so "
                "the same share of text that no model saw or wrote stands beside it: what the held-out file itself "
                "goes on with, the line end that was hidden, and pieces of held-out files as long as the programs. "
                "What lies well above that is memory; what lies at or below it is the way code is written."
            ),
            figure(results),
            table(results),
            tag("div", join(*cards), class_="examples") if cards else nothing,
            reproduce(results, "memorisation"),
        ),
    )
