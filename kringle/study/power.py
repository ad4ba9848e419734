"""The smallest true difference that a study calls *better* or *worse* four times in five.

It follows the rule of `kringle.study.verdicts.judge`. A difference d is measured with the standard error
SE = sqrt(I^2 + R^2): I is of the items, R = sqrt(2 var(run) / seeds) of the seeds. The verdict does not know R but an
estimate with f degrees of freedom, R'^2 = R^2 chi2(f) / f, and holds d against the noise I Z + R' T, where Z is normal
and T of Student's t with f. With q the quantiles of that noise, and F comparisons in the family, d is called so where

    d >= q[1 - (1 - level) / 2F]             the p-value is small enough for Holm's first step
    d >= margin - q[(1 + level) / 2]         the interval is not inside the margin, which is asked first

so it must reach the larger of the two, which the estimate moves. The answer is the true difference D with
E Phi((D - larger) / SE) = power, the mean being over the estimates. Where R' is known beforehand, as a stored variance
is, that is larger + z[power] SE. One of the other sign is found as often; being called the wrong word, which happens
less than once in a thousand, is left out.

The familiar (t[1 - (1 - level) / 2F] + t[power]) SE takes an estimate of few degrees of freedom for known and adds t's
quantiles where noise is added here: what it names with two degrees of freedom is found 41 to 64 times in a hundred,
with four 59 to 78 times (simulation: 3 and 5 seeds, families of 5 and 12, R a third, as large, three times as large as
I). Estimates of I, from dozens of items or more, count as exact; `widened` is what few items add to it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from kringle.study.statistics import LEVEL, Floats, student_t_quantile

POWER = 0.8
_POINTS, _FINE = 101, 4001  # of integrals over chi-squared: of a smooth function, and of one with a step
_ABSCISSAE = np.linspace(0.0, 37.0, 7401)  # beyond, a normal's tail is below 1e-299
_LOG_TAIL = np.array([math.log(math.erfc(x / math.sqrt(2)) / 2) for x in _ABSCISSAE])


def smallest_found(
    item_error: float,
    run_error: float,
    *,
    freedom: float = math.inf,
    estimated: bool = True,
    family: int = 1,
    margin: float | None = None,
    level: float = LEVEL,
    power: float = POWER,
) -> float:
    """The smallest true difference found with probability `power`, in the unit of the errors.

    item_error, run_error: the two parts of a difference's standard error; freedom: degrees of freedom of the
    between-seed variance that the verdict uses; estimated: whether it is the study's own, so that it varies from study
    to study, or one that is known beforehand; family: number of comparisons. `ValueError` for what is none of these.
    """
    if item_error < 0 or run_error < 0 or freedom <= 0 or family < 1:
        raise ValueError(f"errors {item_error} and {run_error}, {freedom} degrees of freedom, {family} comparisons")
    error = math.hypot(item_error, run_error)
    if error == 0:
        return margin or 0.0
    shares, chances = _chi_square(freedom, _POINTS)
    some = shares if estimated else np.ones(1)
    estimates, weights = _chi_square(freedom, _FINE) if estimated else (some, np.ones(1))
    errors = np.sqrt(item_error**2 + run_error**2 * some[:, None] / shares)  # (estimates, shares), of normals

    def quantile(tail: float) -> Floats:
        return np.exp(np.interp(np.log(estimates), np.log(some), np.log(_quantile(errors, chances, tail))))

    needed = quantile((1 - level) / (2 * family))
    if margin is not None:
        needed = np.maximum(needed, margin - quantile((1 - level) / 2))
    above = NormalDist().inv_cdf(power) * error
    low, high = float(needed.min()) + above, float(needed.max()) + above
    for _ in range(80):
        middle = (low + high) / 2
        found = float(weights @ _normal((middle - needed) / error))
        low, high = (low, middle) if found >= power else (middle, high)
    return high


def widened(units: int, level: float = LEVEL) -> float:
    """What the standard error of a bootstrap over so many equal units is multiplied by before it is believed
    (`kringle.study.verdicts`, for few units). `ValueError` for fewer than two units."""
    if units < 2:
        raise ValueError(f"{units} units")
    tail = 0.5 + level / 2
    return student_t_quantile(tail, units - 1) / NormalDist().inv_cdf(tail) * math.sqrt(units / (units - 1))


@lru_cache(maxsize=64)
def _chi_square(freedom: float, points: int) -> tuple[Floats, Floats]:
    """Values and chances (points,) whose weighted sums are expectations over chi2(freedom) / freedom.

    The trapezoid rule over u = log of the value, of density exp(freedom / 2 (u - e^u)). It ends where that is e^-20 of
    its peak or less, by e^u - 1 - u >= u^2 / 2 above 0 and >= u^2 / (2 + |u|) below.
    """
    if math.isinf(freedom):
        return np.ones(1), np.ones(1)
    a = 2 * 20 / freedom
    logs = np.linspace(-(a + math.sqrt(a * a + 8 * a)) / 2, math.sqrt(2 * a), points)
    weights = np.exp(freedom / 2 * (logs - np.expm1(logs)))
    return np.exp(logs), weights / weights.sum()


def _quantile(errors: Floats, chances: Floats, tail: float) -> Floats:
    """Where a mixture of normals around 0 has so much (< 0.5) above it, for each row of standard errors (rows,
    normals)."""
    low, high = np.log(errors.min(axis=1) / 1000), np.log(errors.max(axis=1) * 37)
    for _ in range(36):  # a range of some 30 halved so often: 1e-9
        middle = (low + high) / 2
        enough = _normal(-np.exp(middle)[:, None] / errors) @ chances <= tail
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    quantiles: Floats = np.exp(high)
    return quantiles


def _normal(x: Floats) -> Floats:
    """The normal distribution function, from a table of its logarithm: 3e-6 of itself off at most. NumPy has none."""
    tail = np.exp(np.interp(np.abs(x), _ABSCISSAE, _LOG_TAIL))
    below: Floats = np.where(x < 0, tail, 1 - tail)
    return below
