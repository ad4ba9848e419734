"""The training loop: batches in, a model directory, a log and checkpoints out; resumable to the bit after a SIGKILL.

One step: a batch, its loss summed over valid tokens and divided by their number in the whole batch (so cutting it into
micro-batches changes nothing but memory), gradients clipped by their norm, AdamW. The batch, the learning rate and the
initial weights are functions of step and seed, so a checkpoint is weights, optimizer state and counters, and a run that
continues from one ends with the weights of an uninterrupted run, bit for bit on the same machine and number of threads.

On a CPU in fp32 the pieces of a micro-batch are laid end to end and padding is never computed (`kringle.model.packed`);
elsewhere rows go through document masks. Does not cover: several devices, dropout, dynamic loss scaling for fp16.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.packed import linear_cross_entropy, spans_of
from kringle.model.transformer import ModelConfig, Transformer, document_mask, loss_sum
from kringle.training import checkpoint
from kringle.training.batches import IGNORED, PADDING, Batch, Batches, FimShares
from kringle.training.optimizer import OptimizerSettings, make_optimizer
from kringle.training.schedule import Schedule, learning_rate, warmup_steps

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
MODEL_FOLDER = "model"
MICRO_BATCH_TOKENS = 4096  # positions at once; 1,024 to 2,048 run as fast on a CPU, more only costs memory
DOCUMENTS_NAMED = 5  # of a batch that went wrong, in the message; the exception has them all


class TrainingSettings(OptimizerSettings, Protocol):
    """What a run is, beside model, data and seed; `kringle.recipe.TrainingSettings` is one."""

    @property
    def tokens(self) -> int: ...
    @property
    def batch_tokens(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def warmup(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def precision(self) -> Literal["fp32", "bf16"]: ...
    @property
    def fim(self) -> FimShares: ...


@dataclass(frozen=True)
class StepRecord:
    """One line of the log. `step` counts updates done, `tokens` targets seen so far; the loss is nats per token."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float


@dataclass(frozen=True)
class TrainingResult:
    """What came out. Counts cover the whole run, speed and seconds the part since the last start."""

    finished: bool  # False if `should_stop` ended it
    steps: int
    tokens: int  # targets
    positions: int  # targets and padding
    utilisation: float
    epochs: float
    rearranged: int  # fill-in-the-middle sequences
    left: int  # pieces drawn for it that did not allow it
    parameters: int
    loss: float  # of the last step, nats per token
    seconds: float
    tokens_per_second: float
    resumed_from: int  # step; 0 for a run from the start
    model: Path | None  # None unless finished
    log: Path


class Diverged(UserError):
    """Loss or gradients are no longer numbers. Names the step, the documents of its batch and the last checkpoint."""

    def __init__(self, step: int, what: str, documents: tuple[str, ...], last: Path | None) -> None:
        self.step, self.documents, self.last = step, documents, last
        named = ", ".join(documents[:DOCUMENTS_NAMED])
        more = f" and {len(documents) - DOCUMENTS_NAMED} more" if len(documents) > DOCUMENTS_NAMED else ""
        super().__init__(
            f"{what} at step {step}; documents of its batch: {named}{more}; last good checkpoint: {last or 'none'}",
            where="training",
            hint="lower training.learning_rate",
        )


