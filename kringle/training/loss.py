"""The loss of some rows of a batch, in whichever way suits the device: one module, so that DDP and FSDP can wrap it.

On a CPU the sequences of the rows are laid end to end and padding is never computed (`kringle.model.packed`), in fp32,
fp64 or, where the processor multiplies bfloat16 itself, bf16. Elsewhere, and with dropout, rows go through document
masks: none where every row is one sequence, FlexAttention's block masks for long rows on a GPU, else a boolean tensor.
A GPU works the loss out chunk by chunk (`kringle.model.chunked_loss`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kringle.model.chunked_loss import chunked_loss
from kringle.model.packed import Spans, linear_cross_entropy, spans_of
from kringle.model.transformer import Transformer, document_mask, loss_sum
from kringle.training.batches import IGNORED, PADDING, Batch

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
FLEX_FROM = (
    1024  # positions: on an H200 dense masks win at 512 and lose by 1.3 at 2,048, 2.3 at 8,192 (KempnerForge 207)
)


class Rows(NamedTuple):
    """Some rows as tensors on the device. `mask` as `Transformer.hidden` takes it; with spans all are flat (N,)."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor | Spans | BlockMask | None


def rows_of(batch: Batch, rows: slice, device: torch.device, *, packed: bool, flexible: bool = False) -> Rows:
    """These rows of a batch; `packed` without padding, `flexible` allows block masks (compiled blocks on a GPU)."""
    segments = batch.segments[rows]
    inside = segments != PADDING
    arrays = (batch.tokens, batch.positions, batch.targets)
    if packed:
        run = (segments + np.arange(len(segments))[:, None] * segments.shape[1])[inside]  # differs between sequences
        starts = np.flatnonzero(np.diff(run, prepend=-1))
        spans = spans_of(np.diff(starts, append=len(run)).tolist())
        tokens, positions, targets = (torch.from_numpy(a[rows][inside]).to(device) for a in arrays)
        return Rows(tokens, positions, targets, spans)
    tokens, positions, targets = (torch.from_numpy(a[rows]).to(device, non_blocking=True) for a in arrays)
    if not segments.any():  # every row is one sequence without padding
        return Rows(tokens, positions, targets, None)
    numbers = torch.from_numpy(segments).to(device, non_blocking=True)
    if flexible and segments.shape[1] >= FLEX_FROM:
        return Rows(tokens, positions, targets, block_mask(numbers))
    return Rows(tokens, positions, targets, document_mask(numbers))


def block_mask(segments: Tensor) -> BlockMask:
    """`document_mask` for FlexAttention, which skips blocks that are masked out as a whole; segments (B, T)."""

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[b, query] == segments[b, key])

    rows, length = segments.shape
    return _block_masks(segments.is_cuda)(visible, rows, None, length, length, device=segments.device)


@functools.cache
def _block_masks(compiled: bool) -> Callable[..., BlockMask]:
    """What makes block masks: compiled, it never has the (B, T, T) booleans in memory."""
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask) if compiled else create_block_mask


class Objective(nn.Module):
    """A model with its loss: `forward` gives the summed cross-entropy in nats of the rows' targets."""

    def __init__(self, model: Transformer, precision: Precision) -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, rows: Rows) -> Tensor:
        weight = self.model.transformer.wte.weight
        if isinstance(rows.mask, tuple):
            dtype = HALF.get(self.precision)
            hidden = self.model.hidden(rows.tokens, rows.positions, rows.mask, dtype)
            return linear_cross_entropy(hidden, weight, rows.targets, dtype)
        kind = rows.tokens.device.type
        half = HALF.get(self.precision)
        # No cache of cast weights: it would hold a 16-bit copy of the whole model until the end of the backward pass.
        with torch.autocast(kind, dtype=half, enabled=half is not None, cache_enabled=False):
            hidden = self.model.hidden(rows.tokens, rows.positions, rows.mask)
            if kind == "cpu" or self.precision == "fp16":
                valid = rows.targets != IGNORED
                return loss_sum(self.model.logits(hidden[valid]), rows.targets[valid])
        return chunked_loss(hidden.flatten(0, 1), weight, rows.targets.flatten(), half or weight.dtype)


def packs(device: torch.device, precision: Precision, dropout: float) -> bool:
    """Whether rows are laid end to end: on a CPU, without dropout, in a type whose products are fast there."""
    if device.type != "cpu" or dropout:
        return False
    return precision in ("fp32", "fp64") or (precision == "bf16" and multiplies_bf16())


def chosen(precision: Precision, device: torch.device) -> Precision:
    """The precision itself; for "auto" bf16 where the device has products of its own in it, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Whether this CPU has bfloat16 products of its own, as oneDNN sees it (AVX512_BF16, AMX or Arm's BF16)."""
    there: Any = torch.backends.mkldnn.is_available
    supported: Any = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return bool(there() and supported())
