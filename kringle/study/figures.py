"""The report's figures: from results to drawings, with the words that a reader of the picture and a listener need.

Each figure is drawn for its width in pixels, so that a phone gets a layout of its own instead of a shrunken one. An
arm has the same colour everywhere. What the figures leave out (seeds, counts, prompt formats) is in the tables.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kringle.study import charts, published, units
from kringle.study.results import Arm, Comparison, Estimate, FunnelStep, Results, SuiteResult, Training
from kringle.study.svg import Drawing

WIDE, NARROW, HALF = 880, 360, 400
_CURVE_POINTS = 200  # a line 600 pixels long shows no more


@dataclass(frozen=True)
class Figure:
    """`key` is its file's name; `alt` is the figure in words; `draw` takes a width in pixels, and `widths` are those
    that the page holds, widest first."""

    key: str
    title: str
    caption: str
    alt: str
    draw: Callable[[float], Drawing]
    widths: tuple[int, ...] = (WIDE, NARROW)


# -- names -------------------------------------------------------------------------------------------------------------


def arm_label(results: Results, arm: Arm) -> str:
    """An arm's name, with its seed where the study has several of one name."""
    if any(arm is mean for mean in results.means):
        return arm.name
    same = sum(other.name == arm.name for other in results.arms)
    return f"{arm.name}, seed {arm.seed}" if same > 1 else arm.name


def shown_arms(results: Results) -> tuple[Arm, ...]:
    """Every arm once where there are several seeds, their measures averaged; else the arms as they are."""
    return results.means or results.arms


def seeds_words(results: Results) -> str:
    """ " Means of 3 seeds.", or of 2 to 3 where some trainings broke off, or nothing."""
    if not results.means:
        return ""
    counts = Counter(arm.name for arm in results.arms if arm.not_run is None).values()
    many = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    return f" Means of {many} seeds."


