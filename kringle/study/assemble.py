"""From the published stages of a plan to the results of a study, and to its report.

Everything comes from manifests and files of the workspace, so the report can be written again at any time; nothing is
measured here.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kringle import __version__
from kringle.machine import machine
from kringle.model.shape import model_name
from kringle.settings import Arm as RecipeArm
from kringle.settings import Recipe, plain
from kringle.study import canary, memorisation, report, seeds
from kringle.study.arm import split_of
from kringle.study.controls import check_controls, pairs, refuse
from kringle.study.describe import describe, flat
from kringle.study.examples import examples
from kringle.study.filtering import filtering
from kringle.study.findings import findings, limitations
from kringle.study.judgements import (
    Measurements,
    bits_per_byte,
    compare_arms,
    infilling,
    mean_bits_per_byte,
    mean_infilling,
    mean_suite_result,
    prompt_format,
    seed_variances,
    suite_result,
)
from kringle.study.licences import release_note, summary
from kringle.study.overlap import overlaps
from kringle.study.plan import Options, Plan, Run
from kringle.study.problems import problem_map
from kringle.study.results import (
    Arm,
    Command,
    Corpus,
    Dropped,
    FunnelStep,
    HeldOut,
    HeldOutPoint,
    LossPoint,
    RecipeText,
    Results,
    Section,
    Share,
    Stage,
    TokenizerResult,
    Training,
)
from kringle.study.verdicts import SeedVariance
from kringle.workspace import Stage as WorkspaceStage
from kringle.workspace import fingerprint

CURVE_POINTS = 256  # of the loss curve that are kept in the report


def write_report(plan: Plan, computed: set[str], options: Options, out: Path) -> dict[str, Any]:
    """Write the report into `out`; `computed` names the stages that this run worked on."""
    results = assemble(plan, computed, options)
    report.write(results, out)
    seeds.write(plan.recipe, _seed_variances(plan), out / seeds.FILE)
    return {"findings": list(results.findings)}


def _seed_variances(plan: Plan) -> dict[str, SeedVariance]:
    by_arm: dict[str, dict[int, Measurements]] = {}
    for run in plan.runs:
        ran = summary(run.train).get("not_run") is None
        if ran and run.arm.name not in (*_other_seeds(plan.recipe), *_untrained(plan.recipe)):
            by_arm.setdefault(run.arm.name, {})[run.seed] = _measurements(run)
    return seed_variances(by_arm, plan.recipe.evaluation.margins, plan.recipe.evaluation.suites)


def _other_seeds(recipe: Recipe) -> list[str]:
    """The arms that have seeds of their own."""
    return [arm.name for arm in recipe.arms if arm.control is not None and arm.control.kind == "seed"]


def _untrained(recipe: Recipe) -> list[str]:
    """The arms that no seed changes: checkpoints that are measured as they are."""
    return [arm.name for arm in recipe.arms if arm.training.skip]


def assemble(plan: Plan, computed: set[str], options: Options) -> Results:
    """The results of a study whose stages are all published, the report's own aside."""
    recipe = plan.recipe
    done = [run for run in plan.runs if summary(run.train).get("not_run") is None]
    measured = {run.name: _measurements(run) for run in done}
    by_arm: dict[str, dict[int, Measurements]] = {}
    for run in done:
        by_arm.setdefault(run.arm.name, {})[run.seed] = measured[run.name]
    broken: dict[str, list[int]] = {}
    for run in plan.runs:
        if run not in done and run.arm.name in by_arm:
            broken.setdefault(run.arm.name, []).append(run.seed)
    arms = tuple(_arm(run, recipe, measured.get(run.name), options) for run in plan.runs)
    asked = [(arm, beside) for arm, beside in pairs(recipe.arms) if arm in by_arm and beside in by_arm]
    before = compare_arms(
        by_arm,
        [(arm, beside) for arm, beside in asked if set(by_arm[arm]) & set(by_arm[beside])],  # some runs broke off
        recipe.evaluation.margins,
        recipe.evaluation.suites,
        unpaired=_other_seeds(recipe),
        untrained=_untrained(recipe),
        broken=broken,
        stored=seeds.load(recipe.seed_variance, recipe) if recipe.seed_variance else seeds.shipped(recipe),
    )
    controls = check_controls(recipe.arms, before)
    comparisons = refuse(before, controls)
    collected = summary(plan.collect)
    memorised, copies = memorisation.read(done)
    return Results(
        study=recipe.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command_line=options.command(),
        kringle_version=__version__,
        fidelity=recipe.fidelity,
        release_note=release_note(plan.collect),
        findings=findings(arms, comparisons, controls),
        limitations=limitations(arms, comparisons, _cut_prompts(plan), controls, how_it_was_run(plan, done, options)),
        machine=machine(),
        versions=_versions(plan),
        recipe=RecipeText(recipe.name, fingerprint(recipe.text), recipe.text),
        corpus=_corpus(collected, plan),
        funnel=(*_funnel_steps(plan), _training_pool(plan)),
        held_out=_held_out(plan),
        tokenizer=_tokenizer(plan),
        arms=arms,
        comparisons=comparisons,
        controls=controls,
        problems=problem_map(done, measured),
        overlaps=overlaps(done),
        filtering=filtering(plan),
        means=_means(arms, by_arm),
        examples=examples(done, measured, recipe.evaluation.benchmarks),
        stages=tuple(_stage(kind, stage, computed, options) for kind, stage in plan.stages() if kind != "report"),
        commands=_commands(options),
        canary=canary.read(options.work),
        memorisation=memorised,
        memorised=copies,
    )


