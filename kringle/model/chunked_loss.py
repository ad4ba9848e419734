"""The loss on a GPU: logits, their softmax and both gradients chunk by chunk, so that (N, V) is never in memory whole.

Plain PyTorch keeps the logits of a micro-batch three times (16 bits, float32, and their gradient): 8 GB for 16,384
tokens of a vocabulary of 49,280. Here a chunk's gradient is worked out while its logits are there, so the backward pass
only scales what is ready. With Triton the passes over a chunk are two fused kernels.

Does not cover: float16, whose gradients need the loss scale before they are rounded; the CPU (`kringle.model.packed`).

Shapes: N tokens, E width, V vocabulary rows.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100  # a target that counts for nothing, as in PyTorch's cross_entropy
ROWS_AT_ONCE = 8192  # tokens: 0.8 GB of logits at V = 49,280; the products are as fast as with all rows at once


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (float32 at least) of targets (n,) and its gradient by the logits (n, V), in their type."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    valid = targets != IGNORED
    total = torch.logsumexp(wide, 1)
    picked = wide.gather(1, targets.clamp_min(0)[:, None])[:, 0]
    loss = torch.where(valid, total - picked, 0.0).sum()
    hit = torch.arange(wide.shape[1], device=wide.device)[None] == targets[:, None]
    gradient = torch.where(valid[:, None], (wide - total[:, None]).exp() - hit.to(wide.dtype), 0.0)
    return loss, gradient.to(logits.dtype)


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(loss_and_gradient)


def compiles(device: torch.device) -> bool:
    """Whether torch.compile is worth it: on a GPU with Triton to compile with. On a CPU `kringle.model.packed` is
    faster."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        narrow, h = weight.to(dtype), hidden.to(dtype)
        d_hidden, d_weight = torch.empty_like(h), torch.zeros_like(weight)
        total = torch.zeros((), dtype=weight.dtype, device=h.device)
        work = _compiled() if compiles(h.device) else loss_and_gradient
        for part, d_part, wanted in zip(*(torch.split(t, ROWS_AT_ONCE) for t in (h, d_hidden, targets)), strict=True):
            loss, gradient = work(torch.mm(part, narrow.T), wanted)
            total += loss
            torch.mm(gradient, narrow, out=d_part)
            d_weight += torch.mm(gradient.T, part)
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtype = hidden.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden.to(ctx.dtype).mul_(grad), d_weight.mul_(grad), None, None


_apply: Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor] = _ChunkedLoss.apply


def chunked_loss(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Summed cross-entropy in nats of targets (N,), -100 for none, under logits hidden (N, E) @ weight (V, E)^T.

    The products are in `dtype` (bfloat16, float32 or float64), sums and the weight's gradient in the weight's type.
    """
    return _apply(hidden, weight, targets, dtype)