def train(
    config: ModelConfig,
    settings: TrainingSettings,
    batches: Batches,
    out: Path,
    *,
    seed: int,
    checkpoints: Path,
    checkpoint_every: int,
    on_step: Callable[[StepRecord, Transformer], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    device: torch.device | str = "cpu",
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
) -> TrainingResult:
    """Train for `settings.steps` steps, going on from the newest whole checkpoint of this very run.

    Writes `out/model` (a `transformers` directory) and `out/log.jsonl` when finished. Checkpoints and the log in the
    making live in the folder `checkpoints`, every `checkpoint_every` steps and at the end. `on_step` is called after
    each step; when `should_stop` then says so, a checkpoint is written and the result comes back unfinished.

    Raises UserError before any work for settings that cannot be trained, `Diverged` when loss or gradients are no
    numbers.
    """
    _check(config, settings, batches, checkpoint_every, micro_batch_tokens)
    run = _Run(config, settings, batches, seed, torch.device(device), micro_batch_tokens, checkpoints)
    fingerprint = {
        "model": asdict(config),
        "training": {key: getattr(settings, key) for key in _FINGERPRINTED},
        "seed": seed,
        "data": batches.fingerprint,
    }
    restored = checkpoint.restore(checkpoints, run.model, run.optimizer, fingerprint)
    if restored:
        run.step, run.counters = restored.step, restored.counters
    first = run.step
    started, seen_before = time.perf_counter(), run.counters["tokens"]
    checkpoints.mkdir(parents=True, exist_ok=True)
    with _open_log(checkpoints / LOG_FILE, first) as log, _Loader(batches, first, settings.steps) as loader:
        stopped = False
        while run.step < settings.steps and not stopped:
            record = run.update(loader)
            log.write(json.dumps(asdict(record)) + "\n")
            log.flush()
            if on_step:
                on_step(record, run.model)
            stopped = bool(should_stop and should_stop())
            if run.step % checkpoint_every == 0 or run.step == settings.steps or stopped:
                os.fsync(log.fileno())  # the log must not lag behind the checkpoint
                checkpoint.save(checkpoints, run.step, run.model, run.optimizer, fingerprint, run.counters)
    seconds = time.perf_counter() - started
    finished = run.step == settings.steps
    if finished:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoints / LOG_FILE, out / LOG_FILE)
        exchange.save(run.model, batches.tokenizer, out / MODEL_FOLDER)
    positions = run.step * settings.batch_tokens
    counters = run.counters
    return TrainingResult(
        finished=finished,
        steps=run.step,
        tokens=int(counters["tokens"]),
        positions=positions,
        utilisation=counters["tokens"] / positions,
        epochs=batches.epochs(run.step),
        rearranged=int(counters["rearranged"]),
        left=int(counters["left"]),
        parameters=config.parameters,
        loss=counters["loss"],
        seconds=seconds,
        tokens_per_second=(counters["tokens"] - seen_before) / seconds,
        resumed_from=first,
        model=out / MODEL_FOLDER if finished else None,
        log=(out if finished else checkpoints) / LOG_FILE,
    )


_FINGERPRINTED = (
    *("tokens", "batch_tokens", "steps", "learning_rate", "schedule", "warmup", "weight_decay"),
    *("beta1", "beta2", "epsilon", "clip", "precision"),
)


def _check(
    config: ModelConfig, settings: TrainingSettings, batches: Batches, checkpoint_every: int, micro_batch_tokens: int
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
            "use kringle.model.transformer.padded_vocabulary of the tokenizer's size",
        )
    if micro_batch_tokens < batches.context:
        raise refuse(f"must hold a row of {batches.context} tokens, got {micro_batch_tokens}", "micro_batch_tokens")
    for name, value in (("checkpoint_every", checkpoint_every), ("clip", settings.clip)):
        if not value > 0:
            raise refuse(f"must be above 0, got {value}", f"training.{name}")
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise refuse(f"must be a positive number, got {settings.learning_rate}", "training.learning_rate")
    if settings.schedule not in ("cosine", "constant"):
        raise refuse(f"is 'cosine' or 'constant', not '{settings.schedule}'", "training.schedule")
    if settings.precision not in ("fp32", "bf16"):
        raise refuse(f"is 'fp32' or 'bf16', not '{settings.precision}'", "training.precision")
    if not 0 <= settings.warmup < 1:
        raise refuse(f"is a share of all steps, at least 0 and below 1, got {settings.warmup}", "training.warmup")


