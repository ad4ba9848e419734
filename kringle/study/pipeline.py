"""Running a study: every stage of the plan that is not up to date, then the report.

Public functions are what the commands call: `run_study` and `report_again`. Heavy libraries are imported by the
stages that need them, so a run with nothing to do ends within a few seconds.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kringle.engine import Engine, Part, PartDone, default_workers
from kringle.errors import UserError, unknown
from kringle.garbage import rare_collection
from kringle.progress import Reporter
from kringle.recipe import parse_recipe
from kringle.settings import Recipe
from kringle.study.arm import ArmJob
from kringle.study.controls import control_arms
from kringle.study.last_run import recall, remember
from kringle.study.licences import release_note, summary
from kringle.study.plan import (
    DATA_STAGES,
    SPLIT_SEED,
    STAGES,
    Options,
    Plan,
    Run,
    make_plan,
    near_dedup_settings,
    resolve,
)
from kringle.study.running import run_arm
from kringle.study.start import existing_tokenizer, usable_tokenizer
from kringle.workspace import ShardStore, Stage, Workspace, fingerprint, write_atomically

if TYPE_CHECKING:
    from kringle.data.survey import Survey
    from kringle.evaluation.suites import Suite
    from kringle.study.results import Results


@dataclass
class Context:
    """What the stages of one run share."""

    plan: Plan
    survey: Survey
    engine: Engine
    reporter: Reporter
    suites: Mapping[str, Path]
    computed: set[str]  # names of the stages that this run worked on


@rare_collection()  # a corpus has many files
def run_study(options: Options, *, quiet: bool = False) -> dict[str, Any]:
    """Bring a study up to date; returns where its report is and what was done. The CLI's `kringle run`."""
    from kringle.study.optout import require_finished

    started = time.monotonic()
    reporter = Reporter(quiet=quiet)
    recipe = without_opt_outs(resolve(options), options.work)
    part = _part(options)
    engine = _engine(options, part)
    survey, suites, outside = _look_around(recipe, options.work)
    workspace = Workspace.open(options.work)
    workspace.lock(part)
    require_finished(workspace.root)
    plan = make_plan(recipe, workspace, **outside)
    wanted = plan.until(options.until or (DATA_STAGES[-1] if part else None))
    if options.from_stage:
        _forget(wanted, options.from_stage)
    missing = [stage.name for _, stage in wanted if stage.manifest() is None]
    to_the_end = options.until in (None, "report") and part is None
    where = workspace.root / "report" / "report.html"
    result = {"work": str(workspace.root), "computed": missing, "report": str(where) if to_the_end else None}
    remember(workspace, options, plan, outside)
    if not missing:
        reporter.say(f"Nothing to do: all {len(wanted)} stages are up to date.")
        if to_the_end:
            _publish(workspace, plan)  # another study may have been run here in the meantime
            reporter.say(f"Report: {where}")
        return result
    if {"train", "evaluate"} & {kind for kind, stage in wanted if stage.name in missing}:
        _require_context(plan)
    for note in survey.notes:
        reporter.say(f"note: {note}")
    context = Context(plan, survey, engine, reporter, suites, set(missing))
    try:
        _run_stages(context, wanted, options)
    except PartDone as done:
        return {**result, **_left_to_others(context, wanted, done)}
    finally:
        engine.rest()
    if to_the_end:
        _publish(workspace, plan)
        _farewell(context, where, time.monotonic() - started)
    return result


def _part(options: Options) -> Part | None:
    """Which part of a job array this run is; refuses what only a whole run can do."""
    if options.part is None:
        return None
    part = Part.parse(options.part)
    if options.from_stage:
        raise UserError("would remove what other parts have done", where="--from", hint="leave it out beside --part")
    if options.until is not None and options.until not in DATA_STAGES:
        hint = f"run it without --part; parts go as far as {DATA_STAGES[-1]}"
        raise UserError(f"the stage '{options.until}' is not shared by parts", where="--part", hint=hint)
    return part


def _engine(options: Options, part: Part | None) -> Engine:
    if options.engine == "local":
        return Engine(options.workers, part)
    if options.engine == "ray":
        if part is not None:
            raise UserError("a Ray cluster shares the work itself", where="--part", hint="leave it out")
        from kringle.cluster import RayEngine

        return RayEngine(options.workers)
    raise unknown(options.engine, ("local", "ray"), "--engine", "engine")


