"""When a run has gone wrong: loss or gradient is no number, one batch's loss is absurd, or learning is being undone.

A single bad batch may be skipped on request; a run whose smoothed loss has climbed back half of the way from its best
to pure guessing is beyond that. The state is a few numbers that a checkpoint keeps, so a resumed run decides alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SMOOTHING = 0.98  # of the exponential mean: about the last 50 steps
SETTLED = 100  # steps before the smoothed loss is judged
ABSURD = 2.0  # times the loss of guessing, ln(vocabulary): no model that is learning gets there


@dataclass
class Guard:
    """`guessing` is the loss in nats of a uniform guess over the vocabulary."""

    guessing: float
    steps: int = 0
    mean: float = 0.0
    best: float = math.inf

    def batch(self, loss: float, gradient_norm: float) -> str | None:
        """What is wrong with one batch, or None."""
        for what, value in (("loss", loss), ("gradient norm", gradient_norm)):
            if not math.isfinite(value):
                return f"the {what} is {value}"
        if loss > ABSURD * self.guessing:
            return f"the loss is {loss:.3g} nats a token, more than {ABSURD:g} times that of guessing"
        return None

    def run(self, loss: float) -> str | None:
        """Take note of a batch that was trained on; what is wrong with the run, or None."""
        self.steps += 1
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * loss
        smoothed = self.mean / (1 - SMOOTHING**self.steps)
        if self.steps < SETTLED:
            return None
        self.best = min(self.best, smoothed)
        limit = self.best + max(0.5, 0.5 * (self.guessing - self.best))
        if smoothed > limit:
            return f"the loss has climbed from {self.best:.3g} to {smoothed:.3g} nats a token (means of about 50 steps)"
        return None
