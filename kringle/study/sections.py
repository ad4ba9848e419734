"""The report's sections on what was measured: findings, ablation bars, bits per byte, differences, training.

A section is a heading over parts: text, tables and figures. Each ends with the commands that reproduce its numbers.
Example completions are in `kringle.study.gallery`, data and provenance in `kringle.study.provenance`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kringle.study import figures, ladder, tables, units
from kringle.study.figures import arm_label
from kringle.study.markup import Markup, join, tag
from kringle.study.page import Section, bullets, chip, listing, notice, paragraph, present, reproduce
from kringle.study.results import Arm, BitsPerByte, Infilling, Results, SuiteResult
from kringle.study.tables import Cell, Column, Table, estimate_column

# -- findings ----------------------------------------------------------------------------------------------------------


def _against_base(results: Results, arm: Arm) -> Cell:
    """The verdicts on an arm in words: "worse: infilling; undecided: bits per byte, pass@1"; one alone is said once."""
    if arm.is_base:
        return tables.words("the base")
    by_verdict: dict[str, list[str]] = {}
    for comparison in results.comparisons:
        if comparison.arm == arm.name and comparison.base == results.comparisons[0].base:
            by_verdict.setdefault(comparison.verdict, []).append(comparison.measure)
    if not by_verdict:
        return tables.missing()
    if len(by_verdict) == 1 and len(next(iter(by_verdict.values()))) > 1:
        by_verdict = {verdict: ["on every measure"] for verdict in by_verdict}
    text = "; ".join(f"{verdict}: {', '.join(measures)}" for verdict, measures in by_verdict.items())
    shown = [
        tag("div", chip(figures.VERDICT_SIGNS[verdict], figures.VERDICT_TONES[verdict]), " ", ", ".join(measures))
        for verdict, measures in by_verdict.items()
    ]
    return tables.words(text, join(*shown))


def _difference(arm: Arm) -> Cell:
    changes = [f"{key}={value}" for key, value in arm.changes.items()]
    text = "; ".join([arm.summary, *changes])
    codes = [tag("div", tag("code", change)) for change in changes]
    return tables.words(text, join(arm.summary, *codes))


def _estimates(arm: Arm, results: Results) -> list[Cell]:
    cells = [
        tables.estimate(arm.bits_per_byte.total, bits=True) if arm.bits_per_byte else tables.missing(columns=3),
        tables.estimate(arm.infilling.total.exact_match)
        if arm.infilling and arm.infilling.total
        else tables.missing(columns=3),
    ]
    for name, k in _passes(results):
        suite = figures.suite_result(arm, name)
        at = next((at for at in suite.pass_at if at.k == k), None) if suite else None
        cells.append(tables.estimate(at.estimate) if at else tables.missing(columns=3))
    return cells


def _passes(results: Results) -> list[tuple[str, int]]:
    """Every (suite, k) that some arm has."""
    every = ((suite.suite, at.k) for arm in results.arms for suite in arm.suites for at in suite.pass_at)
    return list(dict.fromkeys(every))


def _arms_table(results: Results) -> Table:
    several = len(figures.suites_of(results)) > 1
    passes = [f"{name} pass@{k}" if several else f"pass@{k}" for name, k in _passes(results)]
    rows = []
    for arm in figures.shown_arms(results):
        numbers = _estimates(arm, results)
        verdict = _against_base(results, arm)
        if arm.not_run is not None:
            verdict = tables.words(arm.not_run, join(chip("not run", "muted"), " ", arm.not_run))
        rows.append((tables.words(arm_label(results, arm)), _difference(arm), *numbers, verdict))
    columns = (
        Column("Arm", number=False),
        Column("What differs from the base", number=False, wide=True),
        *(estimate_column(title) for title in ("Bits per byte", "Infilling", *passes)),
        Column("Against the base", number=False, wide=True),
    )
    return Table(
        "arms",
        f"The ablations and what they measured.{figures.seeds_words(results)}",
        columns,
        tuple(rows),
        central=True,
    )


def _controls_table(results: Results) -> Table:
    tones = {"passed": "better", "failed": "worse", "not judged": "muted"}
    rows = tuple(
        (
            tables.words(check.arm),
            tables.words(check.expected),
            tables.words(check.outcome, chip(check.outcome, tones[check.outcome])),
            tables.words(check.why),
        )
        for check in results.controls
    )
    columns = (
        Column("Control", number=False),
        Column("Must come out", number=False),
        Column("Outcome", number=False),
        Column("What happened", number=False, wide=True),
    )
    return Table("controls", "Controls; where one fails there are no verdicts", columns, rows, central=True)


def findings(results: Results) -> Section:
    lede, rest = results.findings[:1], results.findings[1:]
    return Section(
        "study",
        "What we found",
        present(
            *(paragraph(sentence, "lede") for sentence in lede),
            _controls_table(results) if results.controls else None,
            bullets(rest, "findings") if rest else None,
            _arms_table(results),
            reproduce(results, "study"),
        ),
    )


# -- ablation bars -----------------------------------------------------------------------------------------------------


def _reasons(results: Results, what: str, pairs: Iterable[tuple[Arm, str | None]]) -> list[Markup]:
    """One notice per reason why something was not run, with the arms that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for arm, reason in pairs:
        if reason is not None:
            by_reason.setdefault(reason, []).append(arm_label(results, arm))
    return [notice(f"{what} was not run for {listing(arms)}: {reason}") for reason, arms in by_reason.items()]