def _left_to_others(context: Context, wanted: Sequence[tuple[str, Stage]], done: PartDone) -> dict[str, Any]:
    """What is told where a stage waits for the shards of other parts."""
    name = next(stage.name for _, stage in wanted if stage.manifest() is None)
    context.reporter.say(f"{name}: {done}. Once they are, run the same command again, or without --part.")
    return {"waits_for_parts": name, "shards": done.total, "mine": done.mine, "missing": done.missing}


def report_again(work: Path) -> Path:
    """Write the report of the workspace's last run again. The CLI's `kringle report`."""
    from kringle.study.assemble import write_report

    workspace = Workspace.open(work, create=False)
    workspace.lock()
    options, plan = recall(workspace)
    missing = [stage.name for kind, stage in plan.stages() if kind != "report" and stage.manifest() is None]
    if missing:
        hint = f"bring them up to date with {options.command()}"
        raise UserError(f"not up to date: {', '.join(missing[:3])}", where=str(workspace.root), hint=hint)
    shutil.rmtree(plan.report.folder, ignore_errors=True)
    plan.report.run(Engine(1), lambda out, shards: write_report(plan, set(), options, out))
    _publish(workspace, plan)
    return workspace.root / "report" / "report.html"


def report_difference(work: Path, before: Path) -> Path:
    """The last reports of two workspaces side by side, in `work/report-difference.html`. The CLI's `report --diff`."""
    from kringle.study.report import render_difference

    page = render_difference(_last_results(before), _last_results(work))
    path = work / "report-difference.html"
    write_atomically(path, page)
    return path


def _last_results(work: Path) -> Results:
    from kringle.study.results import Results

    path = work / "report" / "results.json"
    try:
        return Results.from_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        hint = "bring a study there to its end with kringle run"
        raise UserError(f"no report to compare ({error.strerror})", where=str(path), hint=hint) from None


def without_opt_outs(recipe: Recipe, work: Path) -> Recipe:
    """The recipe with what the workspace remembers as opted out (`kringle optout`) added to its own opt-outs."""
    from kringle.study.optout import remembered_rules

    rules = tuple(dict.fromkeys((*recipe.corpus.opt_out, *remembered_rules(work.expanduser().absolute()))))
    return replace(recipe, corpus=replace(recipe.corpus, opt_out=rules))


# -- stages ------------------------------------------------------------------------------------------------------------


def _look_around(recipe: Recipe, work: Path) -> tuple[Survey, dict[str, Path], dict[str, Any]]:
    """What the plan depends on outside the workspace: sources, suites, the jail's level and a tokenizer, with their
    fingerprints."""
    from kringle.data.contamination import benchmark_file, load_strings
    from kringle.data.redacted import require
    from kringle.data.survey import survey
    from kringle.evaluation.jail.levels import probe
    from kringle.evaluation.suites import load_suite, problems_file

    if recipe.clean.pii:
        require(recipe.fidelity)
    files = {name: path for name in recipe.clean.decontaminate if (path := benchmark_file(name)) is not None}
    names = sorted({*recipe.clean.decontaminate, *recipe.evaluation.suites} - files.keys())
    folder = recipe.evaluation.benchmarks
    suites = {name: load_suite(name, folder) for name in names}
    _require_programs([suites[name] for name in recipe.evaluation.suites])
    found = survey(recipe.corpus)
    hashes = {name: _suite_fingerprint(suite) for name, suite in suites.items()}
    hashes |= {name: fingerprint(load_strings([name], files, "faithful").used) for name in files}
    outside = {"sources": found.fingerprint, "suites": hashes, "jail": str(probe().level.name)}
    if recipe.tokenizer.folder is not None:
        outside["tokenizer_folder"] = usable_tokenizer(recipe.tokenizer.folder, work)
    return found, {name: problems_file(name, folder) for name in suites} | files, outside


def _require_programs(suites: Sequence[Suite]) -> None:
    """A study lets models write programs from left to right and runs them; say which suites ask for something else, or
    for too little to give an interval."""
    for suite in suites:
        instead = None
        if any(problem.suffix for problem in suite.problems):
            instead = "asks to fill in the middle of programs"
        elif suite.protocol.measure != "execution":
            instead = f"is measured by {suite.protocol.measure}"
        if instead is not None:
            raise UserError(
                f"{suite.name} {instead}, and a study runs what was written from left to right",
                where="evaluation.suites",
                hint=f"leave it out, and measure the models with kringle evaluate MODEL --suite {suite.name}",
            )
        if len(suite.problems) < 2:
            what = f"{suite.name} has a single problem, and an interval needs at least two"
            raise UserError(what, where="evaluation.suites", hint="leave it out, or add problems")


