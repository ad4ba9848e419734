"""Several processes that train one model: DDP (every process holds it) or FSDP2 (each holds a part of every tensor).

`torchrun` starts the processes and tells each its rank. A rank takes its share of the rows of the same global batch;
losses are sums divided by the number of targets in the whole batch, so the number of ranks changes nothing but the
order in which floating-point numbers are added. Checkpoints hold whole tensors: any number of ranks can go on from one.
Does not cover: tensor, sequence and pipeline parallelism.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kringle.errors import UserError
from kringle.model.transformer import Transformer
from kringle.training.loss import Objective

Strategy = Literal["ddp", "fsdp"]
T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # that ranks wait for one that reads or writes files; PyTorch's ten minutes are too few


@dataclass(frozen=True)
class World:
    """This process' place among those that train together; one process is a world, too."""

    rank: int = 0
    size: int = 1
    strategy: Strategy = "ddp"
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a value)

    @property
    def first(self) -> bool:
        """Whether this process writes logs, checkpoints and models."""
        return self.rank == 0

    def rows(self, count: int) -> tuple[int, int]:
        """First row and number of rows of this rank's share of a global batch; UserError where it cannot be shared."""
        if count % self.size:
            raise UserError(
                f"a batch of {count} rows cannot be shared by {self.size} processes",
                where="training.batch_tokens",
                hint="use a multiple of the context times the number of processes",
            )
        share = count // self.size
        return self.rank * share, share

    # -- numbers -------------------------------------------------------------------------------------------------------

    def sums(self, values: list[float]) -> list[float]:
        """Each number summed over all ranks, in float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(x) for x in tensor.tolist()]

    def agree(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def first_only(self, work: Callable[[], T]) -> T:
        """`work()` on the first rank, its result everywhere. Its error is raised on all ranks, so that none waits for
        the others forever: a UserError as it is, any other as it is on the first and as a RuntimeError elsewhere."""
        if self.size == 1:
            return work()
        result, fault = _attempt(work) if self.first else (None, None)
        result, told = self.agree((result, _portable(fault)))
        if fault is not None:
            raise fault
        _raise(told, 0)
        return result  # type: ignore[no-any-return]

    def every(self, work: Callable[[], T]) -> T:
        """`work()` on every rank, each one's own result. The first error is raised on all ranks, as by `first_only`."""
        if self.size == 1:
            return work()
        result, fault = _attempt(work)
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, _portable(fault))
        if fault is not None:
            raise fault
        for rank, one in enumerate(told):
            _raise(one, rank)
        return result  # type: ignore[return-value]

    # -- models --------------------------------------------------------------------------------------------------------

    def wrap(self, objective: Objective) -> nn.Module:
        """The module whose forward and backward passes run on all ranks together."""
        if self.size == 1:
            return objective
        if self.strategy == "ddp":
            ids = [self.device.index] if self.device.type == "cuda" else None
            return DistributedDataParallel(objective, device_ids=ids, gradient_as_bucket_view=True)
        from torch.distributed.fsdp import fully_shard

        mesh = dist.device_mesh.init_device_mesh(self.device.type, (self.size,))
        for block in objective.model.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective

    def accumulating(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Keeps gradients at home until the last part of a batch."""
        if self.size > 1 and isinstance(module, DistributedDataParallel) and not last:
            return module.no_sync()
        if self.size > 1 and self.strategy == "fsdp":
            module.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    @property
    def gradient_factor(self) -> float:
        """What a loss is multiplied by, because both ways average gradients over the ranks."""
        return float(self.size)

    def whole_model(self, model: Transformer) -> Transformer:
        """The model with whole tensors: itself, or a copy put together from all ranks (called on every rank)."""
        if self.size == 1 or self.strategy == "ddp":
            return model
        state = {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
        with torch.device("meta"):
            copy = Transformer(model.config)
        copy.load_state_dict(state, assign=True)
        return copy


_Told = tuple[str, str, str, bool]  # what, where, hint, and whether it is the user's


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # to be raised once the other ranks know of it
        return None, error


def _portable(fault: Exception | None) -> _Told | None:
    """What another process has to know of an error: what, where, hint, and whether it is the user's."""
    if fault is None:
        return None
    if isinstance(fault, UserError):
        return fault.what, fault.where, fault.hint, True
    return f"{type(fault).__name__}: {fault}", "", "", False


def _raise(told: _Told | None, rank: int) -> None:
    if told is None:
        return
    what, where, hint, users = told
    if users:
        raise UserError(what, where=where, hint=hint)
    raise RuntimeError(f"process {rank} of this training failed: {what}")


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be spread over ranks, put together; every rank must call this in the same order."""
    if not dist.is_initialized():  # one process alone spares itself the second that importing DTensor takes
        return tensor
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor laid out over the ranks as `model` is."""
    if not dist.is_initialized():
        return tensor.to(model.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(model, DTensor) and tensor.dim():
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device)


def join(strategy: Strategy = "ddp") -> World:
    """The world that `torchrun` (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT)
    has made; without one, this process alone on its GPU or CPU."""
    cuda = torch.cuda.is_available()
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise UserError(
            f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}",
            where="torchrun",
            hint="start as many processes a machine as it has GPUs",
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size == 1:
        return World(device=device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    return World(dist.get_rank(), dist.get_world_size(), strategy, device)


def leave(*, finished: bool = False) -> None:
    """End what `join` began. Where all processes are `finished`, they wait for one another: one that ended first would
    take the connection from those that still use it."""
    if dist.is_initialized():
        if finished:
            dist.barrier()
        dist.destroy_process_group()


def end() -> NoReturn:
    """End this process, one of several, with exit code 0 and without Python's own tidying up; call it last.

    DTensor's caches keep the process group alive after `leave`, and with it gloo's threads. One of them that lets go of
    a tensor while Python is being taken apart aborts the process ("terminate called without an active exception"; see
    pytorch pull request 179291), and a launcher would take a training that is finished for one that failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