def _suite_table(results: Results, name: str) -> Table | None:
    ran = [(arm, suite) for arm in results.arms if (suite := figures.suite_result(arm, name)) and suite.pass_at]
    if not ran:
        return None
    ks = list(dict.fromkeys(at.k for _, suite in ran for at in suite.pass_at))
    verdicts = list(dict.fromkeys(verdict for _, suite in ran for verdict in suite.verdicts))
    rows = [_suite_row(results, arm, suite, ks, verdicts) for arm, suite in ran]
    columns = (
        Column("Arm", number=False),
        *(estimate_column(f"pass@{k}") for k in ks),
        Column("Problems", lift=True),
        Column("Samples each", lift=True),
        *(Column(verdict) for verdict in verdicts),
        Column("Sampler", number=False, lift=True),
        Column("Jail", number=False, lift=True),
        Column("Prompt set", number=False, lift=True),
    )
    return Table(f"suite-{figures.slug(name)}", f"{name}: pass@k and what became of the programs", columns, tuple(rows))


def _suite_row(results: Results, arm: Arm, suite: SuiteResult, ks: list[int], verdicts: list[str]) -> tuple[Cell, ...]:
    by_k = {at.k: at.estimate for at in suite.pass_at}
    return (
        tables.words(arm_label(results, arm)),
        *(tables.estimate(by_k[k]) if k in by_k else tables.missing(columns=3) for k in ks),
        tables.count(suite.problems),
        tables.count(suite.samples),
        *(tables.count(suite.verdicts[v]) if v in suite.verdicts else tables.missing() for v in verdicts),
        tables.words(suite.sampler),
        tables.words(suite.jail),
        tables.code(suite.prompts),
    )


def _infilling_table(results: Results) -> Table | None:
    ran = [(arm, arm.infilling) for arm in results.arms if arm.infilling and arm.infilling.total]
    if not ran:
        return None
    languages = list(dict.fromkeys(language for _, infilling in ran for language in infilling.languages))
    rows = [row for arm, infilling in ran for row in _infilling_rows(results, arm, infilling, languages)]
    columns = (
        Column("Arm", number=False),
        Column("Language", number=False),
        estimate_column("Exact match"),
        Column("Hits"),
        Column("Lines"),
        Column("Cut at the limit"),
        Column("Prompt", number=False),
    )
    return Table("infilling", "Infilling of single held-out lines by exact match", columns, tuple(rows))


def _infilling_rows(results: Results, arm: Arm, infilling: Infilling, languages: list[str]) -> list[tuple[Cell, ...]]:
    scores = [("all", infilling.total)] + [(language, infilling.languages.get(language)) for language in languages]
    return [
        (
            tables.words(arm_label(results, arm)),
            tables.words(language),
            tables.estimate(score.exact_match),
            tables.count(score.hits),
            tables.count(score.n),
            tables.count(score.truncated),
            tables.words(infilling.prompt_format),
        )
        for language, score in scores
        if score is not None
    ]


