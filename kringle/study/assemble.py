"""From the published stages of a plan to the results of a study, and to its report.

Everything comes from manifests and files of the workspace, so the report can be written again at any time; nothing is
measured here.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kringle import __version__
from kringle.machine import machine, versions
from kringle.recipe import Arm as RecipeArm
from kringle.recipe import Recipe
from kringle.study import canary, report
from kringle.study.arm import split_of
from kringle.study.examples import examples
from kringle.study.findings import findings, limitations
from kringle.study.judgements import Measurements, bits_per_byte, compare_arms, infilling, suite_result
from kringle.study.licences import release_note, summary
from kringle.study.plan import Options, Plan, Run
from kringle.study.results import (
    Arm,
    Command,
    Corpus,
    Dropped,
    FunnelStep,
    HeldOut,
    LossPoint,
    RecipeText,
    Results,
    Section,
    Share,
    Stage,
    TokenizerResult,
    Training,
)
from kringle.workspace import Stage as WorkspaceStage
from kringle.workspace import fingerprint

CURVE_POINTS = 256  # of the loss curve that are kept in the report


def write_report(plan: Plan, computed: set[str], options: Options, out: Path) -> dict[str, Any]:
    """Write the report into `out`; `computed` names the stages that this run worked on."""
    results = assemble(plan, computed, options)
    report.write(results, out)
    return {"findings": list(results.findings)}


def assemble(plan: Plan, computed: set[str], options: Options) -> Results:
    """The results of a study whose stages are all published, the report's own aside."""
    recipe = plan.recipe
    measured = {run.name: _measurements(run) for run in plan.runs}
    by_arm: dict[str, dict[int, Measurements]] = {}
    for run in plan.runs:
        by_arm.setdefault(run.arm.name, {})[run.seed] = measured[run.name]
    arms = tuple(_arm(run, recipe, measured[run.name], options) for run in plan.runs)
    comparisons = compare_arms(by_arm, recipe.base.name, recipe.evaluation.margins, recipe.evaluation.suites)
    collected = summary(plan.collect)
    return Results(
        study=recipe.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command_line=options.command(),
        kringle_version=__version__,
        fidelity=recipe.fidelity,
        release_note=release_note(plan.collect),
        findings=findings(arms, comparisons),
        limitations=limitations(arms, comparisons, _cut_prompts(plan)),
        machine=machine(),
        versions=versions(),
        recipe=RecipeText(recipe.name, fingerprint(recipe.text), recipe.text),
        corpus=_corpus(collected, plan),
        funnel=(*_funnel_steps(plan), _training_pool(plan)),
        held_out=_held_out(plan),
        tokenizer=_tokenizer(plan),
        arms=arms,
        comparisons=tuple(comparisons),
        examples=examples(plan.runs, measured, recipe.evaluation.benchmarks),
        stages=tuple(_stage(kind, stage, computed, options) for kind, stage in plan.stages() if kind != "report"),
        commands=_commands(options),
        canary=canary.read(options.work),
    )


# -- arms --------------------------------------------------------------------------------------------------------------


