"""Is one arm better than another? The difference, how sure it is, and the word for it.

Two things move a measure that are not the ablation: which items it was measured on, and which seed the model was
trained with. Items are many and are resampled. Seeds are few, so their variance is pooled over all arms of the study
and carries its own degrees of freedom. The layout is the one of reader studies in medical imaging (arms are
treatments, training seeds are readers, items are cases: Obuchowski & Rockette 1995, Communications in Statistics
24:285; Hillis 2007, Statistics in Medicine 26:596), with the items' part taken from a bootstrap.

    measure[arm, seed] = arm + seed + run[arm, seed]      the seed's own part is common to all arms (same tensors, same
                                                          order of documents), so it cancels in a difference
    noise of a difference = items' part (resampled)  +  sqrt(2 var(run) / seeds) * t(degrees of freedom)

The items' part already holds what a seed does to single items, and so does var(run); that share is taken out of the
former once. One seed alone says nothing about other seeds: its interval is about this pair of runs, and no verdict is
given unless the variance between seeds is known from an earlier study of the same recipe.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from kringle.randomness import stream
from kringle.study.power import POWER, smallest_found
from kringle.study.statistics import (
    FEW,
    LEVEL,
    RESAMPLES,
    Floats,
    resampled_sums,
    student_t_quantile,
    unit_sums,
    wilson,
)

Verdict = Literal["better", "worse", "no difference", "undecided"]
Runs = Mapping[str, Mapping[int, Floats]]  # arm -> seed -> one value per item (bits, exact match, pass@k)

THIS_PAIR_ONLY = "this pair of runs only"
_Z95 = student_t_quantile(0.95, math.inf)


@dataclass(frozen=True)
class SeedVariance:
    """What another seed would change, pooled over the arms of a study (squared units of the measure).

    run: variance of one run's measure around arm and seed. items: the part of `run` that comes from single items going
    up or down with the seed, which more items would average out. degrees_of_freedom: of both.
    """

    run: float
    items: float
    degrees_of_freedom: int


@dataclass(frozen=True)
class Difference:
    """Arm minus base on one measure. `probability_better` counts the better direction of the measure; `p_value` is
    two-sided. `seed_variance` is None where there was one seed: the interval then covers `THIS_PAIR_ONLY`. With
    `too_few` units that differ at all, the interval is as wide as those that were not drawn leave open, and decides
    nothing."""

    value: float
    low: float
    high: float
    level: float
    probability_better: float
    p_value: float
    standard_error: float
    higher_is_better: bool
    items: int
    units: int
    seeds: tuple[int, ...]
    seed_variance: SeedVariance | None
    item_error: float  # standard error of the items' part alone
    stored: bool = False  # the between-seed variance is an earlier study's
    too_few: bool = False

    @property
    def remark(self) -> str:
        """What the interval covers, for the reader."""
        if self.seed_variance is None:
            return THIS_PAIR_ONLY
        count = f"{len(self.seeds)} seed" + ("s" if len(self.seeds) > 1 else "")
        whose = " of an earlier study" if self.stored else ""
        freedom = self.seed_variance.degrees_of_freedom
        return f"{count}; between-seed variance{whose} with {freedom} degree{'s' if freedom > 1 else ''} of freedom"

    def detectable(self, family: int, margin: float | None = None, power: float = POWER) -> float | None:
        """The smallest true difference that a study like this calls *better* or *worse* with this power, among `family`
        comparisons and with this margin; None where it would call nothing so: without a variance between seeds, or
        where too few units differ to say how much such studies scatter."""
        variance = self.seed_variance
        if variance is None or self.too_few:
            return None
        return smallest_found(
            self.item_error,
            math.sqrt(2 * variance.run / len(self.seeds)),
            freedom=variance.degrees_of_freedom,
            estimated=not self.stored,
            family=family,
            margin=margin,
            level=self.level,
            power=power,
        )


@dataclass(frozen=True)
class Judgement:
    """The verdict on one difference; `p_value` is corrected for the whole family of comparisons."""

    verdict: Verdict
    p_value: float


def seed_variance(
    runs: Runs,
    weights: Floats | None = None,
    clusters: Sequence[Hashable] | None = None,
    *,
    shared_seeds: bool = True,
) -> SeedVariance | None:
    """Between-seed variance from all runs of a study; None where no arm was trained with a second shared seed.

    `shared_seeds` False is for arms that have no seed in common although their runs are numbered alike (the base and
    its control by another seed): nothing cancels between them, and the variance is that around each arm's own mean.

    Residuals of the additive layout arm + seed, by least squares, so arms may lack some seeds. With A arms and S seeds
    everywhere there are (A - 1)(S - 1) degrees of freedom. Assumes that the arms vary equally between seeds; leave out
    an arm of which that cannot be said. All runs must have been measured on the same items.
    """
    cells = [(arm, seed) for arm, by_seed in runs.items() for seed in by_seed]
    arms, seeds = list(runs), sorted({seed for _, seed in cells})
    layout = np.array(
        [[arm == a for a in arms] + [seed == s for s in seeds[1:] if shared_seeds] for arm, seed in cells],
        dtype=np.float64,
    )
    freedom = len(cells) - int(np.linalg.matrix_rank(layout))
    if freedom == 0:
        return None
    residual_of = np.eye(len(cells)) - layout @ np.linalg.pinv(layout)  # (cells, cells), a projection
    units, weight = _units([runs[arm][seed] for arm, seed in cells], weights, clusters)  # (U, cells), (U,)
    shares = units / weight.mean()  # a run's measure is the mean of its column
    by_unit = shares @ residual_of  # (U, cells)
    residual = by_unit.mean(axis=0)  # (cells,)
    around = by_unit - np.outer(weight / weight.mean(), residual)
    within = (around**2).sum() / (len(units) * (len(units) - 1))
    return SeedVariance(float((residual**2).sum()) / freedom, float(within) / freedom, freedom)


def compare(
    runs: Runs,
    base: str,
    *,
    higher_is_better: bool,
    weights: Floats | None = None,
    clusters: Sequence[Hashable] | None = None,
    variance: SeedVariance | None = None,
    largest: float | None = None,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """The difference of every other arm to `base` by arm, as `compare_pairs` finds it."""
    found = compare_pairs(
        runs,
        [(arm, base) for arm in runs if arm != base],
        higher_is_better=higher_is_better,
        weights=weights,
        clusters=clusters,
        stored=variance,
        largest=largest,
        seed=seed,
        level=level,
        resamples=resamples,
    )
    return {arm: difference for (arm, _), difference in found.items()}


def compare_pairs(
    runs: Runs,
    pairs: Sequence[tuple[str, str]],
    *,
    higher_is_better: bool,
    weights: Floats | None = None,
    clusters: Sequence[Hashable] | None = None,
    stored: SeedVariance | None = None,
    unpaired: Collection[str] = (),
    untrained: Collection[str] = (),
    largest: float | None = None,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Difference]:
    """Arm minus base for every pair, over the items that all runs share and the seeds that both arms have.

    runs[arm][seed] holds one number per item and weights (items,) their denominators, ones if absent: bits and bytes
    for bits per byte, 0 or 1 for exact match, a problem's pass@k estimate for pass@k. A measure is their ratio of sums.
    `clusters` names each item's document or repository. The between-seed variance is this study's own, pooled over all
    arms that share their seeds; where it has none, `stored`, that of an earlier study (same recipe, same measure).
    `unpaired` names arms whose runs have seeds of their own: they are left out of the pool, and are compared with the
    variance around the two arms' own means. `untrained` names arms that no seed changes: out of the pool as well, and
    compared with the other arm's own variance. `largest` is the largest possible difference of one item (1 for a rate):
    where fewer than `FEW` units differ, resampling says nothing of those that were not drawn. The interval is then no
    narrower than Wilson's bound for that many leaves open, which always holds zero, so neither the p-value nor
    P(better) may say more.
    """
    if len({np.shape(values) for by_seed in runs.values() for values in by_seed.values()}) > 1:
        raise ValueError("the runs were not measured on the same items")
    pool = {arm: by_seed for arm, by_seed in runs.items() if arm not in unpaired and arm not in untrained}
    own = seed_variance(pool, weights, clusters) if pool else None
    seeds_of = {(arm, base): tuple(sorted(set(runs[arm]) & set(runs[base]))) for arm, base in pairs}
    for (arm, base), seeds in seeds_of.items():
        if not seeds:
            raise ValueError(f"arms '{arm}' and '{base}' have no seed in common")
    if not pairs:
        return {}
    columns = [np.mean([runs[a][s] - runs[b][s] for s in seeds], axis=0) for (a, b), seeds in seeds_of.items()]
    units, weight = _units(columns, weights, clusters)  # (U, pairs), (U,)
    sums = resampled_sums(np.column_stack([units, weight]), seed, resamples)
    found = {}
    for number, ((arm, base), seeds) in enumerate(seeds_of.items()):
        variance, is_stored = (own, False) if own is not None else (stored, stored is not None)
        if arm in untrained or base in untrained:
            variance, is_stored = _beside_untrained(runs, arm, base, untrained, weights, clusters), False
        elif arm in unpaired:
            both = {name: runs[name] for name in (arm, base)}
            variance, is_stored = seed_variance(both, weights, clusters, shared_seeds=False), False
        value = float(units[:, number].sum() / weight.sum())
        drawn = sums[:, number] / sums[:, -1] - value
        items, noise = _noise(drawn * _for_few_units(weight), len(seeds), variance, seed)
        low, high = (float(x) for x in np.quantile(value + noise, (0.5 - level / 2, 0.5 + level / 2)))
        above = float(np.count_nonzero(value + noise > 0) + np.count_nonzero(value + noise >= 0)) / (2 * resamples)
        tail = int(min(np.count_nonzero(value + noise <= 0), np.count_nonzero(value + noise >= 0)))
        p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
        moved = int(np.count_nonzero(units[:, number]))
        too_few = largest is not None and moved < FEW
        if largest is not None and too_few:
            bound = largest * wilson(moved, len(units), level).high  # no difference exceeds the share that moved
            low, high = min(low, -bound), max(high, bound)
            p_value = max(p_value, 1 - level)
            above = min(max(above, 0.5 - level / 2), 0.5 + level / 2)
        found[arm, base] = Difference(
            value=value,
            low=low,
            high=high,
            level=level,
            probability_better=above if higher_is_better else 1 - above,
            p_value=p_value,
            standard_error=float(noise.std()),
            higher_is_better=higher_is_better,
            items=len(columns[number]),
            units=len(units),
            seeds=seeds,
            seed_variance=variance,
            item_error=items,
            stored=is_stored,
            too_few=too_few,
        )
    return found


def _beside_untrained(
    runs: Runs,
    arm: str,
    base: str,
    untrained: Collection[str],
    weights: Floats | None,
    clusters: Sequence[Hashable] | None,
) -> SeedVariance | None:
    """The variance of the trained one of two arms, halved, because a difference is taken to be made of two runs. What
    a seed does to all arms alike does not cancel here, so it is part of it."""
    trained = [name for name in (arm, base) if name not in untrained]
    if not trained:
        return None
    variance = seed_variance({name: runs[name] for name in trained}, weights, clusters, shared_seeds=False)
    return variance and replace(variance, run=variance.run / 2, items=variance.items / 2)


def _noise(items: Floats, seeds: int, variance: SeedVariance | None, seed: int) -> tuple[float, Floats]:
    """The standard error of the items' part, and draws (resamples,) of how far the difference could be from its true
    value; `items` (resamples,) are those of the items' part, widened for few units.

    The two parts are drawn and added instead of being summarised by one t distribution with Satterthwaite's degrees of
    freedom: where a few seeds carry nearly all of the variance, his 90% intervals covered 86% (one degree of freedom)
    and 87% (two) in simulation, these 93% and 91%.
    """
    spread = float(items.var())
    if variance is None:
        return math.sqrt(spread), items
    if spread > 0:
        # No more is taken out than the other part puts back: few seeds may agree by chance, and no interval is left.
        twice = min(variance.items, variance.run)
        items = items * math.sqrt(max(0.0, 1 - 2 * twice / seeds / spread))
    t = _student_draws(seed, variance.degrees_of_freedom, len(items))
    return float(items.std()), items + math.sqrt(2 * variance.run / seeds) * t


def _for_few_units(weight: Floats) -> float:
    """What a bootstrap over few units has to be multiplied by.

    Its variance is that of the sample itself, (n - 1)/n of what it should be, and its tails are the normal's where
    Student's are due. n is Kish's effective number, (sum w)^2 / sum w^2: 80 files of very different sizes count as some
    42. Without this factor, 90% intervals of bits per byte covered 87.9% in simulation with five seeds.
    """
    effective = max(2.0, float(weight.sum() ** 2 / (weight**2).sum()))
    return student_t_quantile(0.95, effective - 1) / _Z95 * math.sqrt(effective / (effective - 1))


@lru_cache(maxsize=16)
def _student_draws(seed: int, freedom: int, resamples: int) -> Floats:
    drawn = stream(seed, "between-seeds", freedom).standard_t(freedom, resamples)
    drawn.setflags(write=False)  # the cache hands the same array to everyone
    return drawn


def _units(
    columns: Sequence[Floats], weights: Floats | None, clusters: Sequence[Hashable] | None
) -> tuple[Floats, Floats]:
    """Unit sums (U, K) of item columns, and of the weights (U,)."""
    weight = np.ones(len(columns[0])) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (weight > 0).all():
        raise ValueError("an item's weight is not positive")
    sums = unit_sums(np.column_stack([*columns, weight]).astype(np.float64), clusters)
    if len(sums) < 2:
        raise ValueError(f"{len(sums)} unit(s): a comparison needs at least two documents, problems or clusters")
    return sums[:, :-1], sums[:, -1]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), so that the whole family errs no more often than one would."""
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def judge(differences: Sequence[Difference], margins: Sequence[float | None]) -> list[Judgement]:
    """One verdict per difference; the differences given together are the family that is corrected for.

    - *undecided*, whatever the numbers, where nothing is known of the variance between seeds;
    - *no difference*: the interval lies inside the margin, the difference too small to matter that was fixed before
      training (two one-sided tests at 5% for a 90% interval: Schuirmann 1987). It comes first: a difference may be
      certain and still too small to matter;
    - *better*, *worse*: the two-sided p-value, Holm-corrected over the family, is below 1 - level;
    - *undecided* otherwise.
    """
    corrected = holm([d.p_value for d in differences])
    verdicts = []
    for difference, margin, p in zip(differences, margins, corrected, strict=True):
        verdict: Verdict = "undecided"
        if difference.seed_variance is not None:
            if margin is not None and -margin < difference.low and difference.high < margin:
                verdict = "no difference"
            elif p < 1 - difference.level:
                verdict = "better" if (difference.value > 0) == difference.higher_is_better else "worse"
        verdicts.append(Judgement(verdict, p))
    return verdicts
