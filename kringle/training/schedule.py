"""Learning rates: linear warmup, then a cosine to zero or a constant. A function of the step, without state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def warmup_steps(fraction: float, steps: int) -> int:
    """Steps of warmup for a fraction of all steps (SantaCoder: 2% of the decay horizon, 12,000 of 600,000)."""
    return round(fraction * steps)


def learning_rate(step: int, *, peak: float, schedule: Schedule, warmup: int, steps: int) -> float:
    """Rate of the update at `step`, counted from 0, of a run whose decay ends after `steps`.

    Warmup rises in equal parts from peak / warmup at step 0 to the peak at step warmup - 1; the cosine falls from the
    peak at step `warmup` towards 0 at `steps`, which no step of the run reaches: no update is wasted on a rate of 0.
    SantaCoder's script had peak 2e-4, warmup 12,000 and steps 600,000 for runs of 300,000, which so ended at 1.03e-4.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