def ablations(results: Results) -> Section:
    suites = figures.suites_of(results)
    drawn = [*(figures.suite_bars(results, name) for name in suites), figures.infilling_bars(results)]
    charts = tuple(figure for figure in drawn if figure is not None)
    notices = []
    for name in suites:
        found = [(arm, figures.suite_result(arm, name)) for arm in results.arms]
        notices += _reasons(results, name, [(arm, suite.not_run) for arm, suite in found if suite])
    infilling = [(arm, arm.infilling.not_run) for arm in results.arms if arm.infilling]
    notices += _reasons(results, "Infilling", infilling)
    if not suites:
        notices.append(notice("No suite of problems was evaluated."))
    if not infilling:
        notices.append(notice("Infilling was not evaluated."))
    return Section(
        "ablations",
        "Left to right and fill in the middle",
        present(
            paragraph(
                "Two things a code model is asked for: to write on from what stands above, and to fill a gap between "
                "what stands above and below."
            ),
            charts or None,
            *notices,
            *(_suite_table(results, name) for name in suites),
            _infilling_table(results),
            reproduce(results, "left-to-right", "infilling"),
        ),
    )


# -- bits per byte -----------------------------------------------------------------------------------------------------


def _beats_words(measured: list[tuple[str, BitsPerByte]]) -> str:
    """Whether the models beat the n-gram baseline, said outright."""
    groups = {
        answer: [name for name, m in measured if m.beats_ngram == answer] for answer in ("yes", "no", "undecided")
    }
    if len(groups["yes"]) == len(measured):
        who = f"The model {groups['yes'][0]} beats" if len(measured) == 1 else "Every trained model beats"
        return f"{who} the n-gram baseline, which has seen exactly the same tokens."
    says = {"yes": "beaten by", "no": "not beaten by", "undecided": "undecided for"}
    parts = [f"{says[answer]} {listing(names)}" for answer, names in groups.items() if names]
    return f"The n-gram baseline, which has seen exactly the same tokens, is {'; '.join(parts)}."


def _bits_table(measured: list[tuple[str, BitsPerByte]]) -> Table:
    languages = list(dict.fromkeys(language for _, m in measured for language in m.languages))
    rows = []
    for name, m in measured:
        ends = [tables.count(m.files), tables.size(m.bytes), tables.words(m.beats_ngram)]
        by_language = [m.languages.get(language) for language in languages]
        cells = [tables.estimate(e, bits=True) if e else tables.missing(columns=3) for e in by_language]
        rows.append((tables.words(name), tables.words("model"), tables.estimate(m.total, bits=True), *cells, *ends))
        for baseline in m.baselines:
            values = [baseline.total, *(baseline.languages.get(language) for language in languages)]
            plain = [
                tables.missing(columns=3)
                if value is None
                else Cell(tag("span", units.bits(value), class_="value"), (value, None, None))
                for value in values
            ]
            rows.append((tables.words(name), tables.words(baseline.name), *plain, *(tables.missing() for _ in ends)))
    columns = (
        Column("Arm", number=False),
        Column("Who predicts", number=False),
        estimate_column("All languages"),
        *(estimate_column(language) for language in languages),
        Column("Files", lift=True),
        Column("Size", lift=True),
        Column("Beats the n-gram", number=False),
    )
    return Table("bits-per-byte", "Bits per byte by language; lower is better", columns, tuple(rows))


def bits_per_byte(results: Results) -> Section:
    measured = [(arm_label(results, arm), arm.bits_per_byte) for arm in results.arms if arm.bits_per_byte]
    if not measured:
        return Section("bits-per-byte", "Bits per byte", (notice("Bits per byte were not measured."),))
    shown = [(arm_label(results, arm), arm.bits_per_byte) for arm in figures.shown_arms(results) if arm.bits_per_byte]
    return Section(
        "bits-per-byte",
        "Bits per byte",
        present(
            paragraph(
                "How many bits each model needs for a byte of code that it has never seen: the steadiest measure for a "
                f"small model. {_beats_words(shown)}"
            ),
            figures.bits_per_byte_dots(results),
            _bits_table(measured),
            reproduce(results, "bits-per-byte"),
        ),
    )


# -- differences -------------------------------------------------------------------------------------------------------


