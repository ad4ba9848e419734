"""From per-item measurements to what a study says: each arm's measures with intervals, the differences, the findings.

Items are what was measured: held-out files for bits per byte, hidden lines for infilling, problems for pass@k.
Intervals say what other items of the same kind would have given; files of one repository are alike, so they describe
other files of these repositories rather than other repositories. What another training seed would give is another
question: one seed answers it with "undecided".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kringle.evaluation.passk import pass_at_k
from kringle.settings import Margins
from kringle.study.results import (
    Baseline,
    BitsPerByte,
    Comparison,
    Estimate,
    Infilling,
    InfillingScore,
    PassAtK,
    SuiteResult,
    Unit,
)
from kringle.study.statistics import (
    LEVEL,
    RESAMPLES,
    Interval,
    mean_rate_interval,
    rate_interval,
    ratio_interval,
    seeds_and_items_interval,
)
from kringle.study.verdicts import Difference, Judgement, SeedVariance, compare, compare_pairs, judge, seed_variance

BASELINES = {"five_gram": "5-gram", "zstd": "zstd with dictionary"}
PROMPT_FORMATS = {"psm": "prefix-suffix-middle", "spm": "suffix-prefix-middle", "left-to-right": "prefix only"}
KS = (1, 10)  # pass@k: the paper's, as far as the samples allow


def estimate(interval: Interval) -> Estimate:
    """An interval for the report. What stands after the comma in a method ("design effect 1.02") is the arm's own, and
    would say "made differently" under a figure where nothing was."""
    return Estimate(interval.value, interval.low, interval.high, interval.level, interval.method.split(",")[0])


@dataclass(frozen=True)
class Measurements:
    """One run's items. `bits` rows are those of bits_per_byte.json, `lines` those of infilling.jsonl, by suite
    `verdicts` those of verdicts-SUITE.jsonl and `solutions` those of solutions-SUITE.jsonl, `skipped` the reason by
    suite for those that were not run."""

    bits: Sequence[Mapping[str, Any]]
    lines: Sequence[Mapping[str, Any]]
    verdicts: Mapping[str, Sequence[Mapping[str, Any]]]
    skipped: Mapping[str, str]
    prompt: str
    solutions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @staticmethod
    def read(evaluate: Path, score: Path, prompt: str, scored: Mapping[str, Mapping[str, Any]]) -> Measurements:
        """From the folders of the published stages; `scored` is the score stage's summary by suite."""
        run = {name for name, summary in scored.items() if summary.get("not_run") is None}
        return Measurements(
            bits=json.loads((evaluate / "bits_per_byte.json").read_text(encoding="utf-8")),
            lines=_lines(evaluate / "infilling.jsonl"),
            verdicts={name: _lines(score / f"verdicts-{name}.jsonl") for name in sorted(run)},
            solutions={
                name: _lines(path)
                for name in sorted(scored)
                if (path := evaluate / f"solutions-{name}.jsonl").is_file()  # an older version measured none
            },
            skipped={name: scored[name]["not_run"] for name in scored if name not in run},
            prompt=prompt,
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# -- one arm -----------------------------------------------------------------------------------------------------------


def bits_per_byte(rows: Sequence[Mapping[str, Any]]) -> BitsPerByte:
    """Bits per byte with intervals, the baselines on the same files, and whether the 5-gram model is beaten.

    "yes" and "no" need the whole interval of the paired difference on one side of zero.
    """
    languages = sorted({row["language"] for row in rows})
    groups = {name: [row for row in rows if row["language"] == name] for name in languages}
    return BitsPerByte(
        total=_ratio(rows, "model"),
        languages={name: _ratio(group, "model") for name, group in groups.items() if len(group) > 1},
        baselines=tuple(
            Baseline(title, _plain(rows, key), {name: _plain(group, key) for name, group in groups.items()})
            for key, title in BASELINES.items()
        ),
        beats_ngram=_beats(rows),
        files=len(rows),
        bytes=sum(row["bytes"] for row in rows),
    )


def mean_bits_per_byte(runs: Sequence[Sequence[Mapping[str, Any]]]) -> BitsPerByte:
    """Bits per byte averaged over the runs of one arm, which were measured on the same files."""
    first = runs[0]
    groups = {name: [i for i, row in enumerate(first) if row["language"] == name] for name in _languages(first)}

    def over(places: Sequence[int]) -> Estimate:
        bits = [[rows[i]["model"] for i in places] for rows in runs]
        return estimate(seeds_and_items_interval(bits, [first[i]["bytes"] for i in places]))

    def baseline(key: str, places: Sequence[int]) -> float:
        return float(np.mean([_plain([rows[i] for i in places], key) for rows in runs]))

    everything = list(range(len(first)))
    return BitsPerByte(
        total=over(everything),
        languages={name: over(places) for name, places in groups.items() if len(places) > 1},
        baselines=tuple(
            Baseline(title, baseline(key, everything), {name: baseline(key, places) for name, places in groups.items()})
            for key, title in BASELINES.items()
        ),
        beats_ngram=_beats_over_seeds(runs),
        files=len(first),
        bytes=sum(row["bytes"] for row in first),
    )


def _languages(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["language"] for row in rows})


