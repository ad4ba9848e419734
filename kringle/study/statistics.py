"""Intervals: how far a measured value could lie from what other items would have given.

Every measure here is a ratio of two sums over items: bits over bytes, exact lines over lines, the sum of per-problem
pass@k over problems. Items of one document or one repository are alike, so they are drawn together: a *unit* is a
cluster of items, or one item where no clusters are given, and only the units' sums enter a resample. That makes one
matrix product serve every measure, and the same resamples serve both arms of a pair.

Covers: Wilson's interval, the bootstrap over units (percentile and BCa), the bootstrap over seeds and units, Student's
t distribution. Comparing two arms and judging the difference is in `kringle.study.verdicts`.

Decoding noise needs no resampling of its own: a problem's 20 samples are drawn once, and the spread between problems
already contains it. Resampling the samples as well would count it twice.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kringle.randomness import stream

Floats = NDArray[np.float64]

LEVEL = 0.90  # coverage of every interval unless asked otherwise; its two tails are one-sided tests at 5%
RESAMPLES = 10_000  # Monte Carlo error of a tail's 5%: sqrt(0.05 * 0.95 / 10,000) = 0.2 points
FEW = 5  # units off a bound; Cochran's rule of thumb for expected counts (1954, Biometrics 10:417)
_CHUNK = 500_000  # drawn items held at once: 4 MB of counts
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A value with its interval, both in the measure's own unit; `level` is the coverage, `method` says how."""

    value: float
    low: float
    high: float
    level: float
    method: str


def wilson(successes: float, trials: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927, JASA 22:209, equation for the binomial parameter).

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). At 0 successes it is [0, z^2/(n + z^2)] and at n
    successes its mirror image, so it never claims certainty. `trials` may be fractional (an effective sample size).
    """
    if not trials > 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    p, shrink = successes / trials, 1 + z * z / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / shrink)
    high = 1.0 if successes == trials else min(1.0, (centre + half) / shrink)
    return Interval(p, low, high, level, "Wilson score")


def unit_sums(columns: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Sums (units, K) of item columns (items, K) over clusters; without clusters every item is a unit.

    Units come in the order in which their clusters first appear.
    """
    if not np.isfinite(columns).all():
        raise ValueError("an item's value is not a finite number")
    if clusters is None:
        return columns
    if len(clusters) != len(columns):
        raise ValueError(f"{len(clusters)} cluster labels for {len(columns)} items")
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(label, len(numbers)) for label in clusters), np.int64, len(clusters))
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, index, columns)
    return sums


@lru_cache(maxsize=16)
def _draw_counts(seed: int, units: int, rows: int, chunk: int) -> Floats:
    """How often each unit is drawn in each of `rows` resamples: (rows, units), every row sums to `units`."""
    drawn = stream(seed, "bootstrap", units, chunk).integers(0, units, size=(rows, units), dtype=np.int64)
    drawn += np.arange(rows)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
    counts.setflags(write=False)  # the cache hands the same array to everyone
    return counts


