"""The training loop: batches in, a model directory, a log and checkpoints out; resumable to the bit after a SIGKILL.

One step: a batch, its loss summed over valid tokens and divided by their number in the whole batch (so cutting it into
micro-batches, or sharing it out over processes, changes nothing but memory), gradients clipped by their norm, the
optimizer. The batch, the learning rate, dropout and the initial weights are functions of step and seed, so a checkpoint
is weights, optimizer state and counters, and a run that continues from one ends with the weights of an uninterrupted
run, bit for bit on the same machine with the same number of processes and threads.

The ways through the model are in `kringle.training.loss`, several processes in `kringle.training.parallel`, what counts
as gone wrong in `kringle.training.guard`, the log in `kringle.training.log`.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import torch_seed
from kringle.training import checkpoint
from kringle.training.batches import Batch, BatchSource, FimShares
from kringle.training.guard import Guard
from kringle.training.log import LOG_FILE, MEASURES_FILE, REDONE_FILE, Log, StepRecord
from kringle.training.loss import Objective, Precision, chosen, packs, rows_of
from kringle.training.optimizer import OptimizerSettings, make_optimizer
from kringle.training.parallel import World, whole
from kringle.training.precision import LossScale
from kringle.training.schedule import Schedule, learning_rate, warmup_steps
from kringle.training.speed import memory_bytes, peak_flops, utilisation

MODEL_FOLDER = "model"
MICRO_BATCH_TOKENS = 4096  # positions at once; 1,024 to 2,048 run as fast on a CPU, more only costs memory
DOCUMENTS_NAMED = 5  # of a batch that went wrong, in the message; the exception has them all
SKIPS_IN_A_ROW = 10  # batches skipped on request before a run is given up all the same


class TrainingSettings(OptimizerSettings, Protocol):
    """What a run is, beside model, data and seed; `kringle.recipe.TrainingSettings` is one."""

    @property
    def tokens(self) -> int: ...
    @property
    def batch_tokens(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def warmup(self) -> float: ...
    @property
    def decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def fim(self) -> FimShares: ...
    @property
    def micro_batch_tokens(self) -> int | None: ...
    @property
    def recompute(self) -> bool: ...
    @property
    def compile(self) -> Literal["auto", "never"]: ...
    @property
    def on_divergence(self) -> Literal["stop", "skip"]: ...


@dataclass(frozen=True)
class TrainingResult:
    """What came out, counted over the whole run, all attempts and steps done twice included."""

    finished: bool  # False if `should_stop` ended it
    steps: int
    tokens: int  # targets
    positions: int  # targets and padding
    utilisation: float  # share of positions that are not padding
    epochs: float
    rearranged: int  # fill-in-the-middle sequences
    left: int  # pieces drawn for it that did not allow it
    skipped: int  # steps whose update was left out
    parameters: int
    precision: str
    loss: float  # of the last step, nats per token
    seconds: float  # in steps, over all attempts
    tokens_per_second: float
    mfu: float | None
    resumed_from: int  # step; 0 for a run from the start
    processes: int
    model: Path | None  # None unless finished
    log: Path


class Diverged(UserError):
    """Loss or gradients are no longer what learning gives. Names the step, the documents of its batch and the last
    checkpoint."""

    def __init__(self, step: int, what: str, documents: Sequence[str], last: Path | None) -> None:
        self.step, self.reason, self.documents, self.last = step, what, tuple(documents), last
        named = ", ".join(documents[:DOCUMENTS_NAMED])
        more = f" and {len(documents) - DOCUMENTS_NAMED} more" if len(documents) > DOCUMENTS_NAMED else ""
        super().__init__(
            f"{what} at step {step}; documents of its batch: {named}{more}; last good checkpoint: {last or 'none'}",
            where="training",
            hint="lower training.learning_rate, or set training.on_divergence to skip",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.reason, self.documents, self.last)


@dataclass(frozen=True)
class Start:
    """Weights to begin with: a model directory and a fingerprint of what is in it."""

    folder: Path
    fingerprint: str


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
    micro = micro_batch_tokens or settings.micro_batch_tokens or max(MICRO_BATCH_TOKENS, batches.context)
    _check(config, settings, batches, checkpoint_every, micro, world)
    run = _Run(config, settings, batches, seed, world, micro, checkpoints, start)
    fingerprint = {
        "model": asdict(config),
        "training": {key: getattr(settings, key) for key in _FINGERPRINTED} | {"precision": run.precision},
        "seed": seed,
        "data": batches.fingerprint,
        **({"init": start.fingerprint} if start else {}),
    }
    restored = checkpoint.restore(checkpoints, run.model, run.optimizer, fingerprint)
    if restored:
        run.resume(restored.step, restored.counters)
    first = run.step
    if world.first:
        checkpoints.mkdir(parents=True, exist_ok=True)
    with (
        Log(checkpoints, first, world.first) as log,
        _Loader(batches, first, settings.steps, world) as loader,
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
        world.first_only(lambda: _publish(final, batches, checkpoints, out))
    return run.result(seconds, first, finished, (out if finished else checkpoints) / LOG_FILE, out / MODEL_FOLDER)


def _publish(model: Transformer, batches: BatchSource, checkpoints: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in (LOG_FILE, MEASURES_FILE, REDONE_FILE):
        if (checkpoints / name).exists():
            shutil.copyfile(checkpoints / name, out / name)
    exchange.save(model, batches.tokenizer, out / MODEL_FOLDER)


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


class _Run:
    """Model, optimizer and counters of a run in progress."""

    def __init__(
        self,
        config: ModelConfig,
        settings: TrainingSettings,
        batches: BatchSource,
        seed: int,
        world: World,
        micro_batch_tokens: int,
        checkpoints: Path,
        start: Start | None,
    ) -> None:
        self.settings, self.checkpoints, self.world, self.seed = settings, checkpoints, world, seed
        self.batches, self.start = batches, start
        self.precision = chosen(settings.precision, world.device)
        self.model = Transformer(config)
        if start is None:
            self.model.initialise(seed)
        else:
            self.model.load_state_dict(exchange.load(start.folder)[0].state_dict())
        if self.precision == "fp64":
            self.model.double()
        self.model.to(world.device)
        self.model.recompute = settings.recompute
        self.model.train()
        self.compiled = settings.compile == "auto" and _compiles(world.device)
        objective = Objective(self.model, self.precision)
        if self.compiled:
            for block in self.model.transformer.h:
                block.compile(dynamic=False)
        self.objective = world.wrap(objective)
        self.optimizer = make_optimizer(self.model, settings)
        self.packed = packs(world.device, self.precision, config.dropout)
        self.rows_at_once = micro_batch_tokens // batches.context
        self.warmup = warmup_steps(settings.warmup, settings.horizon)
        self.peak = peak_flops(world.device, self.precision)
        self.flops = config.flops_per_token(batches.context)
        self.scale = LossScale() if self.precision == "fp16" else None
        self.guard = Guard(math.log(config.vocab_size))
        self.step, self.skips = 0, 0
        counted = ("tokens", "filled", "rearranged", "left", "skipped")
        self.counters: dict[str, float] = dict.fromkeys(counted, 0.0) | {"loss": math.nan}

    def state(self) -> dict[str, Any]:
        """All that a checkpoint must keep beside tensors."""
        scale = asdict(self.scale) if self.scale else None
        return {**self.counters, "guard": asdict(self.guard), "scale": scale, "skips": self.skips}

    def resume(self, step: int, state: dict[str, Any]) -> None:
        state = dict(state)
        self.step, self.skips = step, int(state.pop("skips"))
        self.guard = Guard(**state.pop("guard"))
        scale = state.pop("scale")
        self.scale = LossScale(**scale) if scale else None
        self.counters = state

    def update(self, loader: _Loader) -> StepRecord:
        """One step of the optimizer; its speed counts the wait for the batch."""
        started = time.perf_counter()
        batch = loader.next()
        rate = learning_rate(
            self.step,
            peak=self.settings.learning_rate,
            schedule=self.settings.schedule,
            warmup=self.warmup,
            steps=self.settings.horizon,
            decay=self.settings.decay,
        )
        self.optimizer.set_rate(rate)
        counts = [float(x) for x in (batch.valid, batch.filled, batch.rearranged, batch.left)]
        valid, filled, rearranged, left = self.world.sums(counts)
        loss = self.world.sums([self._backward(batch, valid)])[0]
        scale = self.scale.scale if self.scale else 1.0
        parameters = list(self.model.parameters())
        if self.scale:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)).item())
        overflowed = self.scale is not None and not math.isfinite(norm) and math.isfinite(loss)
        if self.scale:
            self.scale.update(overflowed)
        skipped = f"overflow at loss scale {scale:g}" if overflowed else self._wrong(batch, loss, norm)
        if skipped is None:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        for name, value in zip(
            ("tokens", "filled", "rearranged", "left"), (valid, filled, rearranged, left), strict=True
        ):
            self.counters[name] += value
        if skipped is None:
            self.counters["loss"] = loss
        else:
            self.counters["skipped"] += 1
        seconds = time.perf_counter() - started
        return StepRecord(
            step=self.step,
            tokens=int(self.counters["tokens"]),
            loss=loss if math.isfinite(loss) else None,
            learning_rate=rate,
            gradient_norm=norm if math.isfinite(norm) else None,
            tokens_per_second=round(valid / seconds, 1),
            seconds=seconds,
            mfu=utilisation(valid / seconds, self.flops, self.world.size, self.peak),
            memory_bytes=memory_bytes(self.world.device),
            skipped=skipped,
        )

    def _backward(self, batch: Batch, valid: float) -> float:
        """Gradients of this rank's rows; returns their share of the mean loss."""
        loss, device = 0.0, self.world.device
        scale = self.scale.scale if self.scale else 1.0
        offset, rows = self.world.rows(self.batches.rows)
        flexible = self.compiled and not self.model.config.dropout
        for first in range(0, rows, self.rows_at_once):
            part = slice(first, min(first + self.rows_at_once, rows))
            with self.world.accumulating(self.objective, last=part.stop == rows), self._chance(offset + first):
                inputs = rows_of(batch, part, device, packed=self.packed, flexible=flexible)
                mean = self.objective(inputs) / valid
                (mean * (scale * self.world.gradient_factor)).backward()
                loss += mean.item()
        return loss

    def _chance(self, row: int) -> Any:
        """Dropout's random state: a function of the step and of the first row of a micro-batch in the global batch."""
        if not self.model.config.dropout:
            return nullcontext()
        return _Seeded(torch_seed(self.seed, "dropout", self.step, row), self.world.device)

    def _wrong(self, batch: Batch, loss: float, norm: float) -> str | None:
        """None where the update is to be made, else why it is left out; `Diverged` where the run has to end."""
        what = self.guard.batch(loss, norm)
        if what is None:
            self.skips = 0
            if (what := self.guard.run(loss)) is None:
                return None
        elif self.settings.on_divergence == "skip" and self.skips < SKIPS_IN_A_ROW:
            self.skips += 1
            return what
        raise Diverged(self.step + 1, what, batch.documents, checkpoint.newest(self.checkpoints))

    def measure(
        self,
        measure: Callable[[Transformer], Mapping[str, float]],
        log: Log,
        told: Callable[[int, Mapping[str, float]], None] | None,
    ) -> None:
        """Take the figures of the model as it is now, on the first rank."""
        model = self.world.whole_model(self.model)
        if self.world.first:
            model.eval()
            values = dict(measure(model))
            model.train()
            log.measures(self.step, values)
            if told:
                told(self.step, values)
        self.world.agree(None)  # nobody runs ahead into a collective operation that the first rank has not reached

    def result(self, seconds: float, first: int, finished: bool, log: Path, model: Path) -> TrainingResult:
        counters, positions = self.counters, self.step * self.settings.batch_tokens
        seconds = self.world.agree(seconds)
        speed = counters["tokens"] / seconds if seconds else 0.0
        return TrainingResult(
            finished=finished,
            steps=self.step,
            tokens=int(counters["tokens"]),
            positions=positions,
            utilisation=(counters["tokens"] - counters["filled"]) / positions,
            epochs=self.batches.epochs(self.step),
            rearranged=int(counters["rearranged"]),
            left=int(counters["left"]),
            skipped=int(counters["skipped"]),
            parameters=self.model.config.parameters,
            precision=self.precision,
            loss=counters["loss"],
            seconds=seconds,
            tokens_per_second=speed,
            mfu=utilisation(speed, self.flops, self.world.size, self.peak),
            resumed_from=first,
            processes=self.world.size,
            model=model if finished else None,
            log=log,
        )


class _Seeded:
    """Random state of its own for a stretch of work, the global one untouched."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def _compiles(device: torch.device) -> bool:
    """Whether torch.compile is worth it: on a GPU with Triton to compile with. On a CPU `packed` is faster."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


class _Loader:
    """Makes this rank's part of the next batch in a thread of its own while the current one is trained on."""

    def __init__(self, batches: BatchSource, first: int, end: int, world: World) -> None:
        self._batches, self._step, self._end = batches, first, end
        self._part = world.rows(batches.rows)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._request()

    def _request(self) -> None:
        if self._step < self._end:
            self._coming = self._thread.submit(self._batches.batch, self._step, *self._part)
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