def prompt_format(evaluated: Mapping[str, Any]) -> str:
    """How a model was asked to fill in, and what that was chosen by; `evaluated` is the evaluate stage's summary."""
    chosen, hits = PROMPT_FORMATS[evaluated["prompt"]], evaluated["tried"]
    if not hits:
        return chosen
    counts = ", ".join(f"{PROMPT_FORMATS[name]} {number}" for name, number in hits.items())
    return f"{chosen} (hits among {evaluated['tried_on']} other lines: {counts})"


def mean_infilling(runs: Sequence[Sequence[Mapping[str, Any]]], prompt: str) -> Infilling:
    """Exact matches averaged over the runs of one arm; hits and lines are counted over all of them."""

    def score(places: Sequence[int]) -> InfillingScore:
        rows = [[run[i] for i in places] for run in runs]
        exact = [[float(row["exact"]) for row in part] for part in rows]
        clusters = [row["task"].rpartition(":")[0] for row in rows[0]]
        truncated = sum(bool(row["unfinished"]) for part in rows for row in part)
        hits, lines = int(np.sum(exact)), len(places) * len(runs)
        return InfillingScore(hits, lines, estimate(mean_rate_interval(exact, clusters)), truncated)

    first = runs[0]
    groups = {name: [i for i, row in enumerate(first) if row["language"] == name] for name in _languages(first)}
    return Infilling(
        prompt_format=prompt,
        total=score(range(len(first))),
        languages={name: score(places) for name, places in groups.items() if _files([first[i] for i in places]) > 1},
    )


def mean_suite_result(results: Sequence[SuiteResult], runs: Sequence[Sequence[Mapping[str, Any]]]) -> SuiteResult:
    """pass@k averaged over the runs of one arm; `runs` are their verdicts, `results` what each of them gave."""
    ks = [at.k for at in results[0].pass_at if all(at.k in [other.k for other in r.pass_at] for r in results)]
    if not ks:
        return results[0]
    verdicts: dict[str, int] = {}
    for result in results:
        for name, number in result.verdicts.items():
            verdicts[name] = verdicts.get(name, 0) + number
    pass_at = tuple(PassAtK(k, estimate(mean_rate_interval([per_problem(rows, k) for rows in runs]))) for k in ks)
    return replace(results[0], pass_at=pass_at, verdicts=dict(sorted(verdicts.items())))


def _ratio(rows: Sequence[Mapping[str, Any]], key: str) -> Estimate:
    return estimate(ratio_interval([row[key] for row in rows], [row["bytes"] for row in rows]))