def _suite_fingerprint(suite: Suite) -> str:
    """Problems and rules: the same completions score differently under other stop strings or limits."""
    own_stops = {problem.task_id: problem.stop for problem in suite.problems if problem.stop}
    rules = [suite.stop, asdict(suite.limits), asdict(suite.protocol), *filter(None, [own_stops])]
    solutions = [problem.canonical_solution for problem in suite.problems]  # decontamination searches for them
    return fingerprint(suite.prompt_hash, rules, solutions)


def _run_stages(context: Context, wanted: Sequence[tuple[str, Stage]], options: Options) -> None:
    arms_done = memorised = False
    for kind, stage in wanted:
        if kind in ("train", "evaluate"):
            if not arms_done:
                context.engine.rest()  # training needs the memory
                _run_arms(context, "train" if options.until == "train" else "evaluate")
                if options.until == "train":  # else the report tells it
                    _tell_untrained(context)
                arms_done = True
        elif kind == "memorisation":
            if not memorised:
                _run_memorisation(context)
                memorised = True
        elif stage.manifest() is None:
            _run_stage(context, kind, stage, options)
        if kind == "split":
            _require_items(context.plan)


def _tell_untrained(context: Context) -> None:
    """Say which arms have no model, and why; UserError where none has one."""
    reasons = {run.train.name.removeprefix("train@"): summary(run.train).get("not_run") for run in context.plan.runs}
    for name, reason in reasons.items():
        if reason is not None:
            context.reporter.say(f"{name} has no model: {reason}")
    if None not in reasons.values():
        name, reason = next(iter(reasons.items()))
        raise UserError(f"no arm has a model: {reason}", where=name, hint="change the recipe, and run again")


def _require_items(plan: Plan) -> None:
    """Intervals and paired differences need at least two held-out files, to score and to hide lines of; say so before
    any model is trained."""
    from kringle.data.subsequence import Subsequence, split_ids
    from kringle.data.table import iter_row_groups
    from kringle.evaluation.infilling import PER_DOCUMENT
    from kringle.evaluation.kept import choose_documents

    chosen = Subsequence(split_ids(plan.split.folder, "held-out"))
    held_out: list[dict[str, Any]] = []
    for group in iter_row_groups(plan.clean.folder / "survivors.parquet", ["id", "repo", "size"]):
        held_out += group.take(chosen.rows(group["id"].to_pylist())).to_pylist()
    chosen.close()
    files = len(held_out)
    limit = plan.recipe.evaluation.held_out_bytes
    ids, repos, sizes = ([row[name] for row in held_out] for name in ("id", "repo", "size"))
    if files >= 2 and len(choose_documents(ids, repos, sizes, limit)) < 2:
        what = f"{limit:,} bytes leave only one held-out file to score, and an interval needs at least two"
        raise UserError(what, where="evaluation.held_out_bytes", hint="raise it")
    if files < 2:
        raise UserError(
            f"only {files} held-out file is left, and an interval needs at least two",
            where="evaluation.held_out",
            hint="add sources or hold out a larger share",
        )
    # Of so many lines and files even the four fifths that are left for measuring cannot be those of one file.
    enough = 2 * PER_DOCUMENT
    if min(plan.recipe.evaluation.infilling_lines, files) <= enough and _files_with_hidden_lines(plan, set(ids)) < 2:
        raise UserError(
            "fewer than two held-out files would have a line to fill in, and an interval needs at least two",
            where="evaluation.infilling_lines",
            hint="raise it, or hold out a larger share",
        )


def _files_with_hidden_lines(plan: Plan, held_out: set[str]) -> int:
    """Of how many held-out files a line is hidden."""
    from kringle.data.table import iter_documents
    from kringle.evaluation.prompt_choice import divide_tasks

    documents = iter_documents(plan.documents, ["id", "language", "content"])
    texts = [(d["id"], d["language"], d["content"]) for d in documents if d["id"] in held_out]
    measured, _ = divide_tasks(texts, plan.recipe.evaluation.infilling_lines)
    return len({task.document for task in measured})


