"""What a study could see: its measures, and the smallest difference on each that it would find, before any training.

The measures, the pairs and the degrees of freedom are those by which the study will be judged. How far items and seeds
scatter is what an earlier study of the recipe stored (`kringle.study.seeds`), and `ASSUMED` where none did: an order of
magnitude, made to tell a study that can answer its question from one that cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from kringle.errors import UserError
from kringle.evaluation.passk import pass_at_k
from kringle.settings import Arm, Recipe
from kringle.study import seeds as seed_file
from kringle.study.controls import pairs
from kringle.study.judgements import KS
from kringle.study.power import smallest_found, widened
from kringle.study.verdicts import SeedVariance, seed_variance

_BITS = 2.5  # bits per byte of a small model of code, to turn a stored deviation into a share

# Where no earlier study of the recipe is stored. bits per byte: two runs of one recipe differ by 0.1 to 0.3% of the
# loss (public reports of small language models; our own of 200,000 tokens: 0.15%); the paired difference of one
# held-out file varies by 1.5%, of one problem's solution (some 200 bytes) by 1 to 4% in the default study and by 8% in
# those of 2.8 million parameters (ours, docs/studies/three-seeds). Rates: 6 tenths of a point between runs (nanochat:
# seven runs of d24 within 1.65 points of CORE; nothing of the kind is public for pass@10, so it is taken alike); a
# tenth of the lines change sides; lines of a file count for two thirds; a problem's pass@1 differs by 10 points between
# arms, which is what log-odds that differ by 1.0 give with the chances below, and they give 13 points of pass@10.
ASSUMED = {
    "bits_run": 0.002,
    "bits_file": 0.015,
    "bits_solution": 0.04,
    "file_bytes": 8_000.0,
    "rate_run": 0.006,
    "line": math.sqrt(0.1 * 1.5),
    "problem_at_1": 0.10,
    "problem_at_10": 0.13,
}
# A problem's chance of being solved: Beta(a, b) with the mean 0.15 and E p(1 - p) = 0.059 (models near 15%).
CHANCES = (0.1292, 0.7321)
ONE_SEED = "one seed gives no verdict"
NOT_TRAINED = "no compared arm is trained, so no seed tells"


@dataclass(frozen=True)
class Detectable:
    """The smallest true difference called *better* or *worse* four times in five; None where no verdict is possible,
    which `basis` then explains. `unit` "share" is of the base's bits per byte, else it is "points", as a fraction;
    `margin` is the recipe's, in the same unit; `by_margin`: noise alone would let smaller ones be told, and they come
    out as *no difference*."""

    measure: str
    unit: Literal["share", "points"]
    value: float | None
    margin: float | None
    by_margin: bool
    basis: str


class Size(NamedTuple):
    """Problems of a suite, and those of them that have their solution."""

    problems: int
    solutions: int


@dataclass(frozen=True)
class _Measure:
    """`item` is the standard deviation of one unit's paired difference, `run` of one run's measure; `scale` turns a
    stored deviation into this unit."""

    name: str
    unit: Literal["share", "points"]
    margin: float | None
    item: float
    units: float
    run: float
    scale: float = 1.0


@dataclass(frozen=True)
class _Seeds:
    """What is known between seeds: seeds of the comparison that has the fewest; degrees of freedom of the study's own
    variance, 0 where it has none; how many of a comparison's two arms a seed changes."""

    count: int
    freedom: int
    trained: int


def suite_sizes(recipe: Recipe) -> dict[str, Size]:
    """By suite, of those that are on this machine."""
    from kringle.evaluation.suites import load_suite

    found = {}
    for name in recipe.evaluation.suites:
        try:
            problems = load_suite(name, recipe.evaluation.benchmarks).problems
        except UserError:
            continue  # said in the forecast's notes
        found[name] = Size(len(problems), sum(bool(problem.canonical_solution) for problem in problems))
    return found


def detectable(recipe: Recipe, sizes: Mapping[str, Size], more_items: float = 1.0) -> tuple[Detectable, ...]:
    """By measure, from the recipe's seeds, items, margins and number of comparisons; nothing where nothing is compared.
    `more_items` multiplies files, lines and problems. `UserError` for a stored variance that is not this recipe's."""
    compared, measures = pairs(recipe.arms), _measures(recipe, sizes)
    if not compared:
        return ()
    known = _seeds(recipe.arms)
    stored = seed_file.load(recipe.seed_variance, recipe) if recipe.seed_variance else seed_file.shipped(recipe)
    if known.trained < 2:
        stored = {}  # it lacks what a seed does to all arms alike, which counts beside an arm that no seed changes
    family = len(compared) * len(measures)
    return tuple(_detectable(m, known, stored.get(m.name), family, more_items) for m in measures)


