"""The ladder: arms that differ from the base by size and budget alone, by the compute that they took."""

from __future__ import annotations

from dataclasses import replace

from kringle.study import charts, figures, units
from kringle.study.figures import Figure
from kringle.study.results import Arm, Results

# Settings that make a rung: everything else is another question.
RUNGS = frozenset({"model.layers", "model.width", "model.heads", "training.tokens", "training.learning_rate"})
_ALONG = frozenset({"training.micro_batch_tokens", "training.batch_tokens"})


def rungs(results: Results) -> list[Arm]:
    """The base and the arms that are larger, smaller, longer or shorter versions of it, by training FLOPs."""
    found = [
        arm
        for arm in figures.shown_arms(results)
        if arm.training and arm.bits_per_byte and (arm.is_base or (arm.changes and set(arm.changes) <= RUNGS | _ALONG))
    ]
    return sorted(found, key=_flops)


def _flops(arm: Arm) -> float:
    """6 N D: forward and backward of every weight for every token (Kaplan et al. 2020, section 2.1)."""
    assert arm.training is not None
    return 6.0 * arm.training.parameters * arm.training.tokens


def ladder(results: Results) -> Figure | None:
    """Bits per byte of each rung; None where there is one only."""
    found = rungs(results)
    if len(found) < 2:
        return None
    series = figures.series_of(results)
    rows, told = [], []
    for arm in found:
        t, measured = arm.training, arm.bits_per_byte
        assert t is not None
        assert measured is not None
        size = f"{units.short_count(t.parameters)} parameters, {units.short_count(t.tokens)} tokens"
        label = f"{arm.name}: {size}"
        total = measured.total
        ends = f"{units.bits(total.low)} to {units.bits(total.high)}"
        tip = f"{label}, {_flops(arm):.2g} FLOPs: {units.bits(total.value)} bits per byte ({ends})"
        told.append(tip)
        rows.append(
            charts.DotRow(label, series[arm.name], arm.is_base, figures.span(total), units.bits(total.value), tip)
        )
    short = [replace(row, label=arm.name) for row, arm in zip(rows, found, strict=True)]  # a phone has no room for more
    return Figure(
        "ladder",
        "The ladder: the same training, more of it",
        "Arms that differ from the base by size and budget alone, from the least compute (6 N D) to the most. Further "
        f"left is better. {figures.interval_words([arm.bits_per_byte.total for arm in found if arm.bits_per_byte])}.",
        f"Dot plot. {'. '.join(told)}.",
        lambda width: charts.dots(
            short if width == figures.NARROW else rows, width, lambda value: f"{value:.4g}", "model"
        ),
    )
