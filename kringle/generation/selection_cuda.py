"""Choosing tokens on a GPU: one program a row finds the borders of top-k and of the nucleus by bisection.

The same search as `selection_kernel`'s, over the bit patterns of the weights, so nothing is sorted and nothing is
written but the chosen id. Every pass reads the row again, from the second-level cache where it fits. Sums run in
float64, in an order that only the width fixes: a row's choice depends on its weights and its own settings alone. Needs
triton, which CUDA builds of torch bring.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Weights read at once, and warps that read them: few turns of the loop, as one row has one processor to itself.
BLOCK, WARPS = 8192, 16


def choose_by_bisection(weights: Tensor, p: Tensor, k: Tensor, u: Tensor) -> Tensor:
    """Ids (R,) drawn from unnormalised probabilities (R, V) float32, the highest in a row 1, with top-p (R,) float64,
    top-k (R,) int64 (0 keeps all) and uniforms (R,) float64: what `selection.choose_by_sorting` returns."""
    rows, width = weights.shape
    ids = torch.zeros(rows, dtype=torch.int64, device=weights.device)
    block = min(BLOCK, triton.next_power_of_2(width))
    warps = max(1, min(WARPS, block // 512))
    _choose[(rows,)](weights.contiguous(), p, k, u, ids, WIDTH=width, BLOCK=block, num_warps=warps)
    return ids


@triton.jit  # type: ignore[untyped-decorator]
def _mass_from(row, border, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mass, in float64, of the weights whose bits are at least `border`."""
    at = tl.arange(0, BLOCK)
    mass = tl.zeros([BLOCK], tl.float64)
    for start in range(0, WIDTH, BLOCK):
        w = tl.load(row + start + at, mask=start + at < WIDTH, other=0.0)
        mass += tl.where(w.to(tl.int32, bitcast=True) >= border, w, 0.0).to(tl.float64)
    return tl.sum(mass, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _count_from(row, border, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Number of weights whose bits are at least `border`, which is at least 1."""
    at = tl.arange(0, BLOCK)
    count = tl.zeros([BLOCK], tl.int32)
    for start in range(0, WIDTH, BLOCK):
        w = tl.load(row + start + at, mask=start + at < WIDTH, other=0.0)
        count += (w.to(tl.int32, bitcast=True) >= border).to(tl.int32)
    return tl.sum(count, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _choose(weights, p, k, u, ids, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    # Kept are the weights above a border and the first `ties` (in order of ids) of those on it. Bits of positive floats
    # order as the floats do; 1.0, the highest weight, has the bits 0x3F800000, and 31 halvings find one of so many.
    r = tl.program_id(0).to(tl.int64)
    row = weights + r * WIDTH
    nucleus, most, uniform = tl.load(p + r), tl.load(k + r), tl.load(u + r)
    border = tl.full([], 1, tl.int32)  # weight 0 is never drawn
    ties = tl.full([], 1, tl.int32) * WIDTH
    if (most > 0) & (most < WIDTH):
        low = tl.full([], 0, tl.int32)  # `most` tokens or more from `low`, fewer from `high`
        high = tl.full([], 0x3F800001, tl.int32)
        for _ in range(31):
            middle = low + (high - low) // 2
            # Masked places of the last block read as 0: they count from border 0 only, which is never asked for again.
            enough = (middle == low) | (_count_from(row, middle, WIDTH, BLOCK) >= most)
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        if low > 0:
            border = low
            ties = (most - _count_from(row, low + 1, WIDTH, BLOCK)).to(tl.int32)
    above = _mass_from(row, border + 1, WIDTH, BLOCK)
    on_border = _mass_from(row, border, WIDTH, BLOCK) - above
    weight = border.to(tl.float32, bitcast=True).to(tl.float64)
    mass = above + tl.minimum(ties.to(tl.float64) * weight, on_border)
    if nucleus < 1.0:
        target = nucleus * mass
        low = border
        high = tl.full([], 0x3F800001, tl.int32)
        for _ in range(31):
            middle = low + (high - low) // 2
            enough = (middle == low) | (_mass_from(row, middle, WIDTH, BLOCK) >= target)
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        limit = tl.where(low == border, ties, WIDTH)
        border = low
        above = _mass_from(row, border + 1, WIDTH, BLOCK)
        weight = border.to(tl.float32, bitcast=True).to(tl.float64)
        needed = tl.ceil((target - above) / weight)
        ties = tl.minimum(tl.maximum(needed, 1.0), limit.to(tl.float64)).to(tl.int32)
        mass = above + tl.minimum(ties.to(tl.float64) * weight, _mass_from(row, border, WIDTH, BLOCK) - above)
    # The first kept token, by id, at which the mass passes the target; the last kept one if rounding lets none do so.
    target = uniform * mass
    at = tl.arange(0, BLOCK)
    passed = tl.full([], 0.0, tl.float64)
    seen = tl.full([], 0, tl.int32)
    chosen = tl.full([], 0, tl.int32) + WIDTH
    last = tl.full([], 0, tl.int32)
    for start in range(0, WIDTH, BLOCK):
        w = tl.load(row + start + at, mask=start + at < WIDTH, other=0.0)
        bits = w.to(tl.int32, bitcast=True)
        tie = (bits == border).to(tl.int32)
        rank = seen + tl.cumsum(tie, 0)
        kept = (bits > border) | ((tie == 1) & (rank <= ties))
        mass_at = passed + tl.cumsum(tl.where(kept, w, 0.0).to(tl.float64), 0)
        chosen = tl.minimum(chosen, tl.min(tl.where(kept & (mass_at > target), start + at, WIDTH), 0))
        last = tl.maximum(last, tl.max(tl.where(kept, start + at, 0), 0))
        passed += tl.sum(tl.where(kept, w, 0.0).to(tl.float64), 0)
        seen += tl.sum(tie, 0)
    tl.store(ids + r, tl.where(chosen < WIDTH, chosen, last).to(tl.int64))
