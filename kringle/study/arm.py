"""One arm of a study in a worker process: choose its documents, train, measure.

An arm is a view on one token store: the training documents that pass its filter. Everything that its evaluation needs
to know about the training (which tokens were shown) is worked out again from the recipe, because batches are a pure
function of it. Torch is imported inside the functions: planning a study must not wait for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kringle.engine import Engine, tick
from kringle.errors import UserError
from kringle.recipe import Arm, EvaluationSettings, FilterSettings, plain
from kringle.study.start import checkpoint_fingerprint
from kringle.study.watch import watcher
from kringle.workspace import Stage

if TYPE_CHECKING:
    from kringle.evaluation.measure import HeldOutFile
    from kringle.model.transformer import ModelConfig, Transformer
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer
    from kringle.training.batches import Batches
    from kringle.training.log import StepRecord
    from kringle.training.parallel import World
    from kringle.training.windows import WindowBatches

CHECKPOINTS_PER_RUN = 10  # a kill costs at most a tenth of a training
MEASURE_UNITS = 0.25  # an evaluation's length in progress bars, as a share of the training's


@dataclass(frozen=True)
class ArmJob:
    """What a worker needs for one arm with one seed. Folders are those of published stages."""

    arm: Arm
    seed: int
    train: Stage
    evaluate: Stage
    collect: Path
    split: Path
    annotate: Path
    tokenizer: Path
    encode: Path
    evaluation: EvaluationSettings
    threads: int
    until: str  # "train" or "evaluate"
    notice: str | None = None  # what whoever receives the model must know of its data

    @property
    def units(self) -> float:
        """Length in progress bars, in training steps."""
        steps = max(1, self.arm.training.steps)
        return steps * (1 + MEASURE_UNITS) if self.until == "evaluate" else steps


def run_arm(job: ArmJob) -> None:
    """Train and measure one arm, whatever of it is missing; ticks in training steps."""
    import torch

    torch.set_num_threads(job.threads)
    engine = Engine(1)
    job.train.run(engine, lambda out, shards: train_arm(job, out))
    if job.until == "evaluate":
        job.evaluate.run(engine, lambda out, shards: _evaluate(job, out))


# -- the view ----------------------------------------------------------------------------------------------------------


def split_of(split: Path) -> dict[str, str]:
    """Document id -> "train" or "held-out"."""
    from kringle.data.table import read_table

    table = read_table(split / "split.parquet")
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


def view(
    store: TokenStore, split: Mapping[str, str], signals: Mapping[str, float], chosen: FilterSettings
) -> np.ndarray:
    """Numbers in the store of the training documents that pass the filter; `signals`: comment-to-code ratio by id."""
    from kringle.data.comments import passes

    training = np.array([i for i, name in enumerate(store.ids) if split.get(name) == "train"], dtype=np.int64)
    if chosen == FilterSettings():
        return training
    ratios = np.array([signals[store.ids[i]] for i in training])
    return training[passes(chosen, ratios)]


def _signals(annotate: Path) -> dict[str, float]:
    from kringle.data.table import read_table

    table = read_table(annotate / "signals.parquet")
    return dict(zip(table["id"].to_pylist(), table["comment_ratio"].to_pylist(), strict=True))


def _batches(job: ArmJob) -> tuple[TokenStore, Batches | WindowBatches]:
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer

    store = TokenStore.open(job.encode / "store")
    signals = _signals(job.annotate) if job.arm.filter != FilterSettings() else {}
    documents = view(store, split_of(job.split), signals, job.arm.filter)
    if not len(documents):
        raise UserError(
            "no documents to train on: none passes the filter",
            where=f"ablations.{job.arm.name}.filter",
            hint="loosen it or add sources",
        )
    return store, make_batches(job.arm, job.seed, store, documents, Tokenizer.load(job.tokenizer))


def make_batches(
    arm: Arm, seed: int, store: TokenStore, documents: np.ndarray, tokenizer: Tokenizer
) -> Batches | WindowBatches:
    """The arm's batches over these documents of a store, in the manner that its recipe asks for."""
    from kringle.training.batches import Batches
    from kringle.training.windows import WindowBatches

    settings, context = arm.training, arm.model.context
    if settings.fidelity == "faithful":
        return WindowBatches(
            store,
            documents,
            tokenizer,
            context=context,
            batch_tokens=settings.batch_tokens,
            fim=settings.fim,
            seed=seed,
            steps=settings.shown_steps,
        )
    return Batches(
        store,
        documents,
        tokenizer,
        context=context,
        batch_tokens=settings.batch_tokens,
        fim=settings.fim,
        seed=seed,
        mixture=settings.mixture,
    )


# -- training ----------------------------------------------------------------------------------------------------------


def _config(job: ArmJob, vocab_size: int) -> ModelConfig:
    from kringle.model import exchange
    from kringle.model.transformer import ModelConfig, padded_vocabulary

    shape = job.arm.model
    if shape.init is not None:
        return replace(exchange.describe(shape.init), dropout=shape.dropout)
    return ModelConfig(
        shape.layers,
        shape.width,
        shape.heads,
        shape.attention,
        shape.context,
        padded_vocabulary(vocab_size),
        shape.positions,
        shape.dropout,
    )