def _share(value: float | None) -> Cell:
    """A probability with three decimals."""
    if value is None:
        return tables.missing()
    return Cell("<0.001" if value < 0.001 else ">0.999" if 0.999 < value < 1 else f"{value:.3f}", (value,))


def _comparison_table(results: Results) -> Table:
    rows = []
    for c in results.comparisons:
        write = [figures.write_difference(c, value) for value in (c.difference, c.low, c.high)]
        margin = tables.missing()
        if c.margin is not None:
            margin = Cell(f"\N{PLUS-MINUS SIGN}{figures.write_difference(c, c.margin).removeprefix('+')}", (c.margin,))
        rows.append(
            (
                tables.words(c.arm),
                tables.words(c.base),
                tables.words(c.measure),
                Cell(tables.interval(*write), (c.difference, c.low, c.high)),
                Cell(figures.level_text(c.level), (c.level,)),
                margin,
                tables.words("higher" if c.higher_is_better else "lower"),
                tables.words(c.verdict, chip(figures.VERDICT_SIGNS[c.verdict], figures.VERDICT_TONES[c.verdict])),
                _share(c.probability_better),
                _share(c.p_value),
                tables.missing()
                if c.detectable is None
                else Cell(figures.write_difference(c, c.detectable).removeprefix("+"), (c.detectable,)),
                tables.words(c.words),
            )
        )
    columns = (
        Column("Arm", number=False),
        Column("Base", number=False, lift=True),
        Column("Measure", number=False),
        estimate_column("Difference"),
        Column("Interval", lift=True),
        Column("Margin"),
        Column("Better is", number=False),
        Column("Verdict", number=False),
        Column("P(better)"),
        Column("p, corrected"),
        Column("Would have been found from"),
        Column("Remark", number=False, lift=True, wide=True),
    )
    return Table("differences", "Arm minus base on each measure", columns, tuple(rows))


def differences(results: Results) -> Section:
    if not results.comparisons:
        return Section("differences", "Differences", (notice("There is no second arm to compare with the base."),))
    remarks = list(dict.fromkeys(c.remark for c in results.comparisons if c.remark))
    failed = any(check.outcome == "failed" for check in results.controls)
    hold = f"The intervals hold for {listing(remarks)}." if remarks else ""
    return Section(
        "differences",
        "Differences",
        present(
            paragraph(
                "The same items under both models, so what they share cancels out. "
                + ("There are no verdicts, because a control failed." if failed else hold)
            ),
            figures.forest(results),
            _comparison_table(results),
            reproduce(results, "comparisons"),
        ),
    )


# -- training ----------------------------------------------------------------------------------------------------------


def _training_table(results: Results) -> Table:
    rows = []
    for arm in results.arms:
        if arm.training is None:
            continue
        t = arm.training
        last = figures.smoothed_loss(t)[0][-1][1] if t.curve else None
        rows.append(
            (
                tables.words(arm_label(results, arm)),
                tables.count(arm.seed),
                tables.count(t.parameters),
                tables.count(t.tokens),
                tables.count(t.unique_tokens),
                tables.decimal(t.epochs, 2),
                tables.count(t.steps),
                tables.duration(t.seconds),
                tables.count(round(t.tokens_per_second))._replace(raw=(t.tokens_per_second,)),
                tables.missing("diverged" if t.curve else "\N{EN DASH}") if last is None else tables.decimal(last, 3),
            )
        )
    columns = (
        Column("Arm", number=False),
        Column("Seed", lift=True),
        Column("Parameters"),
        Column("Tokens seen", lift=True),
        Column("Tokens available", lift=True),
        Column("Epochs", lift=True),
        Column("Steps", lift=True),
        Column("Time"),
        Column("Tokens/s"),
        Column("Last loss"),
    )
    return Table("training", "The training runs; the last loss is smoothed as in the figure", columns, tuple(rows))


def training(results: Results) -> Section:
    if not any(arm.training for arm in results.arms):
        return Section("training", "Training", (notice("Nothing was trained."),))
    return Section(
        "training",
        "Training",
        present(
            figures.loss_curves(results),
            figures.held_out_curves(results),
            ladder.ladder(results),
            _training_table(results),
            reproduce(results, "training"),
        ),
    )
