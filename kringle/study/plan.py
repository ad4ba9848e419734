"""The plan of a study: every stage with its fingerprint, worked out before anything is run.

A stage's fingerprint covers its settings, the stages that it reads and the code that it runs, so the plan alone tells
what is up to date: a second run of the same study compares names and starts nothing. Arms differ only in the stages
that depend on their difference.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kringle.errors import UserError, unknown
from kringle.recipe import load_recipe, parse_recipe
from kringle.settings import Arm, ControlSettings, NearDedupSettings, Recipe, Source, plain, source_of
from kringle.study import seeds
from kringle.study.controls import control_arms
from kringle.study.start import existing_tokenizer, model_settings, tokenizer_settings, with_start
from kringle.workspace import Stage, Workspace, fingerprint

STAGES = (
    "collect",
    "clean",
    "split",
    "annotate",
    "tokenizer",
    "encode",
    "attribution",
    "train",
    "evaluate",
    "score",
    "memorisation",
    "report",
)
ONCE = STAGES[: STAGES.index("train")]  # for all arms together
DATA_STAGES = STAGES[: STAGES.index("attribution")]  # what the machines of a job array can share
OF_RUNS = STAGES[STAGES.index("train") : STAGES.index("report")]  # for each arm and seed
SPLIT_SEED = 0  # which repositories are held out; the same for every arm and every training seed
# The programs inside the jail are run by their paths and imported by nobody.
SCORING = ("study.scoring", "evaluation.jail")


@dataclass(frozen=True)
class Options:
    """What the user asked for on the command line, beside the recipe."""

    recipe: str = "laptop"
    work: Path = Path("kringle-work")
    sources: tuple[str | Path, ...] = ()
    from_stage: str | None = None
    until: str | None = None
    only: tuple[str, ...] | None = None
    allow_licenses: tuple[str, ...] = ()
    controls: bool = False
    stars: Path | None = None
    workers: int | None = None
    part: str | None = None
    engine: str = "local"
    init: Path | None = None

    def command(self) -> str:
        """The command line that asks for this."""
        parts = ["kringle", "run", *([self.recipe] if self.recipe != "laptop" else [])]
        parts += ["--work", str(self.work)] if self.work != Path("kringle-work") else []
        parts += [part for path in self.sources for part in ("--source", str(path))]
        parts += ["--stars", str(self.stars)] if self.stars else []
        parts += ["--only", ",".join(self.only)] if self.only else []
        parts += ["--init", str(self.init)] if self.init else []
        parts += [part for name in self.allow_licenses for part in ("--allow-license", name)]
        parts += ["--controls"] if self.controls else []
        return shlex.join(parts)


def resolve(options: Options, text: str | None = None) -> Recipe:
    """The recipe with the command line's options laid over it; `text` stands in for the recipe's file.

    `--source` names the user's own code where it is a folder, an archive or a repository, so it lifts the licence
    filter then: what may be trained on is theirs to say. Tables and packages are other people's.
    """
    recipe = parse_recipe(text, where=f"recipe {options.recipe}") if text is not None else load_recipe(options.recipe)
    corpus = recipe.corpus
    if options.sources:
        sources = tuple(_own_source(str(source)) for source in options.sources)
        own = all(source.kind in ("folder", "git") for source in sources)
        corpus = replace(corpus, sources=sources, licenses="any" if own else corpus.licenses)
    if options.stars is not None:
        corpus = replace(corpus, stars=options.stars.expanduser())
    if options.allow_licenses:
        corpus = replace(corpus, allow_licenses=(*corpus.allow_licenses, *options.allow_licenses))
    arms = recipe.arms
    if options.only is not None:
        known = [arm.name for arm in arms]
        if not options.only:
            raise UserError("names no ablation", where="--only", hint=f"known: {', '.join(known)}")
        for name in options.only:
            if name not in known:
                raise unknown(name, known, "--only", "ablation")
        arms = tuple(arm for arm in arms if arm is recipe.base or arm.name in options.only)
    for where, stage in (("--from", options.from_stage), ("--until", options.until)):
        if stage is not None and stage not in STAGES:
            raise unknown(stage, STAGES, where, "stage")
    first, last = options.from_stage, options.until
    if first and last and STAGES.index(first) > STAGES.index(last):
        raise UserError(f"'{first}' comes after the last stage, '{last}'", where="--from", hint="leave one of them out")
    recipe = with_start(replace(recipe, corpus=corpus, arms=arms), options.init)
    settings = recipe.controls or (ControlSettings() if options.controls else None)
    if settings is not None:
        recipe = replace(recipe, arms=(*recipe.arms, *control_arms(recipe.arms, settings)))
    return recipe


def _own_source(text: str) -> Source:
    """What `--source` names: `KIND:WHERE`, or a path or URL whose kind shows.

    A URL, a table and a folder of tables (README, licence and hidden files aside) are a `stack`; a bare repository is
    read through git; any other folder, with or without repositories in it, as files, and so is an archive.
    """
    if not text.strip():
        raise UserError(
            "is empty", where="--source", hint="name a folder, a file or KIND:WHERE; . is the current folder"
        )
    from kringle.data.sources.stack import is_table, is_url

    kind, colon, rest = text.partition(":")
    if colon and rest and kind in ("folder", "git", "stack", "packages", "debian") and not is_url(text):
        return source_of(kind, rest)  # type: ignore[arg-type]  # checked in the line before
    if is_url(text) or is_table(text):
        return source_of("stack", text)
    path = Path(text).expanduser()
    try:
        bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
        tables = not bare and path.is_dir() and _holds_tables_alone(path, is_table)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions") from None
    if tables:
        return source_of("stack", str(path))
    return Source("git" if bare else "folder", path)


def _holds_tables_alone(folder: Path, is_table: Callable[[str], bool]) -> bool:
    """Whether the files below a folder are tables; ends at the first that is something else."""
    found = False
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.upper().startswith(("README", "LICENSE", "LICENCE")):
                continue
            if not is_table(str(Path(place, name))):
                return False
            found = True
    return found


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: Arm
    seed: int
    train: Stage
    evaluate: Stage
    score: Stage
    memorisation: Stage

    @property
    def name(self) -> str:
        return f"{self.arm.name}-s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All stages of a study in the order in which they run."""

    recipe: Recipe
    collect: Stage
    clean: Stage
    split: Stage
    annotate: Stage
    tokenizer: Stage
    encode: Stage
    attribution: Stage
    runs: tuple[Run, ...]
    report: Stage

    @property
    def documents(self) -> Path:
        """What the stages after `clean` read: its redacted documents, where the recipe asks for them."""
        return (self.clean if self.recipe.clean.pii else self.collect).folder / "documents"

    def as_published(self, fingerprints: Mapping[str, str]) -> Plan:
        """This plan with the stages that an earlier run published under these fingerprints, by name."""

        def then(stage: Stage) -> Stage:
            return replace(stage, fingerprint=fingerprints.get(stage.name, stage.fingerprint))

        runs = [
            replace(
                run,
                train=then(run.train),
                evaluate=then(run.evaluate),
                score=then(run.score),
                memorisation=then(run.memorisation),
            )
            for run in self.runs
        ]
        # The report is about those stages, so its fingerprint follows from theirs: one that a newer version wrote about
        # an older version's results must not pass for the report of a new run.
        read = {stage.name: stage.fingerprint for run in runs for stage in (run.score, run.memorisation)}
        report = self.report
        report = replace(report, inputs=read, fingerprint=fingerprint("report", report.settings, read, report.code))
        return replace(
            self,
            report=report,
            collect=then(self.collect),
            clean=then(self.clean),
            split=then(self.split),
            annotate=then(self.annotate),
            tokenizer=then(self.tokenizer),
            encode=then(self.encode),
            attribution=then(self.attribution),
            runs=tuple(runs),
        )

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """(kind, stage) in order; kinds are `STAGES`."""
        for kind in ONCE:
            yield kind, getattr(self, kind)
        for kind in OF_RUNS:
            for run in self.runs:
                yield kind, getattr(run, kind)
        yield "report", self.report

    def until(self, last: str | None) -> list[tuple[str, Stage]]:
        """The stages up to and with the kind `last`."""
        stop = STAGES.index(last) if last else len(STAGES)
        return [(kind, stage) for kind, stage in self.stages() if STAGES.index(kind) <= stop]


