"""Do the intervals and verdicts keep their promises? Simulated studies whose truth is known, judged by the real code.

A simulated study has four arms: the base, one that equals it, one that lies exactly at the margin, one three margins
away. Items, arms, seeds and runs move its measure as in the layout of `kringle.study.verdicts`:

    measure of an item = arm + seed (common to all arms) + run (arm and seed) + item + item under this arm + rest

What is counted: how often a 90% interval holds the true difference; how often a study calls anything *better* or
*worse* that is not (per study, since Holm's correction speaks of families); how often the arm at the margin is called
*no difference*; how often the arm three margins away is found. Errors of these rates count studies, not comparisons,
because the comparisons of one study share their base.

Covers bits per byte (files of very different sizes), exact matches in clusters, pass@1 from several samples per
problem. Does not cover: arms whose seeds vary unequally, corpora that differ from the ones measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from kringle.randomness import stream
from kringle.study.statistics import LEVEL, RESAMPLES, Floats
from kringle.study.verdicts import SeedVariance, compare, holm, judge, seed_variance

ARMS = ("base", "equal", "at the margin", "far")
_STEPS = {"base": 0.0, "equal": 0.0, "at the margin": 1.0, "far": 3.0}  # true differences in margins
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Scenario:
    """A kind of study. Deviations are standard deviations of one item's value (continuous) or of its probit (rates).

    items: files, lines or problems; per_cluster: lines of one file; samples: completions of one problem; of_item: what
    makes an item hard for every arm; of_arm: what makes it hard for one arm; of_seed: moves all arms of a seed alike;
    of_run: moves one run; margin: in the same scale, the step between the simulated arms.
    """

    name: str
    kind: Literal["continuous", "exact", "samples"]
    items: int
    of_item: float
    of_arm: float
    of_seed: float
    of_run: float
    rest: float
    margin: float
    base: float = 0.0
    per_cluster: int = 1
    samples: int = 1


# The noise of items in a difference is sqrt(2 (of_arm^2 + rest^2 / seeds) / items) for equal weights. The three shares
# of the seeds lie around what two trainings of a recipe differ by: a quarter of the items' variance, as much, 4 times.
SCENARIOS = (
    Scenario("bits per byte, seeds matter little", "continuous", 80, 1.0, 0.4, 0.1, 0.03, 0.2, 0.12),
    Scenario("bits per byte, seeds matter as much as files", "continuous", 80, 1.0, 0.4, 0.1, 0.08, 0.2, 0.2),
    Scenario("bits per byte, seeds matter most", "continuous", 80, 1.0, 0.4, 0.1, 0.2, 0.2, 0.4),
    Scenario("infilling, lines in files", "exact", 400, 0.8, 0.3, 0.05, 0.06, 1.0, 0.22, base=-1.0, per_cluster=4),
    Scenario("pass@1, 20 samples of 60 problems", "samples", 60, 0.9, 0.25, 0.05, 0.06, 0.3, 0.25, -0.9, 1, 20),
)


@dataclass(frozen=True)
class SimulatedStudy:
    """runs[arm][seed] is (items,); `truth` the true difference of each arm to the base, `margin` that of "at the
    margin"; the larger value is better."""

    runs: Mapping[str, Mapping[int, Floats]]
    weights: Floats | None
    clusters: list[int] | None
    truth: Mapping[str, float]
    margin: float