def _versions(plan: Plan) -> dict[str, str]:
    """What every stage ran with, an earlier run's stages included; where stages differ, all versions."""
    found: dict[str, set[str]] = {}
    for _, stage in plan.stages():
        for name, version in (stage.manifest() or {}).get("versions", {}).items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}


def how_it_was_run(plan: Plan, done: Sequence[Run], options: Options) -> list[str]:
    """Sentences on margins that were not those of the trainings, and on arms that were left out."""
    said = []
    now = plain(plan.recipe.evaluation.margins)
    changed = {
        f"{key} {then[key]:g}, now {now[key]:g}"
        for run in done
        for then in [summary(run.train)["margins"]]
        for key in now
        if then[key] != now[key]
    }
    if changed:
        said.append(
            f"Margins were changed after training ({'; '.join(sorted(changed))}): what is called 'no difference' here "
            "is judged by margins that were not fixed beforehand."
        )
    if options.only is not None:
        said.append(
            f"Only {', '.join(options.only)} of the recipe's arms are in this report (--only), and verdicts are "
            "corrected for the number of these comparisons alone."
        )
    return said


# -- arms --------------------------------------------------------------------------------------------------------------


def _cut_prompts(plan: Plan) -> dict[str, int]:
    """By suite: the largest number of problems, over the runs, whose prompt lost its beginning."""
    cut: dict[str, int] = {}
    for run in plan.runs:
        for name, scored in summary(run.score).items():  # nothing where the arm was not run
            cut[name] = max(cut.get(name, 0), scored["truncated"] // scored["samples"])
    return cut


def _measurements(run: Run) -> Measurements:
    prompt = prompt_format(summary(run.evaluate))
    return Measurements.read(run.evaluate.folder, run.score.folder, prompt, summary(run.score))


def _arm(run: Run, recipe: Recipe, measured: Measurements | None, options: Options) -> Arm:
    scored = summary(run.score)
    if measured is None:
        return Arm(
            name=run.arm.name,
            summary=describe(run.arm, recipe),
            changes=flat(run.arm.difference),
            is_base=run.arm is recipe.base,
            seed=run.seed,
            command=command_of(run.arm, options),
            training=None,
            bits_per_byte=None,
            infilling=None,
            suites=(),
            not_run=summary(run.train)["not_run"],
        )
    return Arm(
        name=run.arm.name,
        summary=describe(run.arm, recipe),
        changes=flat(run.arm.difference),
        is_base=run.arm is recipe.base,
        seed=run.seed,
        command=command_of(run.arm, options),
        training=_training(run),
        bits_per_byte=bits_per_byte(measured.bits),
        infilling=infilling(measured.lines, measured.prompt),
        suites=tuple(suite_result(name, scored[name], measured.verdicts.get(name)) for name in scored),
    )


def command_of(arm: RecipeArm, options: Options) -> str:
    """The command that makes an arm; a control is made together with the arm that it belongs to."""
    return _with(options, f"--only {arm.control.of if arm.control else arm.name}")


def _means(arms: Sequence[Arm], by_arm: Mapping[str, Mapping[int, Measurements]]) -> tuple[Arm, ...]:
    """Every arm once, its measures averaged over its seeds; nothing where each has one seed."""
    if all(len(seeds) == 1 for seeds in by_arm.values()):
        return ()
    found = []
    for name in dict.fromkeys(arm.name for arm in arms):
        every = [arm for arm in arms if arm.name == name]
        own = [arm for arm in every if arm.seed in by_arm.get(name, {})]  # a run that broke off has no measures
        measured = [by_arm[name][arm.seed] for arm in own]
        if len(measured) < 2:
            found.append((own or every)[0])
            continue
        suites = []
        for index, suite in enumerate(own[0].suites):
            results = [arm.suites[index] for arm in own]
            ran = all(result.pass_at for result in results)
            verdicts = [m.verdicts[suite.suite] for m in measured] if ran else []
            suites.append(mean_suite_result(results, verdicts) if ran else suite)
        prompts = "; ".join(dict.fromkeys(m.prompt for m in measured))
        found.append(
            replace(
                own[0],
                bits_per_byte=mean_bits_per_byte([m.bits for m in measured]),
                infilling=mean_infilling([m.lines for m in measured], prompts),
                suites=tuple(suites),
            )
        )
    return tuple(found)


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
        held_out_curve=_held_out_curve(run.train.folder / "measures.jsonl", run.arm.training.batch_tokens),
        key_value_bytes=_key_value_bytes(run.arm),
        init=model_name(run.arm.model.init) if run.arm.model.init else None,
    )