def _measures(recipe: Recipe, sizes: Mapping[str, Size]) -> list[_Measure]:
    """What `kringle.study.judgements.compare_arms` compares, in its order; it leaves out what the runs turn out to
    lack."""
    evaluation, margins = recipe.evaluation, recipe.evaluation.margins
    files = evaluation.held_out_bytes / ASSUMED["file_bytes"]
    lines = evaluation.infilling_lines
    bits_run, rate_run = ASSUMED["bits_run"], ASSUMED["rate_run"]
    found = [
        _Measure("bits per byte", "share", margins.bits_per_byte, ASSUMED["bits_file"], files, bits_run, 1 / _BITS),
        _Measure("infilling", "points", margins.infilling, ASSUMED["line"], lines, rate_run),
    ]
    for suite, size in sizes.items():
        if size.solutions:
            name, item = f"bits per byte of solutions, {suite}", ASSUMED["bits_solution"]
            found.append(
                _Measure(name, "share", margins.bits_per_byte, item, size.solutions, bits_run, scale=1 / _BITS)
            )
        for k in [k for k in KS if k <= evaluation.samples]:
            item = math.sqrt(ASSUMED[f"problem_at_{k}"] ** 2 + 2 * sampling_variance(evaluation.samples, k))
            margin = margins.pass_at_1 if k == 1 else None
            found.append(_Measure(f"pass@{k} on {suite}", "points", margin, item, size.problems, rate_run))
    return found


def _seeds(arms: tuple[Arm, ...]) -> _Seeds:
    """The base with another seed is left out: it is compared with seeds of its own, on less."""
    pool = {a.name: a for a in arms if not a.training.skip and (a.control is None or a.control.kind != "seed")}
    both = [(arm, beside) for arm, beside in pairs(arms) if arm in pool and beside in pool]
    if both:
        shared = (len(set(pool[arm].training.seeds) & set(pool[beside].training.seeds)) for arm, beside in both)
        return _Seeds(min(shared), _freedom(list(pool.values()), shared_seeds=True), 2)
    # beside a checkpoint that is measured as it is, the trained arm's own seeds count
    alone = [pool[arm if arm in pool else beside] for arm, beside in pairs(arms) if arm in pool or beside in pool]
    if not alone:
        return _Seeds(1, 0, 0)
    fewest = min(alone, key=lambda arm: len(arm.training.seeds))
    return _Seeds(len(fewest.training.seeds), _freedom([fewest], shared_seeds=False), 1)


def _freedom(pool: list[Arm], *, shared_seeds: bool) -> int:
    """Degrees of freedom of the variance that the verdicts will estimate, by their own function, whatever is measured
    (two items that stand for all)."""
    runs = {arm.name: dict.fromkeys(arm.training.seeds, np.arange(2.0)) for arm in pool}
    found = seed_variance(runs, shared_seeds=shared_seeds)
    return found.degrees_of_freedom if found else 0


def _detectable(
    measure: _Measure, seeds: _Seeds, stored: SeedVariance | None, family: int, more_items: float
) -> Detectable:
    if not seeds.freedom and stored is None:
        basis = ONE_SEED if seeds.trained else NOT_TRAINED
        return Detectable(measure.name, measure.unit, None, measure.margin, False, basis)
    units = max(2, round(measure.units * more_items))
    of_items, of_runs, basis = measure.item**2 / units, measure.run**2, "assumed spread between seeds"
    if stored is not None:
        # What seeds do to single items is averaged out by more of them, and counts once: in `run`, not in the items.
        items = min(stored.items, stored.run)
        of_runs = (stored.run - items * (1 - 1 / more_items)) * measure.scale**2
        of_items = max(0.0, of_items - 2 * items / more_items * measure.scale**2)
        basis = "a stored between-seed variance"
    freedom = seeds.freedom or (stored.degrees_of_freedom if stored else 0)
    basis += f", judged with {freedom} degree{'s' if freedom > 1 else ''} of freedom"
    of_noise, value = (
        smallest_found(
            math.sqrt(of_items) * widened(units),
            math.sqrt(seeds.trained * of_runs / seeds.count),
            freedom=freedom,
            estimated=seeds.freedom > 0,
            family=family,
            margin=margin,
        )
        for margin in (None, measure.margin)
    )
    by_margin = value > of_noise * 1.01  # few degrees of freedom mix the two
    return Detectable(measure.name, measure.unit, value, measure.margin, by_margin, basis)


def sampling_variance(samples: int, k: int) -> float:
    """How far one problem's pass@k estimate from so many samples scatters around its true value, mean of the variance
    over problems whose chances are `CHANCES`: exact, c of n samples being right with the chances of a beta-binomial."""
    a, b = CHANCES

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    def missed(times: int) -> float:
        """The mean of (1 - p)^times."""
        return math.exp(log_beta(a, b + times) - log_beta(a, b))

    squares = 0.0
    for right in range(samples + 1):
        ways = -math.log(samples + 1) - log_beta(right + 1, samples - right + 1)  # log of the binomial coefficient
        chance = math.exp(ways + log_beta(right + a, samples - right + b) - log_beta(a, b))
        squares += chance * pass_at_k(samples, right, k) ** 2
    return squares - (1 - 2 * missed(k) + missed(2 * k))