def train_arm(job: ArmJob, out: Path, world: World | None = None) -> dict[str, Any]:
    """Train one arm into the folder `out`; a run that goes wrong is a result, too: an arm that was not run, and why.

    With a `world` of several processes each calls this; the first one writes.
    """
    from kringle.training.parallel import join
    from kringle.training.trackers import open_trackers
    from kringle.training.trainer import Diverged, Start, train

    world = world or join()
    store, batches = _batches(job)
    settings, init = job.arm.training, job.arm.model.init
    summary = {
        "documents": len(batches.documents),
        "unique_tokens": int((store.offsets[batches.documents + 1] - store.offsets[batches.documents]).sum()),
        "bytes": int(store.sizes[batches.documents].sum()),
    }
    if settings.skip:
        return {**_untrained(job, out), **summary}
    name = job.train.name.removeprefix("train@")
    trackers = open_trackers(settings.track, out / "tracking", name, plain(job.arm)) if world.first else []
    look = None
    if settings.measurements:
        look = watcher(_held_out(job, store), store, batches.tokenizer, settings.fim.rate)

    def on_step(record: StepRecord, _: Transformer) -> None:
        figures = {key: value for key, value in asdict(record).items() if isinstance(value, int | float)}
        for tracker in trackers:
            tracker.log(record.step, figures)
        tick()

    def on_measure(step: int, figures: Mapping[str, float]) -> None:
        for tracker in trackers:
            tracker.log(step, figures)

    try:
        result = train(
            _config(job, batches.tokenizer.vocab_size),
            settings,
            batches,
            out,
            seed=job.seed,
            checkpoints=out / "checkpoints",
            checkpoint_every=max(1, settings.steps // CHECKPOINTS_PER_RUN),
            on_step=on_step,
            measure=look,
            measure_every=max(1, settings.steps // settings.measurements) if settings.measurements else 0,
            on_measure=on_measure,
            start=Start(init, checkpoint_fingerprint(init)) if init is not None else None,
            world=world,
        )
    except Diverged as error:
        return {"not_run": str(error)}
    finally:
        for tracker in trackers:
            tracker.close()
    if world.first:
        _notice(job, out)
        shutil.rmtree(out / "checkpoints")  # they served resuming; the model and the log are published
    return {**{key: value for key, value in asdict(result).items() if key not in ("model", "log")}, **summary}


def _notice(job: ArmJob, out: Path) -> None:
    if job.notice is not None:
        (out / "model" / "NOTICE").write_text(job.notice + "\n", encoding="utf-8")


def _untrained(job: ArmJob, out: Path) -> dict[str, Any]:
    """The checkpoint as it is, in the place of a trained model: what there was before."""
    from kringle.model import exchange

    assert job.arm.model.init is not None, "recipes without a checkpoint cannot skip"
    model, tokenizer = exchange.load(job.arm.model.init)
    exchange.save(model, tokenizer, out / "model")
    (out / "log.jsonl").write_text("")
    _notice(job, out)
    zero = ("steps", "tokens", "positions", "epochs", "rearranged", "left", "skipped", "seconds", "tokens_per_second")
    return {"finished": True, "parameters": model.config.parameters, "loss": None, **dict.fromkeys(zero, 0)}


# -- evaluation --------------------------------------------------------------------------------------------------------


def _held_out(job: ArmJob, store: TokenStore) -> list[HeldOutFile]:
    """The held-out files in the order of the store."""
    from kringle.data.table import iter_documents
    from kringle.evaluation.measure import HeldOutFile

    split = split_of(job.split)
    numbers = {name: i for i, name in enumerate(store.ids) if split.get(name) == "held-out"}
    files = [
        HeldOutFile(numbers[d["id"]], d["id"], d["repo"], d["path"], d["language"], d["content"])
        for d in iter_documents(job.collect / "documents", ["id", "repo", "path", "language", "content"])
        if d["id"] in numbers
    ]
    return sorted(files, key=lambda file: file.number)


def _evaluate(job: ArmJob, out: Path) -> dict[str, Any]:
    from kringle.evaluation import infilling, measure
    from kringle.evaluation.suites import load_suite
    from kringle.model import exchange

    if (reason := (job.train.manifest() or {}).get("summary", {}).get("not_run")) is not None:
        return {"not_run": reason}
    share = job.arm.training.steps * MEASURE_UNITS / (2 + len(job.evaluation.suites))
    model, tokenizer = exchange.load(job.train.folder / "model")
    model.eval()
    store, batches = _batches(job)
    files = _held_out(job, store)
    sequences = list(batches.shown(job.arm.training.shown_steps))
    shown = measure.Shown(sequences, tokenizer.decode_bytes(np.concatenate(sequences)))
    scored = measure.scored_files(files, store, job.evaluation.held_out_bytes)
    rows = measure.measure_bits(model, tokenizer, scored, store, shown)
    (out / "bits_per_byte.json").write_text(json.dumps(rows))
    tick(share)

    tasks = infilling.make_tasks(((f.id, f.language, f.content) for f in files), job.evaluation.infilling_lines)
    fim = job.arm.training.fim
    prompt: infilling.PromptFormat = "left-to-right" if fim.rate == 0 else "spm" if fim.spm == 1 else "psm"
    results = infilling.run(model, tokenizer, tasks, prompt)
    measure.write_lines(out / "infilling.jsonl", measure.infilling_rows(results, files))
    tick(share)

    for name in job.evaluation.suites:
        samples = measure.sample_suite(
            model,
            tokenizer,
            load_suite(name, job.evaluation.benchmarks),
            samples=job.evaluation.samples,
            temperature=job.evaluation.temperature,
            top_p=job.evaluation.top_p,
        )
        measure.write_lines(out / f"samples-{name}.jsonl", samples)
        tick(share)
    return {"files": len(scored), "tasks": len(tasks), "prompt": prompt, "shown_bytes": len(shown.text)}