def _require_context(plan: Plan) -> None:
    """Infilling needs room for a prompt beside the completion; say so before anything is trained."""
    from kringle.evaluation.kept import INFILLING_TOKENS
    from kringle.generation.fim import SENTINELS
    from kringle.training.batches import taught_positions

    for arm in plan.recipe.arms:
        untaught = arm.model.context - taught_positions(arm.model.context)
        least = INFILLING_TOKENS + SENTINELS + 1 + untaught
        if arm.model.context < least:
            raise UserError(
                f"a context of {arm.model.context} tokens leaves no room for a prompt beside an infilling of "
                f"{INFILLING_TOKENS} tokens",
                where=f"ablations.{arm.name}: model.context",
                hint=f"use at least {least}",
            )


def _run_stage(context: Context, kind: str, stage: Stage, options: Options) -> None:
    """Run one stage other than the arms' in this process."""
    plan, engine, reporter = context.plan, context.engine, context.reporter
    recipe = plan.recipe
    collected, documents = plan.collect.folder / "documents", plan.documents

    def build(out: Path, shards: ShardStore) -> dict[str, Any]:
        if kind == "collect":
            from kringle.data.collect import collect

            return collect(context.survey, recipe.corpus, out, shards, engine, reporter)
        if kind == "clean":
            from kringle.data.clean import clean

            settings, name = recipe.clean, recipe.name
            return clean(
                settings, collected, out, shards, engine, reporter, context.suites, recipe.fidelity, recipe=name
            )
        if kind == "split":
            from kringle.data.heldout import split

            share = recipe.evaluation.held_out
            survivors = plan.clean.folder / "survivors.parquet"
            return split(share, SPLIT_SEED, documents, survivors, out, shards, engine, reporter)
        if kind == "annotate":
            from kringle.data.signals import annotate

            survivors, sides = plan.clean.folder / "survivors.parquet", plan.split.folder / "split.parquet"
            asked = near_dedup_settings(recipe)
            return annotate(documents, survivors, sides, asked, recipe.fidelity, out, shards, engine, reporter)
        if kind == "tokenizer":
            from kringle.data.subsequence import split_ids
            from kringle.tokens.vocabulary import take_tokenizer, train_on_documents

            if (existing := existing_tokenizer(recipe)) is not None:
                return take_tokenizer(existing, out)
            # From the training documents alone: held-out files stay unseen by the tokenizer too.
            ids = split_ids(plan.split.folder, "train")
            size, spelling = recipe.tokenizer.vocab_size, recipe.tokenizer.specials
            return train_on_documents(documents, ids, size, out, shards, engine, reporter, spelling)
        if kind == "encode":
            from kringle.data.subsequence import split_ids
            from kringle.tokens.encode import encode

            ids = split_ids(plan.split.folder)
            return encode(documents, ids, plan.tokenizer.folder, out, shards, engine, reporter)
        if kind == "attribution":
            from kringle.attribution.building import index_documents
            from kringle.study.arm import split_of

            training = {id for id, part in split_of(plan.split.folder).items() if part == "train"}
            store = plan.encode.folder / "store"
            return index_documents(documents, training, plan.tokenizer.folder, store, out, engine, reporter)
        if kind == "score":
            from kringle.study.scoring import score_run

            (run,) = [run for run in plan.runs if run.score == stage]
            return score_run(run, recipe.evaluation, out, engine.workers, reporter)
        from kringle.study.assemble import write_report

        return write_report(plan, context.computed, options, out)

    manifest = stage.run(engine, build)
    for note in manifest["summary"].get("notes", ()):
        if note not in context.survey.notes:  # those were told before any work
            reporter.say(f"note: {note}")


def _run_arms(context: Context, until: str) -> None:
    """Train and measure all arms, as many side by side as there are cores, one thread each where cores are few."""
    plan = context.plan
    threads, together = share_cores(parse_recipe(plan.recipe.text), default_workers())
    if _on_gpu():
        together = 1  # each takes the first GPU, and would have it whole
    runs = [
        run for run in plan.runs
        if run.train.manifest() is None or (until == "evaluate" and run.evaluate.manifest() is None)
    ]  # fmt: skip
    if not runs:
        return
    engine = Engine(min(context.engine.workers, together))  # on this machine, whatever shares the data stages
    jobs = [make_job(plan, run, until, threads, min(engine.workers, len(runs))) for run in runs]
    jobs.sort(key=lambda job: -job.units)  # the longest first, so that no core waits for one that began late
    titles = [job.train.name.removeprefix("train@") for job in jobs]
    with context.reporter.tasks(titles, [job.units for job in jobs], unit="steps") as counters:

        def advance(index: int, amount: float) -> None:
            counters[index].advance(amount)

        for _ in engine.map(run_arm, jobs, names=[job.train.name for job in jobs], on_tick=advance):
            pass
    engine.rest()


