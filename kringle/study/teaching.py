"""The train stage of one arm, in a worker process or in each of several that torchrun started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kringle.engine import tick
from kringle.settings import plain
from kringle.study.altered import training_seed
from kringle.study.arm import ArmJob, NotRun, batches_of
from kringle.study.start import checkpoint_fingerprint
from kringle.workspace import write_atomically

if TYPE_CHECKING:
    from kringle.model.shape import ModelConfig
    from kringle.model.transformer import Transformer
    from kringle.training.log import StepRecord
    from kringle.training.parallel import World
    from kringle.training.trackers import Tracker

CHECKPOINTS_PER_RUN = 10  # a kill costs at most a tenth of a training
DONE = "trained.json"  # the summary of a training that came to its end
DOCUMENTS = "documents.npz"  # numbers in the store of the documents that an arm may see, and their sizes

Look = Callable[["Transformer"], dict[str, float]]


def _config(job: ArmJob, vocab_size: int) -> ModelConfig:
    from kringle.model import exchange
    from kringle.model.shape import ModelConfig, padded_vocabulary

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


def train_arm(job: ArmJob, out: Path, world: World | None = None, look: Look | None = None) -> dict[str, Any]:
    """Train one arm into the folder `out`; a run that goes wrong is a result, too: an arm that was not run, and why.

    With a `world` of several processes each calls this; the first one writes. `look` measures the model on the way.
    """
    from kringle.model import exchange
    from kringle.training.parallel import join
    from kringle.training.run import Diverged, Start
    from kringle.training.trackers import open_trackers
    from kringle.training.trainer import train

    world = world or join()
    done: dict[str, Any] | None = world.first_only(lambda: _done(out))
    if done is not None:
        return done
    scratch = out / "scratch" / str(world.rank)
    try:
        store, own, batches, settings = batches_of(job, scratch)
    except NotRun as reason:
        return {"not_run": str(reason)}
    init, documents = job.arm.model.init, batches.documents
    summary = {
        "documents": len(documents),
        "unique_tokens": int(np.diff(own.offsets)[documents].sum()),
        "bytes": int(store.sizes[documents].sum()),
        "device": world.device.type,
        "threads": job.threads,
        "together": job.together,
        "margins": plain(job.evaluation.margins),  # as they were before anything was known
    }
    if world.first:
        np.savez_compressed(out / DOCUMENTS, documents=documents, sizes=store.sizes[documents])
    if settings.skip:
        shutil.rmtree(out / "scratch", ignore_errors=True)
        return {**_untrained(job, out), **summary}
    world.every(lambda: store.verify(world.rank, world.size))  # weeks of training are worth the reading
    name = job.train.name.removeprefix("train@")
    trackers: list[Tracker] = []
    world.first_only(lambda: trackers.extend(open_trackers(settings.track, out / "tracking", name, plain(job.arm))))

    told = 0

    def on_step(record: StepRecord, _: Transformer) -> None:
        nonlocal told
        figures = {key: value for key, value in asdict(record).items() if isinstance(value, int | float)}
        for tracker in trackers:
            tracker.log(record.step, figures)
        tick(record.step - told)  # the first time with the steps of earlier attempts
        told = record.step

    def on_measure(step: int, figures: Mapping[str, float]) -> None:
        for tracker in trackers:
            tracker.log(step, figures)

    try:
        result = train(
            _config(job, batches.tokenizer.vocab_size),
            settings,
            batches,
            out,
            seed=training_seed(job.arm, job.seed),
            checkpoints=out / "checkpoints",
            checkpoint_every=max(1, settings.steps // CHECKPOINTS_PER_RUN),
            on_step=on_step,
            measure=look,
            measure_every=max(1, settings.steps // settings.measurements) if settings.measurements else 0,
            on_measure=on_measure,
            start=(
                Start(init, checkpoint_fingerprint(init), exchange.fim_training(init)) if init is not None else None
            ),
            world=world,
        )
    except Diverged as error:
        return {"not_run": str(error)}
    finally:
        for tracker in trackers:
            tracker.close()
        shutil.rmtree(scratch, ignore_errors=True)
    ended = {**{key: value for key, value in asdict(result).items() if key not in ("model", "log")}, **summary}
    if world.first:
        _notice(job, out)
        write_atomically(out / DONE, json.dumps(ended))
        _done(out)
    return ended


def _done(out: Path) -> dict[str, Any] | None:
    """The summary of a training that came to its end here, its checkpoints removed; None where none did.

    A kill between the removal and the publication of the stage would cost all of it otherwise.
    """
    if not (out / DONE).exists():
        return None
    shutil.rmtree(out / "checkpoints", ignore_errors=True)  # they served resuming; model and log are published
    shutil.rmtree(out / "scratch", ignore_errors=True)
    told: dict[str, Any] = json.loads((out / DONE).read_text(encoding="utf-8"))
    return told


def _notice(job: ArmJob, out: Path) -> None:
    if job.notice is not None:
        (out / "model" / "NOTICE").write_text(job.notice + "\n", encoding="utf-8")


def _untrained(job: ArmJob, out: Path) -> dict[str, Any]:
    """The checkpoint as it is, in the place of a trained model: what there was before."""
    from kringle.model import exchange

    assert job.arm.model.init is not None, "recipes without a checkpoint cannot skip"
    model, tokenizer = exchange.load(job.arm.model.init)
    exchange.save(model, tokenizer, out / "model", exchange.fim_training(job.arm.model.init))
    (out / "log.jsonl").write_text("")
    _notice(job, out)
    zero = ("steps", "tokens", "positions", "epochs", "rearranged", "left", "skipped", "seconds", "tokens_per_second")
    return {"finished": True, "parameters": model.config.parameters, "loss": None, **dict.fromkeys(zero, 0)}
