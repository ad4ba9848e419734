"""Differences between arms, the variance between seeds, and the words for them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.study.power import smallest_found
from kringle.study.statistics import ratio_interval, student_t_quantile, wilson
from kringle.study.verdicts import (
    THIS_PAIR_ONLY,
    Difference,
    Runs,
    SeedVariance,
    compare,
    compare_pairs,
    holm,
    judge,
    seed_variance,
)


def simulate(
    random: np.random.Generator, arms: int, seeds: int, items: int, *, of_arm: float, of_run: float, rest: float
) -> Runs:
    """Runs of equal quality: items, seeds (common to all arms), items by arm, runs, and what is left, all normal."""
    item, seed = random.normal(size=items), random.normal(size=seeds)
    return {
        f"arm {a}": {
            s: item + seed[s] + by_arm + random.normal(0, of_run) + random.normal(0, rest, items) for s in range(seeds)
        }
        for a, by_arm in enumerate(random.normal(0, of_arm, (arms, items)))
    }


def difference(value: float, half: float, *, higher: bool = True, p: float = 0.001, seeds: int = 3) -> Difference:
    variance = SeedVariance(1e-4, 1e-5, 4) if seeds > 1 else None
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        level=0.9,
        probability_better=0.5,
        p_value=p,
        standard_error=half / 1.645,
        higher_is_better=higher,
        items=500,
        units=100,
        seeds=tuple(range(seeds)),
        seed_variance=variance,
        item_error=half / 2,
    )


def test_one_pair_of_runs_is_the_paired_bootstrap_of_the_difference() -> None:
    random = np.random.default_rng(0)
    size = random.gamma(2.0, 500.0, 120) + 1
    base = size * random.normal(2.0, 0.5, 120)
    arm = base - 0.1 * size + random.normal(0, 30, 120)
    names = [f"repository {i // 3}" for i in range(120)]
    found = compare(
        {"base": {0: base}, "arm": {0: arm}}, "base", higher_is_better=False, weights=size, clusters=names, seed=5
    )
    assert list(found) == ["arm"]
    plain = ratio_interval(arm - base, size, names, seed=5, method="percentile")
    d = found["arm"]
    sizes = size.reshape(40, 3).sum(axis=1)
    effective = sizes.sum() ** 2 / (sizes**2).sum()  # Kish's number of equal units
    wider = student_t_quantile(0.95, effective - 1) / 1.6448536 * math.sqrt(effective / (effective - 1))
    assert 1 < wider < 1.06
    assert d.value == pytest.approx(plain.value)
    assert d.low - d.value == pytest.approx(wider * (plain.low - plain.value), rel=1e-6)
    assert d.high - d.value == pytest.approx(wider * (plain.high - plain.value), rel=1e-6)
    assert (d.items, d.units, d.seeds) == (120, 40, (0,))
    assert d.remark == THIS_PAIR_ONLY == "this pair of runs only"
    assert d.probability_better > 0.999  # fewer bits are better
    assert d.p_value == pytest.approx(2 / 10_001)


def test_pairing_takes_out_what_the_arms_share() -> None:
    """Items differ by 1, arms by 0.01 an item: unpaired, the difference would drown."""
    random = np.random.default_rng(1)
    base = random.normal(size=200)
    found = compare(
        {"base": {0: base}, "arm": {0: base + 0.02 + random.normal(0, 0.01, 200)}}, "base", higher_is_better=True
    )["arm"]
    assert found.low > 0.015
    assert found.high < 0.025


def test_between_seed_variance_of_two_arms_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(2)
    runs = {arm: {s: random.normal(size=30) for s in (3, 5, 9)} for arm in ("a", "b")}
    found = seed_variance(runs)
    differences = [runs["a"][s].mean() - runs["b"][s].mean() for s in (3, 5, 9)]
    assert found is not None
    assert found.degrees_of_freedom == 2
    assert 2 * found.run == pytest.approx(np.var(differences, ddof=1))  # a difference is made of two runs


def test_between_seed_variance_is_unbiased_and_splits_into_its_parts() -> None:
    """Truth: run 0.04 + rest 1/50; the items' part is rest 1/50. Mean of 400 estimates within four standard errors."""
    random = np.random.default_rng(3)
    found = [seed_variance(simulate(random, 4, 3, 50, of_arm=0.7, of_run=0.2, rest=1.0)) for _ in range(400)]
    run = np.array([f.run for f in found if f is not None])
    items = np.array([f.items for f in found if f is not None])
    assert {f.degrees_of_freedom for f in found if f is not None} == {6}
    assert len(run) == 400
    assert abs(run.mean() - 0.06) < 4 * run.std() / 20
    assert abs(items.mean() - 0.02) < 4 * items.std() / 20
    assert items.std() < run.std() / 4  # hundreds of items against a handful of runs