class _Run:
    """Model, optimizer and counters of a run in progress."""

    def __init__(
        self,
        config: ModelConfig,
        settings: TrainingSettings,
        batches: Batches,
        seed: int,
        device: torch.device,
        micro_batch_tokens: int,
        checkpoints: Path,
    ) -> None:
        self.settings, self.checkpoints = settings, checkpoints
        self.model = Transformer(config).to(device)
        self.model.initialise(seed)
        self.optimizer = make_optimizer(self.model, settings)
        self.rows_at_once = micro_batch_tokens // batches.context
        self.warmup = warmup_steps(settings.warmup, settings.steps)
        self.step = 0
        self.counters: dict[str, float] = {"tokens": 0, "rearranged": 0, "left": 0, "loss": math.nan}

    def update(self, loader: _Loader) -> StepRecord:
        """One step of the optimizer; its speed counts the wait for the batch."""
        started = time.perf_counter()
        batch = loader.next()
        rate = learning_rate(
            self.step,
            peak=self.settings.learning_rate,
            schedule=self.settings.schedule,
            warmup=self.warmup,
            steps=self.settings.steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        valid, loss = batch.valid, 0.0
        for first in range(0, len(batch.tokens), self.rows_at_once):
            part = slice(first, first + self.rows_at_once)
            mean = summed_loss(self.model, batch, part, self.settings.precision) / valid
            mean.backward()  # type: ignore[no-untyped-call]
            loss += mean.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip).item()
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                last = checkpoint.newest(self.checkpoints)
                raise Diverged(self.step + 1, f"the {what} is {value}", batch.documents, last)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.counters["tokens"] += valid
        self.counters["rearranged"] += batch.rearranged
        self.counters["left"] += batch.left
        self.counters["loss"] = loss
        speed = valid / (time.perf_counter() - started)
        return StepRecord(self.step, int(self.counters["tokens"]), loss, rate, norm, round(speed, 1))


def summed_loss(model: Transformer, batch: Batch, rows: slice, precision: Literal["fp32", "bf16"] = "fp32") -> Tensor:
    """Summed cross-entropy in nats of some rows of a batch, on the model's device."""
    device = next(model.parameters()).device
    segments = batch.segments[rows]
    inside = segments != PADDING
    if device.type == "cpu" and precision == "fp32":
        run = (segments + np.arange(len(segments))[:, None] * segments.shape[1])[inside]  # differs between sequences
        starts = np.flatnonzero(np.diff(run, prepend=-1))
        spans = spans_of(np.diff(starts, append=len(run)).tolist())
        tokens, positions, targets = (
            torch.from_numpy(a[rows][inside]) for a in (batch.tokens, batch.positions, batch.targets)
        )
        hidden = model.hidden(tokens, positions, spans)
        return linear_cross_entropy(hidden, model.transformer.wte.weight, targets)
    tokens, positions, targets, numbers = (
        torch.from_numpy(a[rows]).to(device) for a in (batch.tokens, batch.positions, batch.targets, batch.segments)
    )
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        valid = targets != IGNORED
        hidden = model.hidden(tokens, positions, document_mask(numbers))[valid]
        return loss_sum(model.logits(hidden), targets[valid])


class _Loader:
    """Makes the next batch in a thread of its own while the current one is trained on."""

    def __init__(self, batches: Batches, first: int, end: int) -> None:
        self._batches, self._step, self._end = batches, first, end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._request()

    def _request(self) -> None:
        if self._step < self._end:
            self._coming = self._thread.submit(self._batches.batch, self._step)
            self._step += 1

    def next(self) -> Batch:
        """The next batch, in order of the steps."""
        batch = self._coming.result()
        self._request()
        return batch

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *_: Any) -> None:
        self._thread.shutdown(cancel_futures=True)


@contextmanager
def _open_log(path: Path, done: int) -> Iterator[IO[str]]:
    """The log for appending, cut back to its first `done` lines: what a killed run logged after its checkpoint is
    done again."""
    lines = path.read_bytes().splitlines(keepends=True)[:done] if path.exists() else []
    if len(lines) < done:
        logger.warning("%s lacks %d of the first %d steps: they stay missing", path, done - len(lines), done)
    shortened = path.with_suffix(".cut")
    shortened.write_bytes(b"".join(lines))
    shortened.replace(path)
    with path.open("a", encoding="utf-8") as log:
        yield log
