"""The plan of a study: every stage with its fingerprint, worked out before anything is run.

A stage's fingerprint covers its settings, the stages that it reads and the code of its rooms, so the plan alone tells
what is up to date: a second run of the same study compares names and starts nothing. Arms differ only in the stages
that depend on their difference.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kringle.errors import UserError
from kringle.recipe import Arm, Recipe, Source, load_recipe, parse_recipe, plain
from kringle.workspace import Stage, Workspace, fingerprint

STAGES = (
    "collect",
    "clean",
    "split",
    "annotate",
    "tokenizer",
    "encode",
    "train",
    "evaluate",
    "score",
    "report",
)
SPLIT_SEED = 0  # which repositories are held out; the same for every arm and every training seed
_SHARED = ("randomness.py",)


@dataclass(frozen=True)
class Options:
    """What the user asked for on the command line, beside the recipe."""

    recipe: str = "laptop"
    work: Path = Path("kringle-work")
    sources: tuple[Path, ...] = ()
    from_stage: str | None = None
    until: str | None = None
    only: tuple[str, ...] | None = None
    allow_licenses: tuple[str, ...] = ()
    workers: int | None = None

    def command(self) -> str:
        """The command line that asks for this."""
        parts = ["kringle", "run", *([self.recipe] if self.recipe != "laptop" else [])]
        parts += ["--work", str(self.work)] if self.work != Path("kringle-work") else []
        parts += [part for path in self.sources for part in ("--source", str(path))]
        parts += ["--only", ",".join(self.only)] if self.only else []
        parts += [part for name in self.allow_licenses for part in ("--allow-license", name)]
        return shlex.join(parts)


def resolve(options: Options, text: str | None = None) -> Recipe:
    """The recipe with the command line's options laid over it; `text` stands in for the recipe's file.

    `--source` names the user's own code, so it lifts the licence filter: what may be trained on is theirs to say.
    """
    recipe = parse_recipe(text, where=f"recipe {options.recipe}") if text is not None else load_recipe(options.recipe)
    corpus = recipe.corpus
    if options.sources:
        sources = tuple(_own_source(path.expanduser()) for path in options.sources)
        corpus = replace(corpus, sources=sources, licenses="any")
    if options.allow_licenses:
        corpus = replace(corpus, allow_licenses=(*corpus.allow_licenses, *options.allow_licenses))
    arms = recipe.arms
    if options.only is not None:
        known = [arm.name for arm in arms]
        if not options.only:
            raise UserError("names no ablation", where="--only", hint=f"known: {', '.join(known)}")
        for name in options.only:
            if name not in known:
                raise UserError(f"unknown ablation '{name}'", where="--only", hint=f"known: {', '.join(known)}")
        arms = tuple(arm for arm in arms if arm is recipe.base or arm.name in options.only)
    for where, stage in (("--from", options.from_stage), ("--until", options.until)):
        if stage is not None and stage not in STAGES:
            raise UserError(f"unknown stage '{stage}'", where=where, hint=f"known: {', '.join(STAGES)}")
    first, last = options.from_stage, options.until
    if first and last and STAGES.index(first) > STAGES.index(last):
        raise UserError(f"'{first}' comes after the last stage, '{last}'", where="--from", hint="leave one of them out")
    return replace(recipe, corpus=corpus, arms=arms)


def _own_source(path: Path) -> Source:
    """A bare repository is read through git; any other folder, with or without repositories in it, as files."""
    try:
        bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions") from None
    return Source("git" if bare else "folder", path)


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: Arm
    seed: int
    train: Stage
    evaluate: Stage
    score: Stage

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

        runs = [replace(r, train=then(r.train), evaluate=then(r.evaluate), score=then(r.score)) for r in self.runs]
        # The report is about those stages, so its fingerprint follows from theirs: one that a newer version wrote about
        # an older version's results must not pass for the report of a new run.
        scores = {run.score.name: run.score.fingerprint for run in runs}
        report = self.report
        report = replace(report, inputs=scores, fingerprint=fingerprint("report", report.settings, scores, report.code))
        return replace(
            self,
            report=report,
            collect=then(self.collect),
            clean=then(self.clean),
            split=then(self.split),
            annotate=then(self.annotate),
            tokenizer=then(self.tokenizer),
            encode=then(self.encode),
            runs=tuple(runs),
        )

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """(kind, stage) in order; kinds are `STAGES`."""
        for kind in STAGES[:6]:
            yield kind, getattr(self, kind)
        for kind in ("train", "evaluate", "score"):
            for run in self.runs:
                yield kind, getattr(run, kind)
        yield "report", self.report

    def until(self, last: str | None) -> list[tuple[str, Stage]]:
        """The stages up to and with the kind `last`."""
        stop = STAGES.index(last) if last else len(STAGES)
        return [(kind, stage) for kind, stage in self.stages() if STAGES.index(kind) <= stop]


def make_plan(recipe: Recipe, workspace: Workspace, *, sources: str, suites: Mapping[str, str], jail: str) -> Plan:
    """`sources` fingerprints what the corpus' sources hold now, `suites` each suite by name, `jail` its level here."""
    stage = workspace.stage
    benchmarks = {name: suites[name] for name in recipe.clean.decontaminate}
    evaluated = {name: suites[name] for name in recipe.evaluation.suites}
    collect = stage("collect", plain(recipe.corpus), rooms=("data", *_SHARED), extra=sources)
    cleaning = {
        "clean": plain(recipe.clean),
        "benchmarks": benchmarks,
        "key": recipe.name if recipe.clean.pii else None,
    }
    clean = stage("clean", cleaning, [collect], rooms=("data", "pii") if recipe.clean.pii else ("data",))
    held_out = {"held_out": recipe.evaluation.held_out, "seed": SPLIT_SEED}
    split = stage("split", held_out, [collect, clean], rooms=("data", *_SHARED))
    annotate = stage("annotate", {}, [collect, clean], rooms=("data",))
    tokenizer = stage("tokenizer", plain(recipe.tokenizer), [collect, split], rooms=("tokens", *_SHARED))
    encode = stage("encode", {}, [collect, split, tokenizer], rooms=("tokens",))
    runs = []
    for arm in recipe.arms:
        for seed in arm.training.seeds:
            training = {key: value for key, value in plain(arm.training).items() if key != "seeds"}
            settings = {"model": plain(arm.model), "training": training, "filter": plain(arm.filter), "seed": seed}
            filtered = [annotate] if arm.filter != type(arm.filter)() else []
            name = f"{arm.name}-s{seed}"
            rooms = ["training", "model", "tokens", *_SHARED]
            train = stage(f"train@{name}", settings, [encode, *filtered], rooms=rooms)
            rooms += ["evaluation", "generation"]
            evaluation = {key: value for key, value in plain(recipe.evaluation).items() if key != "margins"}
            evaluate = stage(f"evaluate@{name}", {**evaluation, "suites": evaluated}, [train, encode, split], rooms)
            score = stage(f"score@{name}", {"suites": evaluated, "jail": jail}, [evaluate], rooms=("evaluation",))
            runs.append(Run(arm, seed, train, evaluate, score))
    margins = plain(recipe.evaluation.margins)
    told = {"margins": margins, "recipe": recipe.text, "arms": [run.name for run in runs]}
    report = stage("report", told, [run.score for run in runs], rooms=("study", "evaluation/passk.py"))
    return Plan(recipe, collect, clean, split, annotate, tokenizer, encode, tuple(runs), report)