def _on_gpu() -> bool:
    """Whether models are trained on a GPU here. PyTorch is asked where there may be one: to load it takes seconds."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def share_cores(written: Recipe, cores: int) -> tuple[int, int]:
    """Threads of each training, and how many trainings such threads leave room for at once.

    From the recipe as it is written, not from what is missing or asked for: the number of threads decides the order of
    additions in a product, so one arm alone must use as many as among all others to give the same bits. `--controls`
    adds arms to few that have several threads each, and these then wait for one another.
    """
    arms = (*written.arms, *(control_arms(written.arms, written.controls) if written.controls else ()))
    threads = max(1, cores // sum(len(arm.training.seeds) for arm in arms))
    return threads, max(1, cores // threads)


def make_job(plan: Plan, run: Run, until: str, threads: int, together: int = 1) -> ArmJob:
    """What a worker needs for one run, `together` of which share this machine."""
    return ArmJob(
        arm=run.arm,
        seed=run.seed,
        train=run.train,
        evaluate=run.evaluate,
        documents=plan.documents,
        split=plan.split.folder,
        annotate=plan.annotate.folder,
        tokenizer=plan.tokenizer.folder,
        encode=plan.encode.folder,
        evaluation=plan.recipe.evaluation,
        threads=threads,
        together=together,
        until=until,
        notice=release_note(plan.collect),
    )


def _run_memorisation(context: Context) -> None:
    """Look up what the runs wrote in the attribution index, as many runs side by side as there are workers."""
    from kringle.study.memorising import MemorisationJob, memorise

    plan = context.plan
    jobs = [
        MemorisationJob(
            stage=run.memorisation,
            evaluate=run.evaluate,
            attribution=plan.attribution,
            documents=plan.documents,
            split=plan.split.folder,
            tokenizer=plan.tokenizer.folder,
            store=plan.encode.folder / "store",
            evaluation=plan.recipe.evaluation,
        )
        for run in plan.runs
        if run.memorisation.manifest() is None
    ]
    with context.reporter.task("memorisation", len(jobs), unit="models") as counter:
        names = [job.stage.name for job in jobs]
        engine = Engine(context.engine.workers)
        for _ in engine.map(memorise, jobs, names=names, on_tick=lambda _, amount: counter.advance(amount)):
            pass
        engine.rest()


def _forget(wanted: Sequence[tuple[str, Stage]], first: str) -> None:
    """Remove what was published of this stage and of the later ones among `wanted`, so that they run again."""
    for kind, stage in wanted:
        if STAGES.index(kind) >= STAGES.index(first):
            shutil.rmtree(stage.folder, ignore_errors=True)
            shutil.rmtree(stage.partial, ignore_errors=True)
            shutil.rmtree(stage.root / "shards" / kind, ignore_errors=True)


# -- what a run leaves -------------------------------------------------------------------------------------------------


def _publish(workspace: Workspace, plan: Plan) -> None:
    """Put report and models where people look for them: `report/` and `models/ARM-sSEED/` in the workspace."""
    _link(plan.report.folder, workspace.root / "report")
    models = workspace.root / "models"
    models.mkdir(exist_ok=True)
    for run in plan.runs:
        if (run.train.folder / "model").is_dir():
            _link(run.train.folder / "model", models / run.name)
        else:  # of an arm that is not run now there may be an older model
            (models / run.name).unlink(missing_ok=True)


def _link(target: Path, name: Path) -> None:
    """Make `name` a relative symbolic link to `target`, replacing an older one at once."""
    relative = Path(os.path.relpath(target, name.parent))
    if name.is_symlink() and name.readlink() == relative:
        return
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(relative)
    temporary.replace(name)


def _farewell(context: Context, where: Path, seconds: float) -> None:
    from kringle.study.results import Results

    results = Results.from_json((where.parent / "results.json").read_text(encoding="utf-8"))
    say: Callable[[str], None] = context.reporter.say
    say("")
    for finding in results.findings:
        say(finding)
    say("")
    say(f"Done in {seconds:,.0f} s. Report: {where}")
    loadable = all(run.arm.model.positions == "learned" for run in context.plan.runs)
    say(f"Models: {where.parent.parent / 'models'}" + (", each loadable by transformers" if loadable else ""))
    say("Next: open the report, ask `kringle why FILE` about a file, or train on your own code with --source DIR")
