"""One training run in progress: a step of the optimizer, and all that a checkpoint must keep beside tensors.

One step: a batch, its loss summed over valid tokens and divided by their number in the whole batch (so cutting it into
micro-batches, or sharing it out over processes, changes nothing but memory), gradients clipped by their norm, the
optimizer. The host waits for the device twice a step, for the loss and for the gradients' norm, which decide whether
the update is made. The loop around it is `kringle.training.trainer`.
"""

from __future__ import annotations

import math
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
from kringle.model.chunked_loss import compiles
from kringle.model.shape import FimTraining, ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import torch_seed
from kringle.training import checkpoint
from kringle.training.batches import Batch, BatchSource, FimShares
from kringle.training.guard import Guard
from kringle.training.log import Log, StepRecord
from kringle.training.loss import Objective, Precision, chosen, packs, rows_of
from kringle.training.optimizer import OptimizerSettings, make_optimizer
from kringle.training.parallel import World, whole
from kringle.training.precision import LossScale
from kringle.training.schedule import Schedule, learning_rate, warmup_steps
from kringle.training.speed import memory_bytes, peak_flops, utilisation

DOCUMENTS_NAMED = 5  # of a batch that went wrong, in the message; the exception has them all
SKIPS_IN_A_ROW = 10  # batches skipped on request before a run is given up all the same


class TrainingSettings(OptimizerSettings, Protocol):
    """What a run is, beside model, data and seed; `kringle.settings.TrainingSettings` is one."""

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
    flops_per_token: int  # of a position, padding included: `ModelConfig.flops_per_token`
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
    """Weights to begin with: a model directory, a fingerprint of what is in it, and how it was trained to fill in, if
    that is known."""

    folder: Path
    fingerprint: str
    fim: FimTraining | None = None


class Run:
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
        self.compiled = settings.compile == "auto" and compiles(world.device)
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

    def update(self, loader: Loader) -> StepRecord:
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
            self.scale.update(not math.isfinite(norm))
            if self.scale.lowest > SKIPS_IN_A_ROW:
                what = f"{self.scale.lowest} batches in a row overflowed at the smallest loss scale"
                raise Diverged(self.step + 1, what, batch.documents, checkpoint.newest(self.checkpoints))
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
        device = self.world.device
        loss = torch.zeros((), dtype=torch.float64, device=device)  # one wait for the device, not one a micro-batch
        scale = self.scale.scale if self.scale else 1.0
        offset, rows = self.world.rows(self.batches.rows)
        flexible = self.compiled and not self.model.config.dropout
        for first in range(0, rows, self.rows_at_once):
            part = slice(first, min(first + self.rows_at_once, rows))
            with self.world.accumulating(self.objective, last=part.stop == rows), self._chance(offset + first):
                inputs = rows_of(batch, part, device, packed=self.packed, flexible=flexible)
                mean = self.objective(inputs) / valid
                (mean * (scale * self.world.gradient_factor)).backward()
                loss += mean.detach()
        return loss.item()

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
            with torch.compiler.set_stance("force_eager"):  # every length of a text would be compiled for
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
            flops_per_token=self.flops,
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


class Loader:
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

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: Any) -> None:
        self._thread.shutdown(cancel_futures=True)