def test_arms_may_lack_seeds() -> None:
    random = np.random.default_rng(4)
    runs = simulate(random, 3, 3, 40, of_arm=0.1, of_run=0.1, rest=0.1)
    ragged = {"arm 0": runs["arm 0"], "arm 1": {0: runs["arm 1"][0]}, "arm 2": runs["arm 2"]}
    found = seed_variance(ragged)
    assert found is not None
    assert found.degrees_of_freedom == 2  # seven runs, three arms, two further seeds
    assert compare(ragged, "arm 0", higher_is_better=True)["arm 1"].seeds == (0,)
    assert seed_variance({"a": {0: runs["arm 0"][0]}, "b": {0: runs["arm 1"][0]}}) is None
    assert seed_variance({"a": {0: runs["arm 0"][0], 1: runs["arm 0"][1]}}) is None  # seed and run are one there
    with pytest.raises(ValueError, match="no seed in common"):
        compare({"a": {0: np.ones(4)}, "b": {1: np.ones(4)}}, "a", higher_is_better=True)
    with pytest.raises(ValueError, match="same items"):
        compare({"a": {0: np.ones(4)}, "b": {0: np.ones(5)}}, "a", higher_is_better=True)
    with pytest.raises(ValueError, match="at least two"):
        compare({"a": {0: np.ones(4)}, "b": {0: np.ones(4)}}, "a", higher_is_better=True, clusters=["x"] * 4)


@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (4, 3), (4, 5)])
@pytest.mark.parametrize(("of_run", "rest"), [(0.2, 0.5), (0.0, 1.0)])
def test_intervals_over_seeds_cover_what_they_promise(arms: int, seeds: int, of_run: float, rest: float) -> None:
    """400 studies without any true difference. Two arms and three seeds leave two degrees of freedom and may cover
    more than 90%, never less; the bounds are four standard errors wide."""
    random = np.random.default_rng(arms * 10 + seeds)
    covered = sum(
        d.low <= 0 <= d.high
        for _ in range(400)
        for d in compare(
            simulate(random, arms, seeds, 60, of_arm=0.3, of_run=of_run, rest=rest),
            "arm 0",
            higher_is_better=True,
            resamples=1000,
        ).values()
        if d.remark != THIS_PAIR_ONLY
    ) / (400 * (arms - 1))
    assert 0.9 - 4 * 0.015 < covered < (0.98 if arms == 2 else 0.96)


def test_one_seed_claims_too_much_and_a_stored_variance_mends_it() -> None:
    random = np.random.default_rng(6)
    alone = mended = 0
    stored = SeedVariance(run=0.04 + 0.25 / 60, items=0.25 / 60, degrees_of_freedom=12)
    for _ in range(300):
        runs = simulate(random, 2, 1, 60, of_arm=0.3, of_run=0.2, rest=0.5)
        one = compare(runs, "arm 0", higher_is_better=True, resamples=1000)["arm 1"]
        known = compare(runs, "arm 0", higher_is_better=True, variance=stored, resamples=1000)["arm 1"]
        assert one.remark == THIS_PAIR_ONLY
        assert known.remark == "1 seed; between-seed variance of an earlier study with 12 degrees of freedom"
        alone += one.low <= 0 <= one.high
        mended += known.low <= 0 <= known.high
    assert alone / 300 < 0.7
    assert abs(mended / 300 - 0.9) < 4 * math.sqrt(0.09 / 300)


def test_where_no_item_differs_the_interval_stays_open() -> None:
    answers = np.zeros(40)
    both = {"base": {0: answers, 1: answers}, "arm": {0: answers, 1: answers}}
    found = compare(both, "base", higher_is_better=True, largest=1.0)["arm"]
    assert (found.low, found.high) == (-wilson(0, 40).high, wilson(0, 40).high)
    assert (found.probability_better, found.p_value) == (0.5, 1.0)
    assert judge([found], [0.02])[0].verdict == "undecided"  # 40 problems that nobody solves prove nothing
    many = {arm: {s: np.zeros(500) for s in (0, 1)} for arm in ("base", "arm")}
    assert judge([*compare(many, "base", higher_is_better=True, largest=1.0).values()], [0.02])[0].verdict == (
        "no difference"
    )


@pytest.mark.parametrize("values", [[0.5] * 4, [1.0] * 3])
def test_a_few_items_that_moved_decide_nothing(values: list[float]) -> None:
    """Four problems of 60 solved half of the time by one arm alone: a sign test gives 0.125."""
    arm = np.array([*values, *np.zeros(60 - len(values))])
    runs = {"base": dict.fromkeys(range(3), np.zeros(60)), "arm": dict.fromkeys(range(3), arm)}
    found = compare(runs, "base", higher_is_better=True, largest=1.0)["arm"]
    assert found.low < 0 < found.high
    assert found.p_value == pytest.approx(0.1)
    assert found.probability_better == pytest.approx(0.95)
    assert judge([found], [0.001])[0].verdict == "undecided"
    assert found.detectable(1) is None  # such a study has not seen how much it would scatter


def test_what_a_study_could_have_found_is_told_where_it_can_find_anything() -> None:
    assert difference(0.0, 0.01, seeds=1).detectable(5) is None
    told = difference(0.0, 0.01).detectable(5)
    assert told is not None
    assert told > 0.01


