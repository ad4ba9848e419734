"""The training loop: batches in, a model directory, a log and checkpoints out; resumable to the bit after a SIGKILL.

The batch, the learning rate, dropout and the initial weights are functions of step and seed, so a checkpoint
is weights, optimizer state and counters, and a run that continues from one ends with the weights of an uninterrupted
run, bit for bit on the same machine with the same number of processes and threads.

One step is in `kringle.training.run`, the ways through the model in `kringle.training.loss`, several processes in
`kringle.training.parallel`, what counts as gone wrong in `kringle.training.guard`, the log in `kringle.training.log`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.shape import FimTraining, ModelConfig
from kringle.model.transformer import Transformer
from kringle.training import checkpoint
from kringle.training.batches import BatchSource
from kringle.training.log import LOG_FILE, MEASURES_FILE, REDONE_FILE, Log, StepRecord
from kringle.training.parallel import World
from kringle.training.run import Loader, Run, Start, TrainingResult, TrainingSettings

MODEL_FOLDER = "model"
MICRO_BATCH_TOKENS = {  # positions at once
    "cpu": 4096,  # 1,024 to 2,048 run as fast, more only costs memory
    "cuda": 16_384,  # fills an H100; with 1.1 billion parameters 60 GB of it
}


def train(
    config: ModelConfig,
    settings: TrainingSettings,
    batches: BatchSource,
    out: Path,
    *,
    seed: int,
    checkpoints: Path,
    checkpoint_every: int,
    on_step: Callable[[StepRecord, Transformer], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    measure: Callable[[Transformer], Mapping[str, float]] | None = None,
    measure_every: int = 0,
    on_measure: Callable[[int, Mapping[str, float]], None] | None = None,
    start: Start | None = None,
    world: World | None = None,
    device: torch.device | str = "cpu",
    micro_batch_tokens: int | None = None,
) -> TrainingResult:
    """Train for `settings.steps` steps, going on from the newest whole checkpoint of this very run.

    Writes `out/model` (a `transformers` directory) and `out/log.jsonl` when finished. Checkpoints and the log in the
    making live in the folder `checkpoints`, every `checkpoint_every` steps and at the end. `on_step` is called after
    each step; when `should_stop` then says so, a checkpoint is written and the result comes back unfinished. Every
    `measure_every` steps the figures of `measure(model)` are logged beside the loss and handed to `on_measure`.

    With a `world` of several processes each of them calls this with the same arguments; the first one writes.

    Raises UserError before any work for settings that cannot be trained, `Diverged` when loss or gradients go wrong.
    """
    world = world or World(device=torch.device(device))
    micro = (
        micro_batch_tokens or settings.micro_batch_tokens or max(MICRO_BATCH_TOKENS[world.device.type], batches.context)
    )
    _check(config, settings, batches, checkpoint_every, micro, world)
    run = Run(config, settings, batches, seed, world, micro, checkpoints, start)
    fingerprint = {
        "model": asdict(config),
        "training": {key: getattr(settings, key) for key in _FINGERPRINTED} | {"precision": run.precision},
        "seed": seed,
        "data": batches.fingerprint,
        **({"init": start.fingerprint} if start else {}),
    }
    restored = checkpoint.restore(checkpoints, run.model, run.optimizer, fingerprint, world)
    if restored:
        run.resume(restored.step, restored.counters)
    first = run.step
    if world.first:
        checkpoints.mkdir(parents=True, exist_ok=True)
    with (
        Log(checkpoints, first, world.first) as log,
        Loader(batches, first, settings.steps, world) as loader,
    ):
        stopped = False
        while run.step < settings.steps and not stopped:
            record = run.update(loader)
            log.step(record)
            if measure and measure_every and (run.step % measure_every == 0 or run.step == settings.steps):
                run.measure(measure, log, on_measure)
            if on_step and world.first:
                on_step(record, run.model)
            stopped = world.agree(bool(should_stop and should_stop()))
            if run.step % checkpoint_every == 0 or run.step == settings.steps or stopped:
                log.flush()  # the log must not lag behind the checkpoint
                checkpoint.save(checkpoints, run.step, run.model, run.optimizer, fingerprint, run.state(), world)
        seconds = log.seconds
    finished = run.step == settings.steps
    if finished:
        final = world.whole_model(run.model)
        fim: FimTraining | None = FimTraining(batches.fim_rate, batches.fim_spm)
        if start is not None and not batches.fim_rate:
            fim = start.fim  # what the checkpoint has learnt of it is not forgotten by going on without
        world.first_only(lambda: _publish(final, batches, fim, checkpoints, out))
    return run.result(seconds, first, finished, (out if finished else checkpoints) / LOG_FILE, out / MODEL_FOLDER)


def _publish(model: Transformer, batches: BatchSource, fim: FimTraining | None, checkpoints: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (LOG_FILE, MEASURES_FILE, REDONE_FILE):
        if (checkpoints / name).exists():
            shutil.copyfile(checkpoints / name, out / name)
    exchange.save(model, batches.tokenizer, out / MODEL_FOLDER, fim)


_FINGERPRINTED = (
    *("tokens", "batch_tokens", "steps", "horizon", "learning_rate", "schedule", "warmup", "decay", "weight_decay"),
    *("optimizer", "beta1", "beta2", "epsilon", "clip", "on_divergence"),
)


def _check(
    config: ModelConfig,
    settings: TrainingSettings,
    batches: BatchSource,
    checkpoint_every: int,
    micro_batch_tokens: int,
    world: World,
) -> None:
    """Refuse what cannot be trained, before any work."""

    def refuse(what: str, where: str, hint: str = "") -> UserError:
        return UserError(what, where=where, hint=hint)

    if settings.tokens < 1 or settings.steps < 1:
        raise refuse(f"nothing to train on: {settings.tokens} tokens", "training.tokens", "ask for at least one batch")
    if settings.batch_tokens != batches.batch_tokens:
        raise refuse(
            f"is {settings.batch_tokens}, the batches were made for {batches.batch_tokens}", "training.batch_tokens"
        )
    if (settings.fim.rate, settings.fim.spm) != (batches.fim_rate, batches.fim_spm):
        raise refuse("is not what the batches were made with", "training.fim")
    if batches.context > config.context:
        raise refuse(
            f"rows of {batches.context} tokens, the model's position table has {config.context}",
            "model.context",
            "make the batches for the model's context",
        )
    if batches.tokenizer.vocab_size > config.vocab_size:
        raise refuse(
            f"the model has {config.vocab_size} embedding rows, the tokenizer {batches.tokenizer.vocab_size} ids",
            "model.vocab_size",
            "use kringle.model.shape.padded_vocabulary of the tokenizer's size",
        )
    if micro_batch_tokens < batches.context:
        raise refuse(
            f"must hold a row of {batches.context} tokens, got {micro_batch_tokens}", "training.micro_batch_tokens"
        )
    for name, value in (("checkpoint_every", checkpoint_every), ("clip", settings.clip)):
        if not value > 0:
            raise refuse(f"must be above 0, got {value}", f"training.{name}")
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise refuse(f"must be a positive number, got {settings.learning_rate}", "training.learning_rate")
    choices = {
        "schedule": ("cosine", "constant", "wsd"),
        "precision": ("auto", "fp32", "bf16", "fp16", "fp64"),
        "optimizer": ("adamw", "muon"),
        "on_divergence": ("stop", "skip"),
    }
    for name, known in choices.items():
        if (given := getattr(settings, name)) not in known:
            raise refuse(f"is one of {', '.join(known)}, not '{given}'", f"training.{name}")
    if not 0 <= settings.warmup < 1:
        raise refuse(f"is a share of all steps, at least 0 and below 1, got {settings.warmup}", "training.warmup")
    if settings.horizon < settings.steps:
        raise refuse(
            f"the schedule ends after {settings.horizon} steps, the run after {settings.steps}",
            "training.decay_tokens",
            "let it be at least training.tokens",
        )
    if settings.optimizer == "muon" and world.size > 1 and world.strategy == "fsdp":
        raise refuse("muon needs whole matrices, which FSDP cuts up", "training.optimizer", "use adamw, or DDP")
    world.rows(batches.rows)
