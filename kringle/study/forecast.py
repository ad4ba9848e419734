"""What a study would cost and the smallest difference that it could detect, before anything is trained.

Cost is arithmetic: tokens times FLOPs per token over a throughput. On this machine the throughput is what a run in a
workspace measured; on a GPU it is published utilisation of a like model, with its source. The FLOPs of a token are
6 for each weight of a matrix product (forward 2, backward 4) and 12 L E T for attention, causal not halved (PaLM,
appendix B). Evaluation is not counted.

The smallest detectable difference is `kringle.study.verdicts.minimum_detectable_difference` with the noise of an
earlier study where one is stored, and with the assumptions named in `ASSUMED` where not. It is an order of magnitude,
made to tell a study that can answer its question from one that cannot.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from kringle.errors import UserError
from kringle.recipe import load_recipe
from kringle.settings import Arm, Recipe
from kringle.study import seeds as seed_file
from kringle.study.controls import control_arms, pairs
from kringle.study.start import vocabulary_size, with_start
from kringle.study.verdicts import minimum_detectable_difference

COUNTS = (1, 2, 4, 8, 16, 32, 64, 96)
_BITS = 2.5  # bits per byte of a small model of code, to turn a stored deviation into a share
CURVE = (0.0, 0.01, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # shares of a run at which the learning rate is told


@dataclass(frozen=True)
class Gpu:
    """`peak`: dense 16-bit FLOP/s of the data sheet; `reached`: (parameters, share of the peak) as published."""

    name: str
    peak: float
    reached: tuple[tuple[float, float], ...]
    source: str

    def utilisation(self, parameters: int) -> float:
        """The share of the peak for a model of this size: published points, straight lines over log size between them,
        the nearest point outside."""
        points = sorted(self.reached)
        if parameters <= points[0][0]:
            return points[0][1]
        for (small, low), (large, high) in pairwise(points):
            if parameters <= large:
                return low + (high - low) * math.log(parameters / small) / math.log(large / small)
        return points[-1][1]


_FOUNDRY = "MosaicML llm-foundry's benchmark tables, sequences of 2,048"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("v100", 125e12, ((1.1e9, 0.29),), "SantaCoder itself: 118B tokens in 3.1 days on 96 V100 (paper, 4)"),
        Gpu("a100", 312e12, ((125e6, 0.448), (350e6, 0.516), (1.3e9, 0.599)), f"{_FOUNDRY}, 8 x A100 80 GB"),
        Gpu(
            "h100", 989e12, ((125e6, 0.28), (760e6, 0.379), (1.3e9, 0.418)), f"{_FOUNDRY}, 8 x H100; 125M: KempnerForge"
        ),
        Gpu(
            "h200",
            989e12,
            ((125e6, 0.28), (1.3e9, 0.418)),
            "KempnerForge PR 207 for 125M; 1B as published for the H100",
        ),
    )
}

# Where no earlier study of the recipe is stored. bits per byte: two runs of one recipe differ by 0.1 to 0.3% of the
# loss (public reports of small language models; our own of 200,000 tokens: 0.15%); the paired difference of one
# held-out file varies by 1.5% (ours). Rates: 6 tenths of a point between runs (nanochat: seven runs of d24 within 1.65
# points of CORE); a tenth of the lines change sides; lines of a file count for two thirds; a problem's pass@1 differs
# by 10 points between arms beside the noise of its samples (0.118/n for models near 15%).
ASSUMED = {
    "bits_run": 0.002,
    "bits_file": 0.015,
    "file_bytes": 8_000.0,
    "rate_run": 0.006,
    "line": math.sqrt(0.1 * 1.5),
    "problem": 0.10,
    "sampling": 0.118,
}


@dataclass(frozen=True)
class ArmCost:
    """One arm with one seed."""

    name: str
    parameters: int
    seeds: int
    tokens: int
    steps: int
    flops: float
    hours: float  # on all devices together, one after the other
    key_value_bytes_per_token: int


@dataclass(frozen=True)
class Detectable:
    """The smallest true difference found four times in five; `unit` "share" is of the base's bits per byte, else it is
    "points"."""

    measure: str
    unit: str
    value: float
    basis: str


@dataclass(frozen=True)
class Option:
    """What a change of the study would do to its cost and to what it can detect."""

    change: str
    cost_factor: float
    detectable: tuple[Detectable, ...]


@dataclass(frozen=True)
class Forecast:
    recipe: str
    device: str
    count: int
    throughput: str  # how it is known
    arms: tuple[ArmCost, ...]
    flops: float
    device_hours: float
    days: float  # on `count` devices, one arm after the other
    days_by_count: dict[int, float]
    price: float | None  # of all of it
    learning_rate: tuple[tuple[int, float], ...]  # (step, rate) of the base
    detectable: tuple[Detectable, ...]
    options: tuple[Option, ...]
    notes: tuple[str, ...]


def forecast(
    recipe_name: str,
    *,
    gpu: str | None = None,
    count: int = 1,
    price: float | None = None,
    work: Path | None = None,
) -> Forecast:
    """The CLI's `kringle forecast`. `gpu` None: this machine, as fast as the runs in the workspace `work` were; `price`
    is that of one device for an hour. `UserError` where a speed is not known."""
    recipe = with_start(load_recipe(recipe_name))
    if recipe.controls is not None:
        recipe = replace(recipe, arms=(*recipe.arms, *control_arms(recipe.arms, recipe.controls)))
    if count < 1:
        raise UserError(f"must be at least 1, got {count}", where="--count")
    if gpu is None and count > 1:
        raise UserError("this machine is one; a number of devices needs their kind", where="--count", hint="add --gpu")
    if price is not None and not 0 <= price < math.inf:
        raise UserError(f"must be a number from 0 on, got {price:g}", where="--price")
    if gpu is None:
        speed, throughput = _measured(work)
        device = "this machine"
    elif gpu.lower() in GPUS:
        known = GPUS[gpu.lower()]
        device, speed, throughput = known.name, None, f"published utilisation of like models: {known.source}"
    else:
        raise UserError(
            f"unknown GPU '{gpu}'", where="--gpu", hint=f"known: {', '.join(GPUS)}; or none for this machine"
        )
    arms = tuple(_arm_cost(arm, recipe, speed, GPUS.get(device)) for arm in recipe.arms)
    hours = sum(arm.hours * arm.seeds for arm in arms)
    flops = sum(arm.flops * arm.seeds for arm in arms)
    return Forecast(
        recipe=recipe.name,
        device=device,
        count=count,
        throughput=throughput,
        arms=arms,
        flops=flops,
        device_hours=hours,
        days=hours / count / 24,
        days_by_count={n: hours / n / 24 for n in (COUNTS if gpu else (1,))},
        price=None if price is None else price * hours,
        learning_rate=_learning_rates(recipe.base),
        detectable=_detectable(recipe),
        options=_options(recipe),
        notes=_notes(recipe, gpu),
    )


# -- cost --------------------------------------------------------------------------------------------------------------


def _arm_cost(arm: Arm, recipe: Recipe, measured: float | None, gpu: Gpu | None) -> ArmCost:
    from kringle.model import exchange
    from kringle.model.shape import ModelConfig, padded_vocabulary

    shape = arm.model
    if shape.init is not None:
        config = exchange.describe(shape.init)
    else:
        vocabulary = padded_vocabulary(vocabulary_size(recipe))
        config = ModelConfig(
            shape.layers,
            shape.width,
            shape.heads,
            shape.attention,
            shape.context,
            vocabulary,
            positions=shape.positions,
        )
    tokens = arm.training.steps * arm.training.batch_tokens
    flops = float(config.flops_per_token()) * tokens
    if measured is None:
        assert gpu is not None
        measured = gpu.peak * gpu.utilisation(config.parameters)
    return ArmCost(
        name=arm.name,
        parameters=config.parameters,
        seeds=len(arm.training.seeds),
        tokens=tokens,
        steps=arm.training.steps,
        flops=flops,
        hours=flops / measured / 3600,
        key_value_bytes_per_token=config.key_value_bytes_per_token,
    )


def _measured(work: Path | None) -> tuple[float, str]:
    """FLOP/s of as many trainings as this machine has room for at once, and how that is known.

    On a CPU a training has its threads, and the cores that these leave have room for others; on a GPU as many shared it
    as were run together. Trainings that do not say so are those of older versions, and are left out.
    """
    from kringle.engine import default_workers

    hint = "name one with --work after a first run, or a GPU with --gpu"
    if work is None or not (work / "stages").is_dir():
        raise UserError(
            "no workspace in which this machine's speed was measured", where=str(work or "--work"), hint=hint
        )
    found = []
    for path in sorted((work / "stages").glob("train@*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        summary, shape = manifest["summary"], manifest["settings"]["model"]
        speed = summary.get("tokens_per_second")
        if not speed or "threads" not in summary:  # no speed: a checkpoint that is measured as it is
            continue
        per_token = 6 * summary["parameters"] + 12 * shape["layers"] * shape["width"] * shape["context"]
        side_by_side = summary["together"]
        if summary["device"] == "cpu":
            side_by_side = max(1, default_workers() // (summary["threads"] * summary["processes"]))
        found.append((speed * per_token * side_by_side, speed, side_by_side))
    if not found:
        raise UserError("holds no training whose speed could be used", where=str(work), hint=hint)
    flops, tokens, side_by_side = sorted(found)[len(found) // 2]
    told = f"measured here: {tokens:,.0f} tokens/s a training (median of {len(found)}), {side_by_side} side by side"
    return flops, told


def _learning_rates(base: Arm) -> tuple[tuple[int, float], ...]:
    from kringle.training.schedule import learning_rate, warmup_steps

    settings = base.training
    if not settings.steps:  # a checkpoint that is measured as it is
        return ()
    steps = sorted({min(settings.steps - 1, int(share * settings.steps)) for share in CURVE})
    warmup = warmup_steps(settings.warmup, settings.horizon)
    return tuple(
        (
            step,
            learning_rate(
                step,
                peak=settings.learning_rate,
                schedule=settings.schedule,
                warmup=warmup,
                steps=settings.horizon,
                decay=settings.decay,
            ),
        )
        for step in steps
    )


# -- what could be seen ------------------------------------------------------------------------------------------------


def _detectable(recipe: Recipe, more_items: float = 1.0) -> tuple[Detectable, ...]:
    """By measure, from the recipe's seeds, items and number of comparisons."""
    evaluation = recipe.evaluation
    stored = seed_file.load(recipe.seed_variance, recipe) if recipe.seed_variance else seed_file.shipped(recipe)
    seeds = min(len(arm.training.seeds) for arm in recipe.arms)
    compared = [arm for arm in recipe.arms if arm.control is None or arm.control.kind != "seed"]
    freedom = (len(compared) - 1) * (seeds - 1)
    problems = _problems(recipe)
    family = len(pairs(recipe.arms)) * (2 + 2 * len(problems))
    found = []

    def add(measure: str, unit: str, item: float, units: float, run: float, key: str, scale: float = 1.0) -> None:
        known = stored.get(key) if seeds == 1 else None
        of_runs = math.sqrt(known.run) / scale if known else run if seeds > 1 else 0.0
        degrees: float = known.degrees_of_freedom if known else freedom if seeds > 1 else math.inf
        basis = (
            "a stored between-seed variance"
            if known
            else "assumed spread between seeds"
            if seeds > 1
            else ("this pair of runs only: one seed gives no verdict")
        )
        value = minimum_detectable_difference(
            item,
            max(2, round(units * more_items)),
            seeds=seeds,
            run_deviation=of_runs,
            degrees_of_freedom=degrees,
            family=max(1, family),
        )
        found.append(Detectable(measure, unit, value, basis))

    files = evaluation.held_out_bytes / ASSUMED["file_bytes"]
    add("bits per byte", "share", ASSUMED["bits_file"], files, ASSUMED["bits_run"], "bits per byte", _BITS)
    add("infilling", "points", ASSUMED["line"], evaluation.infilling_lines, ASSUMED["rate_run"], "infilling")
    item = math.sqrt(ASSUMED["problem"] ** 2 + ASSUMED["sampling"] / evaluation.samples)
    for suite, number in problems.items():
        add(f"pass@1 on {suite}", "points", item, number, ASSUMED["rate_run"], f"pass@1 on {suite}")
    return tuple(found)