def test_an_arm_that_no_seed_changes_is_judged_by_the_others_spread() -> None:
    """A checkpoint as it is, beside two trained arms. What a seed does to all trained arms cancels between them, and
    does not beside the checkpoint; the checkpoint's runs, all alike, are no sign that seeds do little."""
    random = np.random.default_rng(7)
    item, seeds = random.normal(size=60), random.normal(0, 1.0, 5)
    runs = {
        arm: {s: item + seeds[s] + random.normal(0, 0.05) + random.normal(0, 0.1, 60) for s in range(5)}
        for arm in ("a", "b")
    }
    before = dict.fromkeys(range(5), item)
    pairs = [("a", "before"), ("a", "b")]
    found = compare_pairs({**runs, "before": before}, pairs, higher_is_better=True, untrained=["before"])
    alone = compare_pairs(runs, [("a", "b")], higher_is_better=True)
    assert found["a", "b"] == alone["a", "b"]
    variance = found["a", "before"].seed_variance
    assert variance is not None
    assert variance.degrees_of_freedom == 4
    assert 2 * variance.run == pytest.approx(np.var([runs["a"][s].mean() for s in range(5)], ddof=1))
    assert found["a", "before"].high - found["a", "before"].low > 3 * (alone["a", "b"].high - alone["a", "b"].low)
    once = {"a": {0: runs["a"][0]}, "before": {0: item}}
    stored = SeedVariance(0.01, 0.001, 6)  # around arm and seed: it does not hold what a seed does to all arms
    known = compare_pairs(once, [("a", "before")], higher_is_better=True, untrained=["before"], stored=stored)
    assert known["a", "before"].remark == THIS_PAIR_ONLY


def test_the_same_difference_in_either_direction() -> None:
    random = np.random.default_rng(8)
    runs = simulate(random, 3, 3, 80, of_arm=0.1, of_run=0.01, rest=0.1)
    shifted = {**runs, "arm 1": {s: x + 0.5 for s, x in runs["arm 1"].items()}}
    up = compare(shifted, "arm 0", higher_is_better=True)
    down = compare(shifted, "arm 0", higher_is_better=False)
    assert up["arm 1"].value == down["arm 1"].value
    assert up["arm 1"].probability_better == pytest.approx(1 - down["arm 1"].probability_better)
    margins = [0.3, 0.3]
    assert [j.verdict for j in judge(list(up.values()), margins)] == ["better", "no difference"]
    assert [j.verdict for j in judge(list(down.values()), margins)] == ["worse", "no difference"]
    assert judge([up["arm 1"]], [None])[0].verdict == "better"


def test_verdicts_follow_the_rules() -> None:
    margin = 0.02
    cases = [
        (difference(0.05, 0.01), "better"),
        (difference(0.05, 0.01, higher=False), "worse"),
        (difference(-0.05, 0.01, higher=False), "better"),
        (difference(0.005, 0.004), "no difference"),  # certain, and too small to matter
        (difference(0.005, 0.03, p=0.6), "undecided"),
        (difference(0.03, 0.02, p=0.2), "undecided"),
        (difference(0.05, 0.01, seeds=1), "undecided"),  # one seed, however sure
        (difference(0.0, 0.001, p=1.0, seeds=1), "undecided"),
    ]
    for found, verdict in cases:
        assert judge([found], [margin])[0].verdict == verdict
    edge = replace(difference(0.0, 0.01, p=1.0), low=-0.02)
    assert judge([edge], [margin])[0].verdict == "undecided"  # on the margin is not inside it
    with pytest.raises(ValueError, match="zip"):
        judge([edge], [])


def test_a_verdict_pays_for_its_family() -> None:
    sure, lucky = difference(0.05, 0.01, p=0.001), difference(0.04, 0.03, p=0.04)
    assert judge([lucky], [0.01])[0].verdict == "better"
    family = judge([sure, lucky, *[difference(0.0, 0.05, p=0.5)] * 3], [0.01] * 5)
    assert [j.verdict for j in family[:2]] == ["better", "undecided"]
    assert family[1].p_value == pytest.approx(4 * 0.04)


def test_holm_agrees_with_a_worked_example() -> None:
    # 0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_holm_rejects_what_its_step_down_definition_rejects(p_values: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] * (len(p_values) - rank) > alpha:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_a_difference_of_the_detectable_size_is_found_as_often_as_promised() -> None:
    random = np.random.default_rng(9)
    size = smallest_found(math.sqrt((2 * 0.3**2 + 2 * 0.5**2 / 3) / 60), math.sqrt(2 * 0.05**2 / 3), freedom=6)
    verdicts = []
    for _ in range(300):
        runs = dict(simulate(random, 4, 3, 60, of_arm=0.3, of_run=0.05, rest=0.5))
        runs["arm 1"] = {s: x + size for s, x in runs["arm 1"].items()}
        found = compare(runs, "arm 0", higher_is_better=True, resamples=1000)["arm 1"]
        verdicts.append(judge([found], [None])[0].verdict)
    share = verdicts.count("better") / 300
    assert abs(share - 0.8) < 0.08  # three standard errors and the approximation's own
    assert "worse" not in verdicts
