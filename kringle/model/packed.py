"""Operations with backward passes of their own, for training on a CPU: attention inside spans, linear maps in bfloat16,
GELU, and loss.

Plain PyTorch computes the same numbers (the tests hold both beside each other); these spend less memory traffic on it.
Time of one training step of a 1M-parameter model (4 layers, width 128, multi-query, vocabulary 2,176; 8 rows of 256
tokens) on one core with AVX2: 312 ms in plain PyTorch, 250 ms here, of which 160 ms are matrix products of the layers
and the vocabulary that neither can avoid. The loss saves 31 ms, attention 23 ms, GELU 12 ms. They pay only where memory
is slow beside arithmetic and calls are cheap; a GPU is better served by its fused kernels, so the trainer asks for
these on CPUs alone.

In bfloat16 the matrix products and what lies between them in a block are 16 bits wide, as under autocast; weights and
their gradients, the residual stream, LayerNorms and sums stay in float32.

Does not cover: attention over a key-value cache, float16, second derivatives.

Shapes: N tokens laid end to end without padding, G key-value heads, R query heads per key-value head, D head size,
E width, V vocabulary rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Spans = tuple[tuple[int, int], ...]
"""Where each piece starts and ends (exclusive) among N tokens laid end to end; they cover all of 0 .. N."""

QUERY_BLOCK = (
    64  # queries at once; the keys above the diagonal of a block are wasted work, smaller blocks are more calls
)
QUERY_BLOCK_16 = 128  # in bfloat16 a call costs more beside its arithmetic
LONGEST_KEPT = 512  # up to this span the probabilities are kept for the backward pass: N * H * 512 / 2 numbers a layer
LOGITS_AT_ONCE_16 = 1 << 22  # elements in bfloat16: fewer, larger products; the softmax is one pass there
LOGITS_AT_ONCE = 1 << 19  # elements, 2 MiB in float32: the passes over a chunk of logits stay in the second-level cache
GELU_AT_ONCE = 1 << 18  # elements, 1 MiB in float32, for the same reason

_softmax_backward = torch.ops.aten._softmax_backward_data.default


def spans_of(lengths: Sequence[int]) -> Spans:
    """Spans of pieces of these lengths, end to end."""
    spans, start = [], 0
    for length in lengths:
        spans.append((start, start + length))
        start += length
    return tuple(spans)


@functools.lru_cache(maxsize=256)
def _above_diagonal(queries: int, repeat: int, dtype: torch.dtype) -> Tensor:
    """(queries * repeat, queries): minus infinity where a key comes after the query, 0 elsewhere."""
    future = torch.full((queries, queries), -math.inf, dtype=dtype).triu(1)
    return future.repeat_interleave(repeat, 0)


class _SpanAttention(torch.autograd.Function):
    """Softmax attention, block of queries by block of queries; keys after a block are never touched."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: Spans) -> Tensor:
        repeat = q.shape[1] // k.shape[1]
        q = q * (1 / math.sqrt(q.shape[2]))  # once, so that no product needs a factor: a factor costs a copy in bf16
        out, kept = torch.empty_like(q), []
        block = QUERY_BLOCK_16 if q.dtype == torch.bfloat16 else QUERY_BLOCK
        for start, end in spans:
            for first in range(start, end, block):
                last = min(first + block, end)
                rows = slice(first * repeat, last * repeat)
                scores = torch.bmm(q[:, rows], k[:, start:last].mT)  # (G, queries * R, keys)
                scores[:, :, first - start :].add_(_above_diagonal(last - first, repeat, q.dtype))
                probabilities = scores.softmax(-1)
                torch.bmm(probabilities, v[:, start:last], out=out[:, rows])
                kept.append(probabilities)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.spans, ctx.block = spans, block
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        repeat = q.shape[1] // k.shape[1]
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        blocks = iter(kept)
        for start, end in ctx.spans:
            for first in range(start, end, ctx.block):
                last = min(first + ctx.block, end)
                rows, keys = slice(first * repeat, last * repeat), slice(start, last)
                probabilities, g = next(blocks), grad[:, rows]
                dv[:, keys].baddbmm_(probabilities.mT, g)
                dp = torch.bmm(g, v[:, keys].mT)
                ds = _softmax_backward(dp, probabilities, -1, dp.dtype)
                torch.bmm(ds, k[:, keys], out=dq[:, rows])
                dk[:, keys].baddbmm_(ds.mT, q[:, rows])
        return dq.mul_(1 / math.sqrt(q.shape[2])), dk, dv, None


_apply_attention: Callable[[Tensor, Tensor, Tensor, Spans], Tensor] = _SpanAttention.apply


def span_attention(q: Tensor, k: Tensor, v: Tensor, spans: Spans) -> Tensor:
    """Causal attention inside each span; q and result (G, N * R, D), k and v (G, N, D).

    The R queries of a token that share a key-value head are consecutive rows, so multi-query attention (G = 1, R = H)
    is one matrix product for all heads, and multi-head attention (G = H, R = 1) one batch of them. Spans beyond
    `LONGEST_KEPT` tokens go through PyTorch's kernel, which recomputes the probabilities instead of keeping them.
    """
    if max(end - start for start, end in spans) <= LONGEST_KEPT:
        return _apply_attention(q, k, v, spans)
    groups, tokens, d = k.shape
    heads = q.view(groups, tokens, -1, d).permute(0, 2, 1, 3).flatten(0, 1)  # (H, N, D)
    parts = [
        F.scaled_dot_product_attention(
            heads[None, :, a:b], k[None, :, a:b], v[None, :, a:b], is_causal=True, enable_gqa=True
        )
        for a, b in spans
    ]
    joined = torch.cat(parts, dim=2).view(groups, -1, tokens, d)  # (G, R, N, D)
    return joined.transpose(1, 2).reshape(q.shape)