def series_of(results: Results) -> dict[str, int]:
    """Colour number by arm name: the base first, then in the study's order."""
    names = [arm.name for arm in sorted(results.arms, key=lambda arm: not arm.is_base)]
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def slug(name: str) -> str:
    """A name as part of a file name or an element's id."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def suites_of(results: Results) -> list[str]:
    return list(dict.fromkeys(suite.suite for arm in results.arms for suite in arm.suites))


def suite_result(arm: Arm, name: str) -> SuiteResult | None:
    return next((suite for suite in arm.suites if suite.suite == name), None)


def span(estimate: Estimate) -> charts.Span:
    return charts.Span(estimate.value, estimate.low, estimate.high)


def level_text(level: float) -> str:
    return f"{level * 100:.3g}%"


def interval_words(estimates: Sequence[Estimate]) -> str:
    """How the intervals were made: "95% intervals (Wilson score)"."""
    kinds = list(dict.fromkeys((estimate.level, estimate.method) for estimate in estimates))
    return "; ".join(f"{level_text(level)} intervals ({method})" for level, method in kinds)


def _told(label: str, name: str, estimate: Estimate, write: Callable[[float], str]) -> str:
    ends = f"{write(estimate.low)} to {write(estimate.high)}"
    return f"{label}: {name} {write(estimate.value)}, {level_text(estimate.level)} interval {ends}"


def _axis_percent(share: float) -> str:
    return f"{share * 100:.3g}%".replace("-", units.MINUS)


def _axis_number(value: float) -> str:
    return f"{value:.4g}".replace("-", units.MINUS)


def _axis_points(share: float) -> str:
    return units.signed(_axis_number(share * 100)) + " pts"


def _axis_difference(value: float) -> str:
    return units.signed(_axis_number(value))


# -- bars --------------------------------------------------------------------------------------------------------------


def _bars(key: str, title: str, caption: str, rows: Sequence[charts.BarRow]) -> Figure:
    told = [bar.tip for row in rows for bar in row.bars] + [f"{row.label}: {row.note}" for row in rows if not row.bars]
    return Figure(
        key,
        title,
        caption,
        f"Bar chart, {title}. {'. '.join(told)}.",
        lambda width: charts.bars(rows, width, _axis_percent),
        (HALF,),
    )


def suite_bars(results: Results, name: str) -> Figure | None:
    """Left to right: pass@k on one suite; None where no arm has run it."""
    series = series_of(results)
    rows, estimates = [], []
    for arm in shown_arms(results):
        label, suite = arm_label(results, arm), suite_result(arm, name)
        passes = suite.pass_at if suite else ()
        estimates += [at.estimate for at in passes]
        bars = tuple(
            charts.Bar(
                f"pass@{at.k}",
                span(at.estimate),
                units.percent(at.estimate.value),
                _told(label, f"pass@{at.k}", at.estimate, units.percent),
            )
            for at in passes
        )
        note = (suite.not_run if suite else arm.not_run) or "not run"
        rows.append(charts.BarRow(label, series[arm.name], arm.is_base, bars, note))
    if not estimates:
        return None
    ran = next(suite for arm in shown_arms(results) if (suite := suite_result(arm, name)) and suite.pass_at)
    made = f"{interval_words(estimates)}.{seeds_words(results)}"
    caption = f"pass@k on {ran.problems} problems, {ran.samples} samples each. {made}"
    return _bars(f"pass-at-k-{slug(name)}", f"Left to right: {name}", caption, rows)


def infilling_bars(results: Results) -> Figure | None:
    """Fill in the middle: exact match; None where no arm has run it."""
    series = series_of(results)
    rows, estimates = [], []
    for arm in shown_arms(results):
        label, total = arm_label(results, arm), arm.infilling.total if arm.infilling else None
        bars: tuple[charts.Bar, ...] = ()
        if total:
            match = total.exact_match
            estimates.append(match)
            tip = f"{_told(label, 'exact match', match, units.percent)} ({total.hits} of {total.n})"
            bars = (charts.Bar("exact match", span(match), units.percent(match.value), tip),)
        note = (arm.infilling.not_run if arm.infilling else arm.not_run) or "not run"
        rows.append(charts.BarRow(label, series[arm.name], arm.is_base, bars, note))
    if not estimates:
        return None
    lines = [arm.infilling.total.n for arm in results.arms if arm.infilling and arm.infilling.total]  # of one run
    many = " to ".join(units.count(n) for n in sorted({min(lines), max(lines)}))
    what = f"Exact match on {many} held-out lines, each model with the prompt it was trained for"
    caption = f"{what}. {interval_words(estimates)}.{seeds_words(results)}"
    return _bars("infilling", "Fill in the middle: single lines", caption, rows)


# -- bits per byte -----------------------------------------------------------------------------------------------------


def bits_per_byte_dots(results: Results) -> Figure | None:
    series = series_of(results)
    rows, estimates, told = [], [], []
    for arm in shown_arms(results):
        label, measured = arm_label(results, arm), arm.bits_per_byte
        if measured is None:
            rows.append(
                charts.DotRow(label, series[arm.name], arm.is_base, None, "", "", note=arm.not_run or "not measured")
            )
            continue
        total = measured.total
        estimates.append(total)
        tip = _told(label, "bits per byte", total, units.bits)
        tip += "".join(f"; {baseline.name} {units.bits(baseline.total)}" for baseline in measured.baselines)
        told.append(tip)
        marks = tuple(
            charts.Mark(baseline.name, baseline.total, f"{baseline.name} {units.bits(baseline.total)}")
            for baseline in measured.baselines
        )
        rows.append(
            charts.DotRow(label, series[arm.name], arm.is_base, span(total), units.bits(total.value), tip, marks)
        )
    if not estimates:
        return None
    return Figure(
        "bits-per-byte",
        "Bits per byte of held-out code",
        f"Further left is better. Hollow: what the baselines need for the same bytes. {interval_words(estimates)}."
        f"{seeds_words(results)}",
        f"Dot plot, bits per byte of held-out code. {'. '.join(told)}.",
        lambda width: charts.dots(rows, width, _axis_number, "model"),
    )


# -- differences -------------------------------------------------------------------------------------------------------

VERDICT_SIGNS = {
    "better": "▲ better",
    "worse": "▼ worse",
    "no difference": "= no difference",
    "undecided": "? undecided",
}
VERDICT_TONES = {"better": "better", "worse": "worse", "no difference": "muted", "undecided": "muted"}


def write_difference(comparison: Comparison, value: float) -> str:
    return units.points(value) if comparison.unit == "fraction" else units.bits_difference(value)


def difference_words(comparison: Comparison) -> str:
    """ "−0.0123, 90% interval −0.0200 to −0.0040"."""
    low, high = (write_difference(comparison, end) for end in (comparison.low, comparison.high))
    value = write_difference(comparison, comparison.difference)
    return f"{value}, {level_text(comparison.level)} interval {low} to {high}"


def forest(results: Results) -> Figure | None:
    if not results.comparisons:
        return None
    series = series_of(results)
    panels, told = [], []
    first_base = results.comparisons[0].base
    for measure in dict.fromkeys(comparison.measure for comparison in results.comparisons):
        group = [comparison for comparison in results.comparisons if comparison.measure == measure]
        rows = []
        for c in group:
            label = c.arm if c.base == first_base else f"{c.arm} {units.MINUS} {c.base}"
            tip = f"{c.arm} minus {c.base}, {measure}: {difference_words(c)}; {c.verdict}"
            beside = published.beside(c.arm, c.measure) if c.base == first_base else None
            if beside is not None:
                tip += f"; SantaCoder's paper {units.points(beside)}"
            if c.detectable is not None:
                tip += f"; smallest difference that would have been found {write_difference(c, c.detectable)}"
            told.append(tip)
            rows.append(
                charts.ForestRow(
                    label,
                    series[c.arm],
                    charts.Span(c.difference, c.low, c.high),
                    c.margin,
                    write_difference(c, c.difference),
                    VERDICT_SIGNS[c.verdict],
                    VERDICT_TONES[c.verdict],
                    tip + (f" ({c.words})" if c.words else ""),
                    beside,
                    c.detectable,
                )
            )
        first = group[0]
        write_axis = _axis_points if first.unit == "fraction" else _axis_difference
        panels.append(charts.ForestPanel(measure, not first.higher_is_better, tuple(rows), write_axis))
    base = first_base
    levels = " and ".join(dict.fromkeys(level_text(comparison.level) for comparison in results.comparisons))
    return Figure(
        "differences",
        f"Differences against {base}",
        f"Each arm minus {base}, {levels} intervals; better is always to the right. Shaded: differences within the "
        "recipe's margin, too small to matter. Dashed: the smallest difference that this study would have found four "
        "times in five, where it could find any. Hollow: the same difference in SantaCoder's paper, at 1.1 billion "
        "parameters (infilling; HumanEval and MBPP, pass@1 and pass@10).",
        f"Forest plot. {'. '.join(told)}.",
        lambda width: charts.forest(panels, width),
    )


# -- curves ------------------------------------------------------------------------------------------------------------


def smooth(points: Sequence[tuple[float, float | None]], window: int) -> list[tuple[float, float | None]]:
    """Running mean over `window` points, centred, fewer at the ends; about `_CURVE_POINTS` of them are kept.

    A point without a finite value stays without one, and is left out of its neighbours' means.
    """
    step = max(1, len(points) // _CURVE_POINTS)
    kept = sorted({*range(0, len(points), step), len(points) - 1}) if points else []
    half = window // 2
    out: list[tuple[float, float | None]] = []
    for index in kept:
        near = [y for _, y in points[max(0, index - half) : index + half + 1] if y is not None]
        x, own = points[index]
        out.append((x, None if own is None else sum(near) / len(near)))
    return out


def _top(lines: Sequence[charts.Curve]) -> float:
    """Where the plot is cut off: the highest value after the first tenth, so that the end can be read."""
    last = max((x for line in lines for x, _ in line.points), default=0.0)
    late = [y for line in lines for x, y in line.points if y is not None and x >= last / 10]
    every = late or [y for line in lines for _, y in line.points if y is not None]
    return max(every, default=1.0)


def _curves(key: str, title: str, caption: str, lines: Sequence[charts.Curve], digits: int) -> Figure | None:
    if not any(y is not None for line in lines for _, y in line.points):
        return None
    top = _top(lines)
    ends = [f"{line.label} ends at {y:.{digits}f}" for line in lines if (y := line.points[-1][1]) is not None]
    cut = any(y is not None and y > top for line in lines for _, y in line.points)
    note = " The first tenth of the training, where values are higher, runs off the top." if cut else ""
    return Figure(
        key,
        title,
        caption + note,
        f"Line chart, {title}. {'; '.join(ends)}.",
        lambda width: charts.curves(lines, width, top, digits, units.short_count, "tokens seen"),
    )


def smoothed_loss(training: Training) -> tuple[list[tuple[float, float | None]], int]:
    """The loss curve over tokens as a running mean, and the window: a fortieth of the curve."""
    raw = [(float(point.tokens), point.loss) for point in training.curve]
    window = max(1, math.ceil(len(raw) / 40))
    return smooth(raw, window), window


def loss_curves(results: Results) -> Figure | None:
    series, lines, windows = series_of(results), [], set()
    for arm in shown_arms(results):
        if arm.training and arm.training.curve:
            points, window = smoothed_loss(arm.training)
            windows.add(window)
            lines.append(charts.Curve(arm_label(results, arm), series[arm.name], arm.is_base, tuple(points)))
    lost = [line.label for line in lines if any(y is None for _, y in line.points)]
    note = f" Not a finite number at some point, where the line breaks: {', '.join(lost)}." if lost else ""
    about = f"Running mean over {max(windows, default=1)} measurements. " if max(windows, default=1) > 1 else ""
    about += f"The first of {len({arm.seed for arm in results.arms})} seeds of each arm. " if results.means else ""
    caption = f"Nats per token of the training batches. {about}Arms with other data or rearranged text differ in task."
    return _curves("loss", "Training loss", caption + note, lines, 2)


def held_out_curves(results: Results) -> Figure | None:
    series, lines = series_of(results), []
    for arm in shown_arms(results):
        if arm.training and arm.training.held_out_curve:
            points = tuple((float(point.tokens), point.bits_per_byte) for point in arm.training.held_out_curve)
            lines.append(charts.Curve(arm_label(results, arm), series[arm.name], arm.is_base, points))
    return _curves("held-out-curve", "Held-out bits per byte in training", "The same files for every arm.", lines, 3)


# -- funnel ------------------------------------------------------------------------------------------------------------


def _dropped(step: FunnelStep) -> tuple[str, ...]:
    parts = [f"{units.count(d.files)} files, {units.size(d.bytes)}: {d.reason}" for d in step.dropped]
    return (f"dropped {parts[0]}", *parts[1:]) if parts else ()


def funnel(results: Results) -> Figure | None:
    if not results.funnel:
        return None
    rows, told = [], []
    for step in results.funnel:
        tokens = f" · {units.short_count(step.tokens)} tokens" if step.tokens is not None else ""
        text = f"{units.count(step.files)} files · {units.size(step.bytes)}{tokens}"
        gone = sum(d.bytes for d in step.dropped)
        tip = f"{step.name}: {text}" + (f"; dropped {units.size(gone)}" if gone else "")
        told.append(tip)
        rows.append(charts.FunnelRow(step.name, step.bytes, step.bytes + gone, text, _dropped(step), tip))
    return Figure(
        "funnel",
        "What is left after each step",
        "Bars are bytes; the outlined part is what the step dropped. Every reason with its counts is in the table.",
        f"Funnel of the data. {'. '.join(told)}.",
        lambda width: charts.funnel(rows, width),
    )