def near_dedup_settings(recipe: Recipe) -> list[NearDedupSettings]:
    """The near-duplicate filters of all arms, each once: those of the recipe as it is written, also where only some
    arms are asked for, so that what was computed serves both."""
    asked = [arm.filter.near_dedup for arm in parse_recipe(recipe.text).arms]
    return list(dict.fromkeys(settings for settings in asked if settings is not None))


def make_plan(
    recipe: Recipe,
    workspace: Workspace,
    *,
    sources: str,
    suites: Mapping[str, str],
    jail: str,
    tokenizer_folder: str | None = None,
) -> Plan:
    """`sources` fingerprints what the corpus' sources hold now, `suites` each suite by name, `jail` its level here,
    `tokenizer_folder` what that folder holds."""
    stage = workspace.stage
    benchmarks = {name: suites[name] for name in recipe.clean.decontaminate}
    evaluated = {name: suites[name] for name in recipe.evaluation.suites}
    collect = stage("collect", plain(recipe.corpus), [], ["data.collect"], sources)
    cleaning = {
        "clean": plain(recipe.clean),
        "fidelity": recipe.fidelity,
        "benchmarks": benchmarks,
        "key": recipe.name if recipe.clean.pii else None,
    }
    clean = stage("clean", cleaning, [collect], ["data.clean"])
    held_out = {"held_out": recipe.evaluation.held_out, "seed": SPLIT_SEED}
    split = stage("split", held_out, [collect, clean], ["data.heldout"])
    filters = {"near_dedup": [plain(n) for n in near_dedup_settings(recipe)], "fidelity": recipe.fidelity}
    annotate = stage("annotate", filters, [collect, clean, split], ["data.signals"])
    taught = [collect, split] if existing_tokenizer(recipe) is None else []  # one that exists asks for no documents
    tokenizer = stage("tokenizer", tokenizer_settings(recipe, tokenizer_folder), taught, ["tokens.vocabulary"])
    encode = stage("encode", {}, [collect, split, tokenizer], ["tokens.encode"])
    attribution = stage("attribution", {}, [collect, split, encode], ["attribution.building"])
    evaluation = plain(recipe.evaluation)
    runs = []
    for arm in recipe.arms:
        for seed in arm.training.seeds:
            training = {key: value for key, value in plain(arm.training).items() if key != "seeds"}
            settings = {
                "model": model_settings(arm.model),
                "training": training,
                "filter": plain(arm.filter),
                "seed": seed,
            }
            if arm.control is not None:
                settings["control"] = plain(arm.control)
            headed = [collect] if arm.training.metadata else []
            filtered = [annotate] if arm.filter != type(arm.filter)() else []
            name = f"{arm.name}-s{seed}"
            train = stage(f"train@{name}", settings, [encode, *filtered, *headed], ["study.teaching"])
            asked = {"suites": evaluated} | {k: v for k, v in evaluation.items() if k not in ("margins", "suites")}
            evaluate = stage(f"evaluate@{name}", asked, [train, encode, split], ["study.measuring"])
            score = stage(f"score@{name}", {"suites": evaluated, "jail": jail}, [evaluate], SCORING)
            read = [evaluate, attribution, split]
            memorised = stage(f"memorisation@{name}", {}, read, ["study.memorising"])
            runs.append(Run(arm, seed, train, evaluate, score, memorised))
    margins = plain(recipe.evaluation.margins)
    told = {"margins": margins, "recipe": recipe.text, "arms": [run.name for run in runs]}
    if recipe.seed_variance is not None:
        told["seed_variance"] = fingerprint(seeds.read_text(recipe.seed_variance))
    read = [stage for run in runs for stage in (run.score, run.memorisation)]
    report = stage("report", told, read, ["study.assemble"])
    return Plan(recipe, collect, clean, split, annotate, tokenizer, encode, attribution, tuple(runs), report)