class _Linear16(torch.autograd.Function):
    """x (N, A) bfloat16 through float32 weights (B, A) and bias (B,); the gradients of both come out in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        narrow = weight.to(x.dtype)
        ctx.save_for_backward(x, narrow)
        return torch.addmm(bias.to(x.dtype), x, narrow.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, narrow = ctx.saved_tensors
        return grad @ narrow, (grad.T @ x).float(), grad.sum(0, dtype=torch.float32)


_apply_linear: Callable[[Tensor, Tensor, Tensor], Tensor] = _Linear16.apply


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, A) -> (N, B), in the type of x."""
    return F.linear(x, weight, bias) if x.dtype == weight.dtype else _apply_linear(x, weight, bias)


class _Gelu(torch.autograd.Function):
    """The tanh form written as x * sigmoid(w(x)), w(x) = sqrt(8 / pi) * (x + 0.044715 x^3), an identity: exp costs a
    third of tanh. The derivative is worked out while x is in the cache, and kept instead of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out, derivative = torch.empty_like(x), torch.empty_like(x)
        rows = max(1, GELU_AT_ONCE // x.shape[1])
        for x_, out_, d_ in zip(*(torch.split(t, rows) for t in (x, out, derivative)), strict=True):
            if x.dtype == torch.bfloat16:
                out_wide, d_wide = torch.empty_like(x_, dtype=torch.float32), torch.empty_like(x_, dtype=torch.float32)
                _gelu(x_.float(), out_wide, d_wide)
                out_.copy_(out_wide)
                d_.copy_(d_wide)
            else:
                _gelu(x_, out_, d_)
        ctx.save_for_backward(derivative)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        result: Tensor = grad * derivative
        return result


def _gelu(x: Tensor, out: Tensor, derivative: Tensor) -> None:
    """Fill `out` with GELU(x) and `derivative` with its derivative."""
    linear = math.sqrt(8 / math.pi)
    cubic = 0.044715 * linear
    square = x * x
    gate = (square * cubic).add_(linear).mul_(x).sigmoid_()
    torch.mul(x, gate, out=out)
    slope = square.mul_(3 * cubic).add_(linear)  # w'(x)
    torch.addcmul(out, out, gate, value=-1, out=derivative)  # x * gate * (1 - gate)
    torch.addcmul(gate, derivative, slope, out=derivative)


_apply_gelu: Callable[[Tensor], Tensor] = _Gelu.apply


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, of x (N, E)."""
    return _apply_gelu(x)


class _LinearCrossEntropy(torch.autograd.Function):
    """Logits, loss and gradients chunk by chunk: the whole (N, V) is never in memory."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64)
        rows = max(64, LOGITS_AT_ONCE // len(weight))  # below 64 rows the product reads weights more than it computes
        buffer = hidden.new_empty(min(rows, len(hidden)), len(weight))
        chunks = (torch.split(t, rows) for t in (hidden, d_hidden, targets[:, None]))
        for h, d_h, column in zip(*chunks, strict=True):
            logits = torch.mm(h, weight.T, out=buffer[: len(h)])
            logits -= logits.amax(1, keepdim=True)
            picked = logits.gather(1, column)
            scale = logits.exp_().sum(1, keepdim=True)
            total += (scale.log() - picked).sum(dtype=torch.float64)
            logits /= scale  # probabilities
            logits.scatter_add_(1, column, torch.full_like(picked, -1))  # the gradient of the loss by the logits
            torch.mm(logits, weight, out=d_h)
            d_weight.addmm_(logits.T, h)
        ctx.save_for_backward(d_hidden, d_weight)
        return total.to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grad, d_weight * grad, None


_apply_loss: Callable[[Tensor, Tensor, Tensor], Tensor] = _LinearCrossEntropy.apply


class _LinearCrossEntropy16(torch.autograd.Function):
    """The same with logits and probabilities in bfloat16.

    Probabilities are rounded to 8 bits, and the loss is their logarithm: each token's is off by up to 0.4% of a nat,
    without bias, a batch's by far less. What is below the smallest bfloat16 counts as 87 nats.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        narrow, h16 = weight.to(torch.bfloat16), hidden.to(torch.bfloat16)
        d_hidden, d_weight = torch.empty_like(h16), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64)
        rows = max(64, LOGITS_AT_ONCE_16 // len(weight))
        for h, d_h, column in zip(*(torch.split(t, rows) for t in (h16, d_hidden, targets[:, None])), strict=True):
            probabilities = torch.softmax(torch.mm(h, narrow.T), 1)
            picked = probabilities.gather(1, column)
            total -= picked.double().clamp_min(_SMALLEST).log().sum()
            probabilities.scatter_(1, column, picked - 1)
            torch.mm(probabilities, narrow, out=d_h)
            d_weight += torch.mm(probabilities.T, h)
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtype = hidden.dtype
        return total.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden.to(ctx.dtype) * grad, d_weight * grad, None


_SMALLEST = torch.finfo(torch.bfloat16).tiny
_apply_loss_16: Callable[[Tensor, Tensor, Tensor], Tensor] = _LinearCrossEntropy16.apply


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Summed cross-entropy in nats of targets (N,) under logits hidden (N, E) @ weight (V, E)^T.

    `dtype` bfloat16 makes the products 16 bits wide; hidden and weight are given in float32 in both cases.
    """
    return _apply_loss_16(hidden, weight, targets) if dtype == torch.bfloat16 else _apply_loss(hidden, weight, targets)
