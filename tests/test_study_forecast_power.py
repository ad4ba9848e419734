"""The smallest detectable difference: what is told is found four times in five by the rule that judges."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from kringle.randomness import stream
from kringle.study.detectable import CHANCES, sampling_variance
from kringle.study.power import smallest_found, widened
from kringle.study.statistics import student_t_quantile
from kringle.study.verdicts import Difference, SeedVariance, judge

STUDIES, RESAMPLES = 3000, 20_000


def difference(value: float, low: float, high: float, p_value: float) -> Difference:
    known = SeedVariance(1.0, 0.0, 1)
    return Difference(value, low, high, 0.9, 0.5, p_value, 1.0, True, 60, 60, (0, 1), known, 1.0)


def found(
    true: float, items: float, runs: float, freedom: float, estimated: bool, family: int, margin: float | None
) -> float:
    """How often `judge` calls a true difference better, in studies drawn by the layout of `kringle.study.verdicts`; the
    rest of the family is not a difference at all."""
    draw = stream(0, "power of verdicts", items, runs, freedom, family, str(margin))
    z = draw.standard_normal(RESAMPLES)
    t = draw.standard_t(freedom, RESAMPLES) if math.isfinite(freedom) else draw.standard_normal(RESAMPLES)
    null = difference(0.0, -9e9, 9e9, 1.0)
    better = 0
    for _ in range(STUDIES):
        value = true + draw.normal(0, math.hypot(items, runs))
        share = draw.chisquare(freedom) / freedom if estimated else 1.0
        noise = items * z + runs * math.sqrt(share) * t
        low, high = value + np.quantile(noise, 0.05), value + np.quantile(noise, 0.95)
        tail = min(np.count_nonzero(value + noise <= 0), np.count_nonzero(value + noise >= 0))
        one = difference(value, low, high, min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)))
        judged = judge([one, *[null] * (family - 1)], [margin, *[None] * (family - 1)])
        better += judged[0].verdict == "better"
    return better / STUDIES


@pytest.mark.parametrize(
    ("items", "runs", "freedom", "estimated", "family", "margin"),
    [
        (1.0, 0.0, math.inf, False, 1, None),
        (1.0, 0.0, math.inf, False, 10, 6.0),  # the margin decides
        (1.0, 1.0, 2, True, 5, None),  # two arms, three seeds
        (1.0, 1.0, 2, True, 5, 12.0),
        (0.3, 1.0, 4, True, 12, None),
        (1.0, 0.5, 30, True, 40, 4.0),  # within one standard error of what noise alone asks for
        (1.0, 1.0, 3, False, 5, None),  # one seed beside a stored variance
        (1.0, 1.0, 3, False, 5, 12.0),
    ],
)
def test_what_is_told_is_found_four_times_in_five(
    items: float, runs: float, freedom: float, estimated: bool, family: int, margin: float | None
) -> None:
    true = smallest_found(items, runs, freedom=freedom, estimated=estimated, family=family, margin=margin)
    share = found(true, items, runs, freedom, estimated, family, margin)
    assert 0.78 <= share <= 0.83  # one standard error of the simulation is 0.7 points


def test_without_estimates_it_is_a_closed_form() -> None:
    z = NormalDist().inv_cdf
    for family, margin in ((1, 0.0), (7, 1.0), (7, 20.0)):
        error = math.hypot(0.3, 0.4)
        needed = max(z(1 - 0.05 / family) * error, margin - z(0.95) * error)
        assert smallest_found(0.3, 0.4, family=family, margin=margin) == pytest.approx(
            needed + z(0.8) * error, rel=1e-5
        )
    assert smallest_found(0.0, 0.0) == 0.0
    assert smallest_found(0.0, 0.0, margin=0.01) == 0.01
    known = smallest_found(0.0, 1.0, freedom=3, estimated=False, family=4)
    assert known == pytest.approx(student_t_quantile(1 - 0.05 / 4, 3) + z(0.8), rel=1e-4)


def test_a_margin_only_raises_it_and_noise_as_well() -> None:
    values = [smallest_found(1.0, 0.5, freedom=8, family=20, margin=m) for m in (None, 0.0, 2.0, 5.0, 8.0)]
    assert values == sorted(values)
    assert values[0] == values[1] == pytest.approx(values[2])
    assert values[-1] < 8.0  # a difference at the margin is found more often than that
    alone = [smallest_found(1.0, runs, freedom=f, family=20) for runs, f in ((0.0, 8), (0.5, 8), (0.5, 4), (1.0, 4))]
    assert alone == sorted(alone)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"freedom": 0}, {"family": 0}):
        with pytest.raises(ValueError, match="comparisons"):
            smallest_found(1.0, 1.0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="errors"):
        smallest_found(-1.0, 1.0)
    with pytest.raises(ValueError, match="1 units"):
        widened(1)
    assert widened(10**6) == pytest.approx(1, abs=1e-5)
    assert widened(10) > widened(40) > 1


@pytest.mark.parametrize(("samples", "k"), [(1, 1), (20, 1), (10, 10), (20, 10), (200, 10)])
def test_the_noise_of_samples_is_that_of_drawn_ones(samples: int, k: int) -> None:
    draw = np.random.default_rng(samples + k)
    p = draw.beta(*CHANCES, 200_000)
    right = draw.binomial(samples, p)
    missed = np.array([math.comb(samples - c, k) / math.comb(samples, k) for c in range(samples + 1)])
    off = (1 - missed[right]) - (1 - (1 - p) ** k)
    assert sampling_variance(samples, k) == pytest.approx(float(np.mean(off**2)), rel=0.03)
    if k == 1:
        assert 2 * sampling_variance(samples, 1) == pytest.approx(0.118 / samples, rel=1e-3)