def _problems(recipe: Recipe) -> dict[str, int]:
    """Problems by suite, of those that are on this machine."""
    from kringle.evaluation.suites import load_suite

    found = {}
    for name in recipe.evaluation.suites:
        try:
            found[name] = len(load_suite(name, recipe.evaluation.benchmarks).problems)
        except UserError:
            continue  # said in the notes
    return found


def _options(recipe: Recipe) -> tuple[Option, ...]:
    """More seeds, more items, more samples, more tokens."""
    made = []
    now = min(len(arm.training.seeds) for arm in recipe.arms)
    for seeds in (3, 5, 10):
        if seeds > now:
            arms = [replace(a, training=replace(a.training, seeds=tuple(range(seeds)))) for a in recipe.arms]
            made.append(Option(f"{seeds} seeds", seeds / now, _detectable(replace(recipe, arms=tuple(arms)))))
    made.append(Option("three times the held-out files, lines and problems", 1.0, _detectable(recipe, 3.0)))
    if recipe.evaluation.samples < 200:
        sampled = replace(recipe, evaluation=replace(recipe.evaluation, samples=200))
        made.append(Option("200 samples of each problem", 1.0, _detectable(sampled)))
    made.append(Option("twice the tokens: larger differences, perhaps, by no known law; the same noise", 2.0, ()))
    return tuple(made)


