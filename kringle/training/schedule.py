"""Learning rates: linear warmup, then a cosine to zero, a constant, or a constant with a linear end. Functions of the
step, without state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant", "wsd"]


def warmup_steps(fraction: float, steps: int) -> int:
    """Steps of warmup for a fraction of the horizon (SantaCoder: 2% of 600,000 are 12,000)."""
    return round(fraction * steps)


def learning_rate(step: int, *, peak: float, schedule: Schedule, warmup: int, steps: int, decay: float = 0.2) -> float:
    """Rate of the update at `step`, counted from 0, of a schedule that ends after `steps`, its horizon.

    Warmup rises in equal parts from peak / warmup at step 0 to the peak at step warmup - 1; the cosine falls from the
    peak at step `warmup` towards 0 at `steps`, which no step of the run reaches: no update is wasted on a rate of 0.
    "wsd" (warmup, stable, decay) stays at the peak and falls linearly over the last share `decay` of the horizon.
    A run may end before its horizon: SantaCoder's script had peak 2e-4, warmup 12,000 and a horizon of 600,000 also for
    runs of 300,000 steps, which so ended at 1.03e-4.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "wsd":
        falling = max(1, round(decay * steps))
        return peak * min(1.0, (steps - step) / falling)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