def simulate(scenario: Scenario, seeds: int, number: int) -> SimulatedStudy:
    """Study `number` of a scenario: a function of its arguments alone."""
    draw = stream(0, "calibration", scenario.name, seeds, number)
    n = scenario.items
    weights = None
    if scenario.kind == "continuous":
        weights = np.exp(draw.normal(0, 0.8, n))  # sizes of files: the largest of 80 holds some 8% of all bytes
    clusters = None
    shared = np.zeros(n)
    own = {arm: np.zeros(n) for arm in ARMS}
    if scenario.per_cluster > 1:
        clusters = [i // scenario.per_cluster for i in range(n)]
        groups = n // scenario.per_cluster
        shared = np.repeat(draw.normal(0, scenario.of_item / math.sqrt(2), groups), scenario.per_cluster)
        own = {a: np.repeat(draw.normal(0, scenario.of_arm / math.sqrt(2), groups), scenario.per_cluster) for a in ARMS}
        item = shared + draw.normal(0, scenario.of_item / math.sqrt(2), n)
        under = {a: own[a] + draw.normal(0, scenario.of_arm / math.sqrt(2), n) for a in ARMS}
    else:
        item = draw.normal(0, scenario.of_item, n)
        under = {a: draw.normal(0, scenario.of_arm, n) for a in ARMS}
    of_seed = draw.normal(0, scenario.of_seed, seeds)
    runs: dict[str, dict[int, Floats]] = {}
    for arm in ARMS:
        runs[arm] = {}
        for s in range(seeds):
            level = scenario.base + _STEPS[arm] * scenario.margin + of_seed[s] + draw.normal(0, scenario.of_run)
            latent = level + item + under[arm]
            if scenario.kind == "samples":
                chance = np.array([_NORMAL.cdf(x) for x in latent + draw.normal(0, scenario.rest, n)])
                runs[arm][s] = draw.binomial(scenario.samples, chance) / scenario.samples
            else:
                value = latent + draw.normal(0, scenario.rest, n)
                runs[arm][s] = value * weights if weights is not None else (value > 0).astype(np.float64)
    truth = {arm: _mean(scenario, _STEPS[arm]) - _mean(scenario, 0.0) for arm in ARMS[1:]}
    return SimulatedStudy(runs, weights, clusters, truth, truth["at the margin"])


def _mean(scenario: Scenario, step: float) -> float:
    """The expected measure of an arm: closed form, since a probit with normal noise is a probit."""
    level = scenario.base + step * scenario.margin
    if scenario.kind == "continuous":
        return level
    parts = (scenario.of_item, scenario.of_arm, scenario.of_seed, scenario.of_run, scenario.rest)
    noise = sum(d * d for d in parts) + (1.0 if scenario.kind == "samples" else 0.0)
    return _NORMAL.cdf(level / math.sqrt(noise))


@dataclass
class Tally:
    """Counts over studies. `covered` and `covered_squared` sum the covered share of each study and its square."""

    studies: int = 0
    covered: float = 0.0
    covered_squared: float = 0.0
    false_claims: int = 0  # studies with a "better" or "worse" that is not so
    false_equal: int = 0  # the arm at the margin called "no difference"
    found: int = 0  # the arm three margins away called "better"
    equal: int = 0  # the equal arm called "no difference"
    naive_claims: int = 0  # studies with a false claim if intervals of one seed were taken at their word

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def coverage(self) -> tuple[float, float]:
        """(share of intervals that hold the truth, its standard error over studies)."""
        mean = self.covered / self.studies
        spread = max(0.0, self.covered_squared / self.studies - mean * mean)
        return mean, math.sqrt(spread / self.studies)

    def rate(self, count: int) -> tuple[float, float]:
        """(share of studies, its standard error)."""
        share = count / self.studies
        return share, math.sqrt(share * (1 - share) / self.studies)


def run_studies(
    scenario: Scenario, seeds: int, first: int, count: int, *, stored: bool = False, resamples: int = RESAMPLES
) -> Tally:
    """Simulate and judge studies first .. first + count. `stored`: with the between-seed variance of an earlier study
    of the same scenario with three seeds, as a recipe's stored one."""
    tally = Tally()
    for number in range(first, first + count):
        study = simulate(scenario, seeds, number)
        variance = _earlier(scenario, number) if stored else None
        found = compare(
            study.runs,
            "base",
            higher_is_better=True,
            weights=study.weights,
            clusters=study.clusters,
            variance=variance,
            largest=None if scenario.kind == "continuous" else 1.0,
            resamples=resamples,
        )
        differences = [found[arm] for arm in ARMS[1:]]
        verdicts = dict(
            zip(ARMS[1:], (j.verdict for j in judge(differences, [study.margin] * len(differences))), strict=True)
        )
        inside = np.mean([d.low <= study.truth[arm] <= d.high for arm, d in found.items()])
        corrected = dict(zip(ARMS[1:], holm([d.p_value for d in differences]), strict=True))
        naive = any(corrected[arm] < 1 - LEVEL and (study.truth[arm] == 0 or found[arm].value < 0) for arm in ARMS[1:])
        claims = any(
            verdicts[arm] == "worse" or (verdicts[arm] == "better" and study.truth[arm] == 0) for arm in ARMS[1:]
        )
        tally.add(
            Tally(
                1,
                float(inside),
                float(inside) ** 2,
                int(claims),
                int(verdicts["at the margin"] == "no difference"),
                int(verdicts["far"] == "better"),
                int(verdicts["equal"] == "no difference"),
                int(naive),
            )
        )
    return tally


def _earlier(scenario: Scenario, number: int) -> SeedVariance:
    earlier = simulate(scenario, 3, -1 - number)
    found = seed_variance(earlier.runs, earlier.weights, earlier.clusters)
    assert found is not None
    return found
