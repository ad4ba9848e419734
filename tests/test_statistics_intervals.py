"""Intervals against closed forms, exhaustive enumeration and published values."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.study.statistics import (
    mean_rate_interval,
    rate_interval,
    ratio_interval,
    resampled_sums,
    seeds_and_items_interval,
    student_t_cdf,
    student_t_quantile,
    unit_sums,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score, no continuity correction), 95%
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_values(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials, 0.95)
    assert found.value == successes / trials
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0.5, 0.999))
def test_wilson_at_the_ends_has_its_closed_form(trials: int, level: float) -> None:
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    none, all_ = wilson(0, trials, level), wilson(trials, trials, level)
    assert (none.low, all_.high) == (0.0, 1.0)
    assert none.high == pytest.approx(z2 / (trials + z2))
    assert all_.low == pytest.approx(1 - none.high)


@given(st.integers(1, 200), st.data())
def test_wilson_solves_the_score_equation(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    found, z = wilson(successes, trials), NormalDist().inv_cdf(0.95)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in {found.low, found.high} - {0.0, 1.0}:
        assert abs(found.value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / trials))


def test_impossible_rates_are_refused() -> None:
    for successes, trials in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, trials)
    for bad in ([], [0.5, 1.5], [[0.5]]):
        with pytest.raises(ValueError, match="rates"):
            rate_interval(bad)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [  # any printed table of Student's t
        (0.95, 1, 6.3138),
        (0.95, 2, 2.9200),
        (0.95, 6, 1.9432),
        (0.975, 4, 2.7764),
        (0.975, 30, 2.0423),
        (0.995, 12, 3.0545),
    ],
)
def test_student_t_agrees_with_the_tables(probability: float, freedom: float, quantile: float) -> None:
    assert student_t_quantile(probability, freedom) == pytest.approx(quantile, abs=5e-5)
    assert student_t_quantile(1 - probability, freedom) == pytest.approx(-quantile, abs=5e-5)


def test_student_t_with_real_degrees_of_freedom_is_the_integral_of_its_density() -> None:
    for freedom, t in ((1.0, -3.0), (2.5, 1.2), (7.3, 0.4), (400.5, 2.0)):
        x = np.linspace(0, abs(t), 100_001)
        log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
        area = np.trapezoid(math.exp(log_scale) * (1 + x * x / freedom) ** (-(freedom + 1) / 2), x)
        assert student_t_cdf(t, freedom) == pytest.approx(0.5 + math.copysign(area, t), abs=1e-9)
    assert student_t_cdf(1.645, 2e6) == pytest.approx(student_t_cdf(1.645, 9e5), abs=1e-6)
    assert student_t_cdf(1.645, math.inf) == NormalDist().cdf(1.645)
    with pytest.raises(ValueError, match="degrees"):
        student_t_cdf(1.0, 0.5)


def test_resamples_follow_the_exact_distribution() -> None:
    """Four units: all 256 equally likely draws are enumerated, and the shares of each sum compared."""
    units = np.array([[1.0], [2.0], [4.0], [8.0]])
    exact = np.array([sum(draw) for draw in itertools.product(units[:, 0], repeat=4)])
    found = resampled_sums(units, seed=1, resamples=40_000)[:, 0]
    values, counts = np.unique(exact, return_counts=True)
    assert set(np.unique(found)) <= set(values)
    for value, count in zip(values, counts, strict=True):
        share = count / 256
        assert abs(np.mean(found == value) - share) < 5 * math.sqrt(share / 40_000)


def test_resamples_are_a_function_of_the_seed_alone() -> None:
    units = np.arange(700.0)[:, None]  # several chunks
    first = resampled_sums(units, seed=3, resamples=2000)
    resampled_sums(np.ones((9, 1)), seed=3)
    assert np.array_equal(first, resampled_sums(units, seed=3, resamples=2000))
    assert np.array_equal(first[:1500], resampled_sums(units, seed=3, resamples=1500))
    assert not np.array_equal(first, resampled_sums(units, seed=4, resamples=2000))
    with pytest.raises(ValueError, match="at least two"):
        resampled_sums(units[:1], seed=3)


def test_the_bootstrap_of_a_mean_has_its_known_variance() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=80)
    found = resampled_sums(values[:, None], seed=0)[:, 0] / 80
    assert found.mean() == pytest.approx(values.mean(), abs=4 * values.std() / math.sqrt(80 * 10_000))
    assert found.var() == pytest.approx(values.var() / 80, rel=0.06)


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 5)), min_size=1, max_size=30))
def test_unit_sums_add_up_each_cluster(items: list[tuple[float, int]]) -> None:
    values, labels = np.array([[v] for v, _ in items]), [label for _, label in items]
    expected = [sum(v for v, other in items if other == label) for label in dict.fromkeys(labels)]
    assert unit_sums(values, labels)[:, 0] == pytest.approx(expected)
    assert unit_sums(values, None) is values


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ratio_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="cluster labels"):
        ratio_interval([1.0, 2.0], None, ["a"])
    with pytest.raises(ValueError, match="not positive"):
        ratio_interval([1.0, 2.0], [1.0, 0.0])


def test_percentile_interval_is_that_of_all_possible_resamples() -> None:
    bits, size = np.array([3.0, 10.0, 4.0, 30.0, 7.0]), np.array([1.0, 2.0, 2.0, 9.0, 1.0])
    draws = np.array(list(itertools.product(range(5), repeat=5)))
    exact = bits[draws].sum(axis=1) / size[draws].sum(axis=1)
    found = ratio_interval(bits, size, method="percentile", resamples=50_000)
    assert found.value == bits.sum() / size.sum()
    assert (found.low, found.high) == pytest.approx(np.quantile(exact, (0.05, 0.95)), rel=0.01)


def test_bca_agrees_with_its_definition_worked_out_slowly() -> None:
    bits, size = np.array([3.0, 10.0, 4.0, 30.0, 7.0, 2.0, 50.0]), np.array([1.0, 2.0, 2.0, 9.0, 1.0, 1.0, 11.0])
    found = ratio_interval(bits, size, seed=2, level=0.8)
    sums = resampled_sums(np.column_stack([bits, size]), 2)
    ratios, value, normal = sums[:, 0] / sums[:, 1], bits.sum() / size.sum(), NormalDist()
    left_out = [np.delete(bits, i).sum() / np.delete(size, i).sum() for i in range(7)]
    away = [sum(left_out) / 7 - x for x in left_out]
    a = sum(d**3 for d in away) / (6 * sum(d**2 for d in away) ** 1.5)
    z0 = normal.inv_cdf(sum((r < value) + 0.5 * (r == value) for r in ratios) / len(ratios))
    ends = []
    for tail in (0.1, 0.9):
        z = z0 + normal.inv_cdf(tail)
        ends.append(np.quantile(ratios, normal.cdf(z0 + z / (1 - a * z))))
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-9)
    assert abs(a) > 0.01  # the correction is at work in this example
    assert (found.low, found.high) != (
        (plain := ratio_interval(bits, size, seed=2, level=0.8, method="percentile")).low,
        plain.high,
    )


def test_items_of_one_cluster_are_one_unit() -> None:
    """Every item given five times under one label says no more than the item once; without labels it pretends to."""
    values = np.random.default_rng(1).random(40)
    once = ratio_interval(values, method="percentile")
    five = ratio_interval(np.repeat(values, 5), None, np.repeat(np.arange(40), 5).tolist(), method="percentile")
    blind = ratio_interval(np.repeat(values, 5), method="percentile")
    assert (five.low, five.high) == pytest.approx((once.low, once.high))
    assert (blind.high - blind.low) < 0.6 * (once.high - once.low)


def test_rate_interval_takes_the_right_method() -> None:
    assert rate_interval([0.0] * 40).high == wilson(0, 40).high
    assert rate_interval([1.0] * 40).low == wilson(40, 40).low
    assert rate_interval([0.0] * 40, [i // 4 for i in range(40)]).high == wilson(0, 10).high
    mixed = rate_interval([1.0] * 12 + [0.0] * 28)
    assert (mixed.low, mixed.high) == (wilson(12, 40).low, wilson(12, 40).high)
    assert "BCa" in rate_interval([0.05, 0.0, 0.4, 0.0, 1.0]).method


def test_rate_interval_widens_by_the_design_effect() -> None:
    """Ten clusters of four equal answers each are ten answers: the design effect is 4 (10/9 for the small sample)."""
    answers = np.repeat([1.0] * 4 + [0.0] * 6, 4)
    found = rate_interval(answers, np.repeat(np.arange(10), 4).tolist())
    trials = 40 / (4 * 10 / 9)
    assert found.method == "Wilson score, design effect 4.44"
    assert (found.low, found.high) == pytest.approx(
        (wilson(0.4 * trials, trials).low, wilson(0.4 * trials, trials).high)
    )


def test_intervals_cover_what_they_promise() -> None:
    """2,000 clustered samples of known truth each: coverage of 90% within four standard errors."""
    random = np.random.default_rng(7)
    bits_cover = rate_cover = 0
    for _ in range(2000):
        size = random.gamma(2.0, 500.0, size=60) + 50
        bits = size * random.normal(2.0, 0.3, size=60)
        found = ratio_interval(bits, size, resamples=2000)
        bits_cover += found.low <= 2.0 <= found.high
        chances = random.beta(2.0, 3.0, size=50)  # mean 0.4, drawn per document
        hits = (random.random((50, 4)) < chances[:, None]).astype(float)
        rate = rate_interval(hits.ravel(), np.repeat(np.arange(50), 4).tolist())
        rate_cover += rate.low <= 0.4 <= rate.high
    error = 4 * math.sqrt(0.9 * 0.1 / 2000)
    assert abs(bits_cover / 2000 - 0.9) < error
    assert abs(rate_cover / 2000 - 0.9) < error


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_seeds_and_items_are_drawn_independently(seed: int) -> None:
    """Its variance is that of seeds plus that of items plus the rest (Owen 2007), here worked out from the means."""
    random = np.random.default_rng(seed)
    runs = random.normal(size=(6, 1)) + random.normal(size=(1, 50))  # no rest: the two parts add up exactly
    found = seeds_and_items_interval(runs, seed=seed, level=0.9)
    variance = runs.mean(axis=1).var() / 6 + runs.mean(axis=0).var() / 50
    assert found.value == pytest.approx(runs.mean())
    assert (found.high - found.low) / (2 * 1.645) == pytest.approx(math.sqrt(variance), rel=0.12)


def test_one_seed_leaves_the_items_alone() -> None:
    bits, size = np.array([3.0, 10.0, 4.0, 30.0]), np.array([1.0, 2.0, 2.0, 9.0])
    one = seeds_and_items_interval(bits, size)
    plain = ratio_interval(bits, size, method="percentile")
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_a_mean_of_seeds_knows_no_more_of_other_items_than_one_run() -> None:
    one = np.zeros(164)
    one[0] = 0.05
    alone = rate_interval(one)
    three = mean_rate_interval([one] * 3)
    assert three.value == pytest.approx(alone.value)
    assert three.high == pytest.approx(alone.high)
    assert mean_rate_interval(np.zeros((3, 40))).high == rate_interval(np.zeros(40)).high
    assert mean_rate_interval(1 - np.array([one] * 3)).low == pytest.approx(1 - alone.high)