def resampled_sums(units: Floats, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Column sums (resamples, K) of `units` (U, K) drawn U times with replacement, once per resample.

    Two calls with the same seed and number of units draw the same units: that is what makes a comparison paired.
    """
    if len(units) < 2:
        raise ValueError(f"{len(units)} unit(s): an interval needs at least two documents, problems or clusters")
    rows = max(1, _CHUNK // len(units))
    starts = range(0, resamples, rows)
    return np.concatenate(
        [_draw_counts(seed, len(units), rows, c)[: resamples - s] @ units for c, s in enumerate(starts)]
    )


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    level: float = LEVEL,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """Bootstrap interval of sum(numerators) / sum(denominators) over items; a mean where no denominators are given.

    Bits per byte: numerators in bits, denominators in bytes, an item per document. BCa is the bias-corrected and
    accelerated interval of Efron 1987 (JASA 82:171), its acceleration from the jackknife over units; it is the default
    because a few large documents make the distribution of a ratio lopsided. `ValueError` with fewer than two units.
    """
    columns = _columns(numerators, denominators)
    units = unit_sums(columns, clusters)
    sums = resampled_sums(units, seed, resamples)
    total = units.sum(axis=0)
    value = float(total[0] / total[1])
    ratios = sums[:, 0] / sums[:, 1]
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    if method == "bca":
        tails = _bca_tails(tails, value, ratios, (total[0] - units[:, 0]) / (total[1] - units[:, 1]))
    low, high = np.quantile(ratios, tails)
    named = "BCa bootstrap" if method == "bca" else "percentile bootstrap"
    return Interval(value, float(low), float(high), level, named)


def _bca_tails(tails: Floats, value: float, resampled: Floats, jackknife: Floats) -> Floats:
    """Which quantiles of the resamples to read instead of `tails` (Efron 1987: bias z0 and acceleration a)."""
    below = (np.count_nonzero(resampled < value) + np.count_nonzero(resampled <= value)) / (2 * len(resampled))
    if not 0 < below < 1:
        return tails  # every resample on one side: the correction is undefined, as it is where nothing varies
    bias = _NORMAL.inv_cdf(below)
    away = jackknife.mean() - jackknife
    spread = float((away**2).sum()) ** 1.5
    acceleration = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    shifted = [bias + _NORMAL.inv_cdf(float(tail)) for tail in tails]
    return np.array([_NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted])


def rate_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a mean of per-item rates in [0, 1]: exact matches (0 or 1), or one pass@k estimate per problem.

    - All items equal to 0, or all to 1: Wilson's interval with as many trials as units. With no pass at all its upper
      end is z^2/(n + z^2), the score version of the "rule of three" (3/n at 95%, one-sided): n problems without a pass
      say no more than that, however many samples each of them had.
    - Only zeros and ones: Wilson's interval; where items are clustered, the trials are divided by the design effect
      (Kish 1965: variance of the mean over clusters, relative to independent items; never taken below 1).
    - Otherwise (pass@k from several samples): BCa bootstrap over units. Where fewer than `FEW` units are off a bound,
      resampling says nothing of units that were not drawn, so the interval is no narrower on that side than Wilson's
      for the share of units off the bound, which no mean can exceed.
    """
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1 or not len(items) or not ((items >= 0) & (items <= 1)).all():
        raise ValueError("rates are a non-empty row of numbers between 0 and 1")
    units = unit_sums(_columns(items, None), clusters)
    rate = float(items.mean())
    if rate in (0.0, 1.0):
        return wilson(rate * len(units), len(units), level)
    if not np.isin(items, (0.0, 1.0)).all():
        found = ratio_interval(items, None, clusters, seed=seed, level=level, resamples=resamples)
        return _open_to_the_undrawn(found, units)
    if len(units) == len(items):
        return wilson(float(items.sum()), len(items), level)
    if len(units) < 2:
        raise ValueError("one cluster: an interval needs at least two")
    effect = max(1.0, _ratio_variance(units) / (rate * (1 - rate) / len(items)))
    trials = len(items) / effect
    found = wilson(rate * trials, trials, level)
    return Interval(rate, found.low, found.high, level, f"Wilson score, design effect {effect:.2f}")


def _open_to_the_undrawn(found: Interval, units: Floats) -> Interval:
    """The interval of a rate over units (U, 2; sums and numbers of items), no narrower than the units allow that are
    off a bound, where those are fewer than `FEW`."""
    low, high = found.low, found.high
    above_zero = int(np.count_nonzero(units[:, 0]))
    below_one = int(np.count_nonzero(units[:, 0] < units[:, 1]))
    if above_zero < FEW:
        high = max(high, wilson(above_zero, len(units), found.level).high)
    if below_one < FEW:
        low = min(low, wilson(len(units) - below_one, len(units), found.level).low)
    return replace(found, low=low, high=high)


def _ratio_variance(units: Floats) -> float:
    """Linearised variance of sum(column 0) / sum(column 1) over independent units (Cochran 1977, chapter 6)."""
    total = units.sum(axis=0)
    residual = units[:, 0] - total[0] / total[1] * units[:, 1]
    return float(len(units) / (len(units) - 1) * (residual**2).sum() / total[1] ** 2)


def seeds_and_items_interval(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap of one arm's mean over training seeds; numerators (seeds, items), denominators (items,).

    Seeds and units are drawn independently of each other, since every seed was measured on the same items (the
    pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1:386). With S seeds the seeds' share of the variance
    comes out too small by the factor (S - 1)/S, and with one seed as zero: it is for showing a bar, not for a verdict,
    which `kringle.study.verdicts.compare` reaches with degrees of freedom.
    """
    runs = np.atleast_2d(np.asarray(numerators, dtype=np.float64))  # (S, N)
    weights = np.ones(runs.shape[1]) if denominators is None else np.asarray(denominators, dtype=np.float64)
    units = unit_sums(np.column_stack([*runs, weights]), clusters)  # (U, S + 1)
    sums = resampled_sums(units, seed, resamples)
    drawn = stream(seed, "bootstrap-seeds", len(runs)).multinomial(len(runs), [1 / len(runs)] * len(runs), resamples)
    means = (sums[:, :-1] * drawn).sum(axis=1) / len(runs) / sums[:, -1]
    low, high = np.quantile(means, (0.5 - level / 2, 0.5 + level / 2))
    value = float(runs.sum() / len(runs) / weights.sum())
    return Interval(value, float(low), float(high), level, "bootstrap over seeds and items")


def mean_rate_interval(
    runs: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a rate averaged over training seeds, from per-item rates (seeds, items) in [0, 1]: that of
    `seeds_and_items_interval`, with what `rate_interval` does about items that are nearly all 0 or all 1."""
    values = np.atleast_2d(np.asarray(runs, dtype=np.float64))
    means = values.mean(axis=0)
    if means.min() == means.max() and means[0] in (0.0, 1.0):
        return rate_interval(means, clusters, seed=seed, level=level, resamples=resamples)
    found = seeds_and_items_interval(values, None, clusters, seed=seed, level=level, resamples=resamples)
    return _open_to_the_undrawn(found, unit_sums(_columns(means, None), clusters))


def _columns(numerators: ArrayLike, denominators: ArrayLike | None) -> Floats:
    """Item columns (items, 2); the denominators are ones where none are given."""
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if top.ndim != 1 or top.shape != bottom.shape:
        raise ValueError(f"numerators of shape {top.shape} over denominators of shape {bottom.shape}")
    if not (bottom > 0).all():
        raise ValueError("a denominator that is not positive")
    return np.column_stack([top, bottom])


# Gauss-Legendre nodes on [0, 1]: with the substitution below the integrand is smooth, and 64 nodes give 12 digits
_NODES, _WEIGHTS = (a / 2 for a in np.polynomial.legendre.leggauss(64))


def student_t_cdf(t: float, degrees_of_freedom: float) -> float:
    """P(T <= t) for Student's t with real `degrees_of_freedom` >= 1.

    With t = sqrt(v) tan(a) the density becomes c cos(a)^(v-1), c = Gamma((v+1)/2) / (Gamma(v/2) sqrt(pi)).
    """
    v = degrees_of_freedom
    if v > 1e6:  # the normal distribution to six digits, while lgamma's difference loses its own
        return _NORMAL.cdf(t)
    if v < 1:
        raise ValueError(f"{v} degrees of freedom")
    angle = math.atan2(abs(t), math.sqrt(v))
    scale = math.exp(math.lgamma((v + 1) / 2) - math.lgamma(v / 2)) / math.sqrt(math.pi)
    area = float((_WEIGHTS * np.cos(angle * (_NODES + 0.5)) ** (v - 1)).sum()) * angle * scale
    return 0.5 + math.copysign(area, t)


def student_t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The t with P(T <= t) = `probability`, by bisection; 1.645 at 0.95 with infinitely many degrees of freedom."""
    if not 0 < probability < 1:
        raise ValueError(f"a probability of {probability}")
    if degrees_of_freedom == math.inf:
        return _NORMAL.inv_cdf(probability)
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees_of_freedom)
    low, high = 0.0, 1.0
    while student_t_cdf(high, degrees_of_freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, degrees_of_freedom) < probability else (low, middle)
    return high