def _held_out_curve(measures: Path, batch_tokens: int) -> tuple[HeldOutPoint, ...]:
    """Bits per byte on the way, where the recipe asked for measurements; tokens are positions here."""
    if not measures.exists():
        return ()
    rows = [json.loads(line) for line in measures.read_text(encoding="utf-8").splitlines()]
    return tuple(HeldOutPoint(row["step"], row["step"] * batch_tokens, row["bits_per_byte"]) for row in rows)


def _key_value_bytes(arm: RecipeArm) -> int:
    """Two values of 16 bits for each layer and key-value head dimension (`ModelConfig.key_value_bytes_per_token`)."""
    shape = arm.model
    heads = 1 if shape.attention == "mqa" else shape.heads
    return shape.layers * 2 * heads * (shape.width // shape.heads) * 2


def _curve(log: Path) -> tuple[LossPoint, ...]:
    """The logged losses, averaged over equal stretches of steps where there are more than `CURVE_POINTS`."""
    with log.open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["loss"] is not None]
    if not rows:
        return ()
    stretches = np.array_split(np.arange(len(rows)), min(CURVE_POINTS, len(rows)))
    return tuple(
        LossPoint(
            step=rows[part[-1]]["step"],
            tokens=rows[part[-1]]["tokens"],
            loss=float(np.mean([rows[i]["loss"] for i in part])),
        )
        for part in stretches
    )


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
        too_short_dropped=said["too_short_dropped"],
        exact_copies_folded=said["exact_copies_folded"],
        grams_seen_in_training=said["grams_seen_in_training"],
    )


def _tokenizer(plan: Plan) -> TokenizerResult:
    from kringle.model.shape import padded_vocabulary
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
        (
            "memorisation",
            "what of the completions stands in the training data; any text: kringle attribution FILE",
            _with(options, "--from memorisation --until memorisation"),
        ),
        ("comparisons", "differences and verdicts", shlex.join(["kringle", "report", "--work", str(options.work)])),
    ]
    return tuple(Command(section, makes, command) for section, makes, command in rows)