def _notes(recipe: Recipe, gpu: str | None) -> tuple[str, ...]:
    said = ["Evaluation and data preparation are not counted."]
    absent = [name for name in recipe.evaluation.suites if name not in _problems(recipe)]
    if absent:
        said.append(f"Not on this machine, so not counted among the measures: {', '.join(absent)}.")
    if gpu is not None:
        said.append(
            "Days are device hours over devices. Many devices lose some: llm-foundry reports 41.8% of the peak on 8 "
            "H100 and 36.7% on 512 for 1.3B parameters."
        )
    if recipe.name == "santacoder-1b":
        said.append(
            "The paper states 1.05e21 FLOPs an ablation: Megatron's formula, which counts multi-head attention. With "
            "multi-query attention and the formula here it is 9.35e20."
        )
    return tuple(said)


# -- for people --------------------------------------------------------------------------------------------------------


def told(found: Forecast) -> list[str]:
    """The forecast as lines of text."""
    lines = [f"Recipe {found.recipe} on {found.count} x {found.device} ({found.throughput})", ""]
    lines.append(f"{'arm':24}{'parameters':>15}{'tokens':>17}{'steps':>9}{'seeds':>7}{'FLOPs':>11}{'device hours':>14}")
    lines += [
        f"{arm.name:24}{arm.parameters:>15,}{arm.tokens:>17,}{arm.steps:>9,}{arm.seeds:>7}"
        f"{arm.flops * arm.seeds:>11.2e}{arm.hours * arm.seeds:>14,.2f}"
        for arm in found.arms
    ]
    lines += ["", f"Together: {found.flops:.3g} FLOPs, {found.device_hours:,.2f} device hours, {_time(found.days)}"]
    if found.price is not None:
        lines.append(f"Price: {found.price:,.2f}")
    if len(found.days_by_count) > 1:
        by_count = ", ".join(f"{n}: {_time(days)}" for n, days in found.days_by_count.items())
        lines.append(f"By number of devices: {by_count}")
    curve = ", ".join(f"{step:,}: {rate:.3g}" for step, rate in found.learning_rate)
    lines += [f"Learning rate of the base by step: {curve}", ""]
    lines.append("Smallest difference that would be found four times in five:")
    lines += [f"  {_detected(d)}" for d in found.detectable]
    for option in found.options:
        seen = "; ".join(_detected(d, short=True) for d in option.detectable)
        lines.append(f"  {option.change} (cost x {option.cost_factor:.3g}){': ' + seen if seen else ''}")
    return [*lines, "", *found.notes]


def _time(days: float) -> str:
    return (
        f"{days:,.1f} days"
        if days >= 1
        else f"{days * 24:.1f} hours"
        if days >= 1 / 24
        else f"{days * 1440:.1f} minutes"
    )


def _detected(d: Detectable, short: bool = False) -> str:
    amount = f"{d.value:.2%} of the base's" if d.unit == "share" else f"{100 * d.value:.1f} points"
    return f"{d.measure} {amount}" + ("" if short else f" ({d.basis})")
