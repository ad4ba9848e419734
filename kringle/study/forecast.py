"""What a study would cost and the smallest difference that it could detect, before anything is trained.

Cost is arithmetic: tokens times FLOPs per token over a throughput. On this machine the throughput is what a run in a
workspace measured; on a GPU it is published utilisation of a like model, with its source. Tokens are positions, as in
recipes, padding included, and their FLOPs are `ModelConfig.flops_per_token`, for what was measured as for what is
forecast. Evaluation is not counted. What could be detected is worked out in `kringle.study.detectable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

from kringle.errors import UserError
from kringle.settings import Arm, FilterSettings, Recipe
from kringle.study.controls import pairs
from kringle.study.detectable import Detectable, Size, detectable, suite_sizes
from kringle.study.plan import Options, resolve
from kringle.study.start import vocabulary_size

COUNTS = (1, 2, 4, 8, 16, 32, 64, 96)
SEEDS, SAMPLES = (3, 5, 10), 200  # that are offered; the paper's own samples of a problem
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


@dataclass(frozen=True)
class ArmCost:
    """One arm with one seed; `at_most` where its tokens, and so its cost, are an upper bound."""

    name: str
    parameters: int
    seeds: int
    tokens: int
    steps: int
    flops: float
    hours: float  # on all devices together, one after the other
    key_value_bytes_per_token: int
    at_most: bool


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
    controls: bool = False,
    init: Path | None = None,
) -> Forecast:
    """The CLI's `kringle forecast`. `gpu` None: this machine, as fast as the runs in the workspace `work` were; `price`
    is that of one device for an hour; `controls` and `init` are those of `kringle run`. `UserError` where a speed is
    not known."""
    recipe = resolve(Options(recipe=recipe_name, controls=controls, init=init))
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
    sizes = suite_sizes(recipe)
    now, options = detectable(recipe, sizes), _options(recipe, arms, sizes)
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
        detectable=now,
        options=options,
        notes=_notes(recipe, arms, sizes, [*now, *(d for option in options for d in option.detectable)], gpu),
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
        at_most=arm.training.budget == "epochs" and arm.filter != FilterSettings(),
    )


def _measured(work: Path | None) -> tuple[float, str]:
    """FLOP/s of as many trainings as this machine has room for at once, and how that is known.

    On a CPU a training has its threads, and the cores that these leave have room for others; on a GPU as many shared it
    as were run together. Trainings of older versions, which do not say all that this needs, are left out.
    """
    from kringle.engine import default_workers

    hint = "name one with --work after a first run, or a GPU with --gpu"
    if work is None or not (work / "stages").is_dir():
        raise UserError(
            "no workspace in which this machine's speed was measured", where=str(work or "--work"), hint=hint
        )
    found, older = [], 0
    for path in sorted((work / "stages").glob("train@*/manifest.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))["summary"]
        if not summary.get("steps"):  # an arm that was not run, or a checkpoint that is measured as it is
            continue
        if not {"flops_per_token", "threads", "together"} <= summary.keys():
            older += 1
            continue
        speed = summary["positions"] / summary["seconds"]
        side_by_side = summary["together"]
        if summary["device"] == "cpu":
            side_by_side = max(1, default_workers() // (summary["threads"] * summary["processes"]))
        found.append((speed * summary["flops_per_token"] * side_by_side, speed, side_by_side))
    if not found:
        what = "holds no training whose speed could be used"
        if older:
            what += f": {older} of an older version, which did not keep its FLOPs per token"
        raise UserError(what, where=str(work), hint=hint)
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


# -- what more would buy, and what else there is to say ----------------------------------------------------------------


def _options(recipe: Recipe, arms: tuple[ArmCost, ...], sizes: dict[str, Size]) -> tuple[Option, ...]:
    """More seeds, more items, more samples, more tokens; nothing where nothing is compared."""
    if not pairs(recipe.arms):
        return ()
    made = []
    trained = [arm for arm in recipe.arms if not arm.training.skip]
    for count in SEEDS:
        if trained and count > min(len(arm.training.seeds) for arm in trained):
            more = _with_seeds(recipe, count)
            new, old = (
                sum(cost.flops * len(arm.training.seeds) for arm, cost in zip(study.arms, arms, strict=True))
                for study in (more, recipe)
            )
            made.append(Option(f"{count} seeds", new / old, detectable(more, sizes)))
    made.append(Option("three times the held-out files, lines and problems", 1.0, detectable(recipe, sizes, 3.0)))
    if recipe.evaluation.samples < SAMPLES:
        sampled = replace(recipe, evaluation=replace(recipe.evaluation, samples=SAMPLES))
        made.append(Option(f"{SAMPLES} samples of each problem", 1.0, detectable(sampled, sizes)))
    made.append(Option("twice the tokens: larger differences, perhaps, by no known law; the same noise", 2.0, ()))
    return tuple(made)


def _with_seeds(recipe: Recipe, count: int) -> Recipe:
    """The recipe with at least so many seeds in every arm, the same in all; no arm loses any."""
    of_base = recipe.base.training.seeds
    fresh = [seed for seed in range(count + len(of_base)) if seed not in of_base]
    common = (*of_base, *fresh)[: max(count, len(of_base))]
    return replace(
        recipe,
        arms=tuple(
            replace(a, training=replace(a.training, seeds=tuple(dict.fromkeys((*common, *a.training.seeds)))))
            for a in recipe.arms
        ),
    )


def _notes(
    recipe: Recipe, arms: tuple[ArmCost, ...], sizes: dict[str, Size], seen: Sequence[Detectable], gpu: str | None
) -> tuple[str, ...]:
    said = ["Evaluation and data preparation are not counted."]
    if not pairs(recipe.arms):
        said.append(
            "The recipe has one arm, so nothing is compared and there is no difference to detect; --controls or a "
            "second ablation would be compared with it."
        )
    if bounded := [arm.name for arm in arms if arm.at_most]:
        said.append(
            f"Upper bounds (<=), of {', '.join(bounded)} and of the whole: with budget: epochs a filtered arm is "
            "trained on as large a share of the tokens as its filter keeps, which is known once there are data."
        )
    if any(d.by_margin for d in seen):
        said.append(
            "By the margin: the recipe calls such differences too small to matter, and those further inside the margin "
            "come out as no difference, the surer the less noise there is."
        )
    absent = [name for name in recipe.evaluation.suites if name not in sizes]
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
    lines.append(
        f"{'arm':24}{'parameters':>15}{'tokens':>19}{'steps':>10}{'seeds':>7}{'FLOPs':>11}{'device hours':>14}"
    )
    lines += [
        f"{arm.name:24}{arm.parameters:>15,}{('<= ' if arm.at_most else '') + format(arm.tokens, ','):>19}"
        f"{arm.steps:>10,}{arm.seeds:>7}{arm.flops * arm.seeds:>11.2e}{_hours(arm.hours * arm.seeds):>14}"
        for arm in found.arms
    ]
    bound = "at most " if any(arm.at_most for arm in found.arms) else ""
    hours, days = _hours(found.device_hours), _time(found.days)
    lines += ["", f"Together: {bound}{found.flops:.3g} FLOPs, {hours} device hours, {days}"]
    if found.price is not None:
        lines.append(f"Price: {bound}{found.price:,.2f}")
    if len(found.days_by_count) > 1:
        by_count = ", ".join(f"{n}: {_time(days)}" for n, days in found.days_by_count.items())
        lines.append(f"By number of devices: {by_count}")
    curve = ", ".join(f"{step:,}: {rate:.3g}" for step, rate in found.learning_rate)
    lines += [f"Learning rate of the base by step: {curve}", ""]
    if found.detectable:
        lines.append("Smallest difference that would be called better or worse four times in five:")
        lines += [f"  {_line(d)}" for d in found.detectable]
        for option in found.options:
            seen = _summary(option.detectable)
            lines.append(f"  {option.change} (cost x {option.cost_factor:.3g}){': ' + seen if seen else ''}")
        lines.append("")
    return [*lines, *found.notes]


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.1 or not hours else f"{hours:.1g}"


def _time(days: float) -> str:
    seconds = 86_400 * days
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds" if seconds >= 0.1 or not seconds else "under 0.1 seconds"


def _share(value: float, unit: str) -> str:
    return f"{value:.2%} of the base's" if unit == "share" else f"{100 * value:.1f} points"


def _amount(d: Detectable) -> str:
    if d.value is None:
        return "none"
    return _share(d.value, d.unit) + (", by the margin" if d.by_margin else "")


def _line(d: Detectable) -> str:
    if d.value is None:
        return f"{d.measure}: none: {d.basis}"
    margin = "" if d.margin is None else f"; margin {_share(d.margin, d.unit)}"
    return f"{d.measure} {_amount(d)} ({d.basis}{margin})"


def _summary(seen: Sequence[Detectable]) -> str:
    """All measures in one line, each followed by what it rests on where the next one rests on something else."""
    parts = []
    for basis, group in groupby(seen, key=lambda d: d.basis):
        shown = [f"{d.measure} {_amount(d)}" for d in group if d.value is not None]
        parts.append(f"{'; '.join(shown)} ({basis})" if shown else f"none: {basis}")
    return "; ".join(parts)