def _cut_prompts(plan: Plan) -> dict[str, int]:
    """By suite: the largest number of problems, over the runs, whose prompt lost its beginning."""
    cut: dict[str, int] = {}
    for run in plan.runs:
        for name, scored in summary(run.score).items():
            cut[name] = max(cut.get(name, 0), scored["truncated"] // scored["samples"])
    return cut


def _measurements(run: Run) -> Measurements:
    prompt = summary(run.evaluate)["prompt"]
    return Measurements.read(run.evaluate.folder, run.score.folder, prompt, summary(run.score))


def _arm(run: Run, recipe: Recipe, measured: Measurements, options: Options) -> Arm:
    scored = summary(run.score)
    return Arm(
        name=run.arm.name,
        summary=describe(run.arm, recipe),
        changes=_flat(run.arm.difference),
        is_base=run.arm is recipe.base,
        seed=run.seed,
        command=_with(options, f"--only {run.arm.name}"),
        training=_training(run),
        bits_per_byte=bits_per_byte(measured.bits),
        infilling=infilling(measured.lines, measured.prompt),
        suites=tuple(suite_result(name, scored[name], measured.verdicts.get(name)) for name in scored),
    )


def _training(run: Run) -> Training:
    trained = summary(run.train)
    return Training(
        parameters=trained["parameters"],
        tokens=trained["tokens"],
        unique_tokens=trained["unique_tokens"],
        epochs=trained["epochs"],
        steps=trained["steps"],
        seconds=trained["seconds"],
        tokens_per_second=trained["tokens_per_second"],
        curve=_curve(run.train.folder / "log.jsonl"),
    )


def _curve(log: Path) -> tuple[LossPoint, ...]:
    """The logged losses, averaged over equal stretches of steps where there are more than `CURVE_POINTS`."""
    with log.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    stretches = np.array_split(np.arange(len(rows)), min(CURVE_POINTS, len(rows)))
    return tuple(
        LossPoint(
            step=rows[part[-1]]["step"],
            tokens=rows[part[-1]]["tokens"],
            loss=float(np.mean([rows[i]["loss"] for i in part])),
        )
        for part in stretches
    )


def describe(arm: RecipeArm, recipe: Recipe) -> str:
    """What an arm is, in words; the base is described by what it has, every other arm by what it changes."""
    if arm is recipe.base:
        attention = {"mqa": "multi-query", "mha": "multi-head"}[arm.model.attention]
        return f"The base: {attention} attention, {arm.training.fim.rate:.0%} of the pieces rearranged for infilling"
    changes = _flat(arm.difference)
    words = []
    for key in list(changes):
        if key == "model.attention":
            words.append({"mqa": "multi-query attention", "mha": "multi-head attention"}[changes.pop(key)])
        elif key == "training.fim.rate" and arm.training.fim.rate == 0:
            words.append("left-to-right training only")
            changes.pop(key)
    if (comments := arm.filter.comments) is not None:
        words.append(f"only files whose comment-to-code ratio is above {comments.above:g} and below {comments.below:g}")
        changes = {key: value for key, value in changes.items() if not key.startswith("filter.comments")}
    text = "; ".join(words + [f"{key} = {value}" for key, value in changes.items()])
    return text[:1].upper() + text[1:]


def _flat(difference: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"training": {"fim": {"rate": 0}}}` -> `{"training.fim.rate": "0"}`."""
    flat: dict[str, str] = {}
    for key, value in difference.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


# -- data --------------------------------------------------------------------------------------------------------------


def _corpus(collected: Mapping[str, Any], plan: Plan) -> Corpus:
    notes = [*collected["notes"], *summary(plan.clean)["notes"], *summary(plan.split)["notes"]]
    return Corpus(
        fingerprint=collected["fingerprint"],
        notes=tuple(notes),
        sources=_shares(collected["sources"]),
        languages=_shares(collected["languages"]),
        licenses=_shares(collected["licenses"]),
        languages_without_data=tuple(collected["languages_without_data"]),
    )


def _shares(rows: Sequence[Mapping[str, Any]]) -> tuple[Share, ...]:
    return tuple(Share(row["name"], row["files"], row["bytes"]) for row in rows)


def _funnel_steps(plan: Plan) -> list[FunnelStep]:
    steps = [step for stage in (plan.collect, plan.clean, plan.split) for step in summary(stage)["funnel"]]
    return [_funnel_step(step) for step in steps]


def _funnel_step(step: Mapping[str, Any]) -> FunnelStep:
    dropped = tuple(Dropped(row["reason"], row["files"], row["bytes"]) for row in step["dropped"])
    return FunnelStep(step["name"], step["files"], step["bytes"], step.get("tokens"), dropped)


def _training_pool(plan: Plan) -> FunnelStep:
    """What all arms choose from, in tokens as well."""
    from kringle.tokens.store import TokenStore

    store = TokenStore.open(plan.encode.folder / "store")
    split = split_of(plan.split.folder)
    train = np.array([split[name] == "train" for name in store.ids])
    lengths = np.diff(store.offsets)
    held_out = Dropped("held out for evaluation", int((~train).sum()), int(store.sizes[~train].sum()))
    return FunnelStep(
        "training pool", int(train.sum()), int(store.sizes[train].sum()), int(lengths[train].sum()), (held_out,)
    )


def _held_out(plan: Plan) -> HeldOut:
    said = summary(plan.split)
    return HeldOut(
        split_by=said["split_by"],
        files=said["held_out"]["files"],
        bytes=said["held_out"]["bytes"],
        exact_copies_dropped=said["exact_copies_dropped"],
        near_copies_dropped=said["near_copies_dropped"],
    )


def _tokenizer(plan: Plan) -> TokenizerResult:
    from kringle.model.transformer import padded_vocabulary
    from kringle.tokens.store import TokenStore

    store = TokenStore.open(plan.encode.folder / "store")
    lengths = np.diff(store.offsets)
    languages = np.array(store.languages)
    rates = {
        str(name): float(store.sizes[languages == name].sum() / max(1, lengths[languages == name].sum()))
        for name in np.unique(languages)
    }
    size = padded_vocabulary(summary(plan.tokenizer)["vocab_size"])
    return TokenizerResult(plan.tokenizer.fingerprint, size, rates)


# -- provenance --------------------------------------------------------------------------------------------------------


def _with(options: Options, more: str) -> str:
    return f"{options.command()} {more}"


def _stage(kind: str, stage: WorkspaceStage, computed: set[str], options: Options) -> Stage:
    manifest = stage.manifest()
    assert manifest is not None
    cost = manifest["cost"]
    return Stage(
        name=stage.name.replace("@", " "),
        wall_seconds=cost["wall_seconds"],
        cpu_seconds=cost["cpu_seconds"],
        peak_memory_bytes=cost["peak_memory"],
        cached=stage.name not in computed,
        command=_with(options, f"--from {kind} --until {kind}"),
    )


def _commands(options: Options) -> tuple[Command, ...]:
    """The command behind each section; a rerun in another workspace computes everything again."""
    rows: list[tuple[Section, str, str]] = [
        ("study", "this whole report", options.command()),
        ("corpus", "the collected files and their licences", _with(options, "--from collect --until collect")),
        (
            "funnel",
            "the data funnel; the story of one file: kringle why FILE",
            _with(options, "--from clean --until split"),
        ),
        ("held-out", "the held-out files", _with(options, "--from split --until split")),
        ("tokenizer", "the tokenizer", _with(options, "--from tokenizer --until tokenizer")),
        ("training", "the models and their loss curves", _with(options, "--from train --until train")),
        ("bits-per-byte", "bits per byte and its baselines", _with(options, "--from evaluate --until evaluate")),
        ("infilling", "infilling by exact match", _with(options, "--from evaluate --until evaluate")),
        ("examples", "the completions", _with(options, "--from evaluate --until evaluate")),
        ("left-to-right", "the verdicts behind pass@k", _with(options, "--from score --until score")),
        ("comparisons", "differences and verdicts", shlex.join(["kringle", "report", "--work", str(options.work)])),
    ]
    return tuple(Command(section, makes, command) for section, makes, command in rows)
