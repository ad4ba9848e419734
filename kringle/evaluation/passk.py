"""pass@k: the chance that at least one of k completions is right, without bias (Chen et al., 2021, section 2.1).

From n completions of a problem, c of them right: 1 - C(n-c, k) / C(n, k). With fewer than k completions there is no
such estimate, and none is given: an estimator that returns 1 there has produced a perfect pass@100 from 20 samples.
"""

from __future__ import annotations

import math

from kringle.errors import UserError


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The estimate for one problem. Raises UserError if there are fewer than k samples."""
    if not 0 <= passed <= samples:
        raise ValueError(f"{passed} of {samples} cannot have passed")
    if k < 1:
        raise UserError(f"pass@{k} is not defined", hint="k must be at least 1")
    if samples < k:
        raise UserError(f"pass@{k} needs at least {k} samples of each problem, not {samples}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)