def _plain(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(sum(row[key] for row in rows) / sum(row["bytes"] for row in rows))


def _beats(rows: Sequence[Mapping[str, Any]]) -> Any:
    lead = ratio_interval([row["model"] - row["five_gram"] for row in rows], [row["bytes"] for row in rows])
    return "yes" if lead.high < 0 else "no" if lead.low > 0 else "undecided"


def _beats_over_seeds(runs: Sequence[Sequence[Mapping[str, Any]]]) -> Any:
    """As `_beats` for the mean of several seeds, of which others might have said otherwise."""
    sides = {
        key: {seed: np.array([row[key] for row in rows]) for seed, rows in enumerate(runs)}
        for key in ("model", "five_gram")
    }
    sizes = np.array([float(row["bytes"]) for row in runs[0]])
    lead = compare(sides, "five_gram", higher_is_better=False, weights=sizes)["model"]
    return "yes" if lead.high < 0 else "no" if lead.low > 0 else "undecided"


def infilling(rows: Sequence[Mapping[str, Any]], prompt: str) -> Infilling:
    """Exact matches with intervals; tasks of one file are one unit. `prompt` says how the model was asked."""
    languages = sorted({row["language"] for row in rows})
    groups = {name: [row for row in rows if row["language"] == name] for name in languages}
    return Infilling(
        prompt_format=prompt,
        total=_matches(rows),
        languages={name: _matches(group) for name, group in groups.items() if _files(group) > 1},
    )


def _files(rows: Sequence[Mapping[str, Any]]) -> int:
    return len({row["task"].rpartition(":")[0] for row in rows})


def _matches(rows: Sequence[Mapping[str, Any]]) -> InfillingScore:
    exact = [float(row["exact"]) for row in rows]
    clusters = [row["task"].rpartition(":")[0] for row in rows]
    truncated = sum(bool(row["unfinished"]) for row in rows)
    return InfillingScore(int(sum(exact)), len(rows), estimate(rate_interval(exact, clusters)), truncated)


def per_problem(rows: Sequence[Mapping[str, Any]], k: int) -> np.ndarray:
    """Each problem's unbiased pass@k estimate, in the suite's order; infrastructure errors do not count as samples."""
    passed: dict[str, list[bool]] = {}
    for row in rows:
        outcomes = passed.setdefault(row["task_id"], [])
        if row["verdict"] != "infrastructure":
            outcomes.append(bool(row["passed"]))
    return np.array([pass_at_k(len(outcomes), sum(outcomes), k) for outcomes in passed.values()])


def suite_result(name: str, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] | None) -> SuiteResult:
    """pass@k on one suite with intervals over problems, or the reason why it was not run."""
    verdicts: dict[str, int] = {}
    for row in rows or ():
        verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
    pass_at = []
    if rows is not None:
        fewest = _fewest_samples(rows)
        pass_at = [PassAtK(k, estimate(rate_interval(per_problem(rows, k)))) for k in KS if k <= fewest]
    not_run = summary.get("not_run")
    if rows is not None and not pass_at:
        not_run = "a problem is left without a single sample: every one ended in an infrastructure error"
    return SuiteResult(
        suite=name,
        prompts=summary["prompts"],
        problems=summary["problems"],
        samples=summary["samples"],
        sampler=summary["sampler"],
        jail=summary["jail"],
        pass_at=tuple(pass_at),
        verdicts=dict(sorted(verdicts.items())),
        not_run=not_run,
    )


def _fewest_samples(rows: Sequence[Mapping[str, Any]]) -> int:
    counts: dict[str, int] = {row["task_id"]: 0 for row in rows}
    for row in rows:
        counts[row["task_id"]] += row["verdict"] != "infrastructure"
    return min(counts.values())


# -- differences -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """A measure as `kringle.study.verdicts.compare` wants it. `items` gives a run's value per item."""

    name: str
    unit: Unit
    higher_is_better: bool
    margin: float | None
    items: Callable[[Measurements], np.ndarray]
    weights: Callable[[Measurements], np.ndarray] | None = None
    clusters: Callable[[Measurements], list[str]] | None = None


def compare_arms(
    runs: Mapping[str, Mapping[int, Measurements]],
    pairs: Sequence[tuple[str, str]],
    margins: Margins,
    suites: Sequence[str],
    *,
    unpaired: Collection[str] = (),
    untrained: Collection[str] = (),
    broken: Mapping[str, Sequence[int]] | None = None,
    stored: Mapping[str, SeedVariance] | None = None,
) -> list[Comparison]:
    """Every pair of arms on every measure that all have; runs[arm][seed], the base first. One family for Holm's
    correction.

    `unpaired` names arms with seeds of their own, `untrained` those that no seed changes, `broken` by arm the seeds
    whose training broke off; `stored` is the between-seed variance of an earlier study by measure, for a study without
    one.
    """
    if not pairs:
        return []
    base = next(iter(runs))
    measures = _measures(runs, base, margins, suites)
    family = len(measures) * len(pairs)
    found: list[tuple[_Measure, tuple[str, str], Difference, bool]] = []
    for measure in measures:
        values = {arm: {seed: measure.items(m) for seed, m in seeds.items()} for arm, seeds in runs.items()}
        first = next(iter(runs[base].values()))
        differences = compare_pairs(
            values,
            pairs,
            higher_is_better=measure.higher_is_better,
            weights=measure.weights(first) if measure.weights else None,
            clusters=measure.clusters(first) if measure.clusters else None,
            stored=(stored or {}).get(measure.name),
            unpaired=unpaired,
            untrained=untrained,
            largest=1.0 if measure.unit == "fraction" else None,
            resamples=resamples_for(family),
        )
        for pair, difference in differences.items():
            solved = measure.unit != "fraction" or any(rate.any() for arm in pair for rate in values[arm].values())
            found.append((measure, pair, difference, solved))
    judgements = judge([d for _, _, d, _ in found], [m.margin for m, _, _, _ in found])
    return [
        Comparison(
            arm=arm,
            base=beside,
            measure=measure.name,
            unit=measure.unit,
            higher_is_better=measure.higher_is_better,
            difference=difference.value,
            low=difference.low,
            high=difference.high,
            level=difference.level,
            margin=measure.margin,
            probability_better=difference.probability_better,
            p_value=judgement.p_value,
            detectable=difference.detectable(family, measure.margin),
            this_pair_only=difference.seed_variance is None,
            **_said(difference, judgement, solved, (arm, beside), broken or {}),
        )
        for (measure, (arm, beside), difference, solved), judgement in zip(found, judgements, strict=True)
    ]


def resamples_for(family: int) -> int:
    """How many resamples a comparison among so many needs: Holm's first step multiplies p-values by `family`, and where
    they reach 1 - level, some ten draws must lie in the tail that they are counted in."""
    needed = 2 * 10 * family / (1 - LEVEL)
    return RESAMPLES * max(1, math.ceil(needed / RESAMPLES))


def _said(
    difference: Difference,
    judgement: Judgement,
    solved: bool,
    pair: tuple[str, str],
    broken: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Verdict, remark and reservation. Two arms that never succeed are not shown to be equal; and the runs of an arm
    that went well are its best ones, so it may be called worse, and nothing else."""
    verdict = judgement.verdict
    remarks = []
    if not solved:
        verdict = "undecided"
        remarks.append("neither succeeded once")
    arm, base = pair
    for name, allowed in ((arm, "worse"), (base, "better")):
        if name in broken and verdict != allowed:
            verdict = "undecided"
    if arm in broken or base in broken:
        remarks += [
            f"{name} broke off with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            for name, seeds in broken.items()
            if name in pair
        ]
    return {"verdict": verdict, "remark": difference.remark, "reservation": "; ".join(remarks)}


def seed_variances(
    runs: Mapping[str, Mapping[int, Measurements]], margins: Margins, suites: Sequence[str]
) -> dict[str, SeedVariance]:
    """The between-seed variance of each measure, for later studies of the same recipe; nothing where there is none.
    Only arms that share their seeds and that a seed changes belong in `runs`."""
    found = {}
    for measure in _measures(runs, next(iter(runs)), margins, suites):
        first = next(iter(next(iter(runs.values())).values()))
        variance = seed_variance(
            {arm: {seed: measure.items(m) for seed, m in seeds.items()} for arm, seeds in runs.items()},
            measure.weights(first) if measure.weights else None,
            measure.clusters(first) if measure.clusters else None,
        )
        if variance is not None:
            found[measure.name] = variance
    return found


def _measures(
    runs: Mapping[str, Mapping[int, Measurements]], base: str, margins: Margins, suites: Sequence[str]
) -> list[_Measure]:
    base_bits = np.mean([_plain(m.bits, "model") for m in runs[base].values()])
    measures = [
        _Measure(
            "bits per byte",
            "bits per byte",
            False,
            float(margins.bits_per_byte * base_bits),
            lambda m: np.array([row["model"] for row in m.bits]),
            weights=lambda m: np.array([float(row["bytes"]) for row in m.bits]),
        ),
        _Measure(
            "infilling",
            "fraction",
            True,
            margins.infilling,
            lambda m: np.array([float(row["exact"]) for row in m.lines]),
            clusters=lambda m: [row["task"].rpartition(":")[0] for row in m.lines],
        ),
    ]
    for suite in suites:
        if all(m.solutions.get(suite) for seeds in runs.values() for m in seeds.values()):
            of_base = np.mean([_plain(m.solutions[suite], "model") for m in runs[base].values()])

            def bits(m: Measurements, suite: str = suite) -> np.ndarray:
                return np.array([row["model"] for row in m.solutions[suite]])

            def sizes(m: Measurements, suite: str = suite) -> np.ndarray:
                return np.array([float(row["bytes"]) for row in m.solutions[suite]])

            margin_of = float(margins.bits_per_byte * of_base)
            name = f"bits per byte of solutions, {suite}"
            measures.append(_Measure(name, "bits per byte", False, margin_of, bits, weights=sizes))
        everyone = [m for seeds in runs.values() for m in seeds.values()]
        if not all(suite in m.verdicts for m in everyone):
            continue
        fewest = min(_fewest_samples(m.verdicts[suite]) for m in everyone)
        for k in [k for k in KS if k <= fewest]:
            margin = margins.pass_at_1 if k == 1 else None

            def items(m: Measurements, suite: str = suite, k: int = k) -> np.ndarray:
                return per_problem(m.verdicts[suite], k)

            measures.append(_Measure(f"pass@{k} on {suite}", "fraction", True, margin, items))
    return measures
