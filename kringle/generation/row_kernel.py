"""One step of a few rows on a CPU, whole, in one compiled function: each weight is read from memory once.

A single stream is bound by reading the weights; calling a library some hundred times a step costs as much again for
models of this size. One core reads memory as fast as two here, so the kernel uses one. The second purpose: **a row's
result does not depend on the other rows**. Rows are multiplied in tiles of four, whatever their number, each sum runs
over its own row in an order that only the shapes fix, and attention is computed row by row over the row's own length.
That is what `--invariant` is made of: the same bits at any number of rows, in any order, on any number of threads.

Needs numba. Arithmetic is float32; weights are float32, bfloat16 (as uint16) or int8; keys and values float32 or
bfloat16. Shapes as in `kringle.generation.decoder`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from kringle.generation.selection_kernel import LN_2_HIGH, LN_2_LOW, LOG2_E
from kringle.generation.weights import Streams
from kringle.model.transformer import LAYER_NORM_EPSILON

TILE = 4  # rows multiplied together
OUTPUTS = 64  # outputs per block: the block's weights stay in the cache while all rows pass

# Sums may be reordered, which lets them be vectorised. The order is fixed when a function is compiled, so it is the
# same for every row that passes through it.
_kernel = njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})


def _wide(x: Any) -> Any:
    """A stored number as float32."""
    raise NotImplementedError


@overload(_wide, strict=False)
def _wide_overload(x: Any) -> Any:
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: np.float32(x)


def _put(array: Any, index: Any, x: Any) -> None:
    """Store a float32 in an array of float32, or rounded to the nearest bfloat16 in one of uint16."""
    raise NotImplementedError


@overload(_put, strict=False)
def _put_overload(array: Any, index: Any, x: Any) -> Any:
    if array.dtype == types.uint16:

        def rounded(array: Any, index: Any, x: Any) -> None:
            bits = np.float32(x).view(np.uint32)
            bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            array[index] = np.uint16(bits >> np.uint32(16))

        return rounded

    def plain(array: Any, index: Any, x: Any) -> None:
        array[index] = x

    return plain


@_kernel
def _exponential(x: np.float32) -> np.float32:
    """exp for x <= 0, two units in the last place from the exact value; see `selection_kernel.temper`."""
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    n = np.floor(x * LOG2_E + np.float32(0.5))
    x = x - n * LN_2_HIGH - n * LN_2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * x + np.float32(1.3981999507e-3)
    p = p * x + np.float32(8.3334519073e-3)
    p = p * x + np.float32(4.1665795894e-2)
    p = p * x + np.float32(1.6666665459e-1)
    p = p * x + np.float32(5.0000001201e-1)
    p = p * x * x + x + np.float32(1.0)
    return np.float32(p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32))


@_kernel
def _one_row(x: np.ndarray, w: np.ndarray, scale: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out (N,) = w (N, K) x (K,) * scale + bias."""
    n, k = w.shape
    for i in range(n):
        total = np.float32(0)
        for j in range(k):
            total += _wide(w[i, j]) * x[j]
        out[i] = total * scale[i] + bias[i]


@_kernel
def _rows(x: np.ndarray, w: np.ndarray, scale: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out (R, N) = x (R, K) w (N, K)^T * scale + bias, R a multiple of four and N of two."""
    n, k = w.shape
    for start in range(0, n, OUTPUTS):
        end = min(n, start + OUTPUTS)
        for r in range(0, x.shape[0], TILE):
            x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
            for i in range(start, end, 2):
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
                w0, w1 = w[i], w[i + 1]
                for j in range(k):
                    u, v = _wide(w0[j]), _wide(w1[j])
                    a0 += u * x0[j]
                    a1 += u * x1[j]
                    a2 += u * x2[j]
                    a3 += u * x3[j]
                    b0 += v * x0[j]
                    b1 += v * x1[j]
                    b2 += v * x2[j]
                    b3 += v * x3[j]
                s, t, c, d = scale[i], scale[i + 1], bias[i], bias[i + 1]
                out[r, i], out[r + 1, i], out[r + 2, i], out[r + 3, i] = a0 * s + c, a1 * s + c, a2 * s + c, a3 * s + c
                i += 1
                out[r, i], out[r + 1, i], out[r + 2, i], out[r + 3, i] = b0 * t + d, b1 * t + d, b2 * t + d, b3 * t + d


@_kernel
def _multiply(x: np.ndarray, w: np.ndarray, scale: np.ndarray, bias: np.ndarray, out: np.ndarray, alone: bool) -> None:
    if alone:
        _one_row(x[0], w, scale, bias, out[0])
    else:
        _rows(x, w, scale, bias, out)


@_kernel
def _normalise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """LayerNorm of every row of x (R, E)."""
    e = x.shape[1]
    for r in range(x.shape[0]):
        mean = np.float32(0)
        for j in range(e):
            mean += x[r, j]
        mean /= np.float32(e)
        variance = np.float32(0)
        for j in range(e):
            variance += (x[r, j] - mean) * (x[r, j] - mean)
        inverse = np.float32(1) / np.sqrt(variance / np.float32(e) + np.float32(LAYER_NORM_EPSILON))
        for j in range(e):
            out[r, j] = (x[r, j] - mean) * inverse * weight[j] + bias[j]


@_kernel
def _gelu(x: np.ndarray) -> None:
    """GELU's tanh form in place: x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[r, j]
            z = np.float32(1.5957691216057308) * (v + np.float32(0.044715) * v * v * v)
            e = _exponential(-abs(z))
            x[r, j] = v * (np.float32(1) if z >= 0 else e) / (np.float32(1) + e)


@_kernel
def _attend(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    length: int,
    scores: np.ndarray,
    one: np.ndarray,
    out: np.ndarray,
) -> None:
    """Queries (H D,) of one row over its keys and values (G, C, D), of which the first `length` count -> out (H D,)."""
    groups, d = keys.shape[0], keys.shape[2]
    heads = q.shape[0] // (groups * d)
    scale = np.float32(1) / np.sqrt(np.float32(d))
    for g in range(groups):
        for c in range(length):
            for j in range(d):
                one[j] = _wide(keys[g, c, j])
            for h in range(heads):
                total, first = np.float32(0), (g * heads + h) * d
                for j in range(d):
                    total += q[first + j] * one[j]
                scores[h, c] = total * scale
        for h in range(heads):
            highest = scores[h, 0]
            for c in range(1, length):
                highest = max(highest, scores[h, c])
            total = np.float32(0)
            for c in range(length):
                scores[h, c] = _exponential(scores[h, c] - highest)
            for c in range(length):
                total += scores[h, c]
            for c in range(length):
                scores[h, c] /= total
            first = (g * heads + h) * d
            out[first : first + d] = 0
        for c in range(length):
            for j in range(d):
                one[j] = _wide(values[g, c, j])
            for h in range(heads):
                first, weight = (g * heads + h) * d, scores[h, c]
                for j in range(d):
                    out[first + j] += weight * one[j]


@_kernel
def _step(
    embedding: np.ndarray,
    embedding_scale: np.ndarray,
    wpe: np.ndarray,
    attention: tuple[np.ndarray, np.ndarray, np.ndarray],
    projection: tuple[np.ndarray, np.ndarray, np.ndarray],
    mlp_in: tuple[np.ndarray, np.ndarray, np.ndarray],
    mlp_out: tuple[np.ndarray, np.ndarray, np.ndarray],
    norms: np.ndarray,
    final: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    tokens: np.ndarray,
    positions: np.ndarray,
    columns: np.ndarray,
    slots: np.ndarray,
    alone: bool,
    logits: np.ndarray,
) -> None:
    rows, e = len(tokens), wpe.shape[1]
    layers, _, groups, capacity, d = keys.shape
    padded = rows if alone else -(-rows // TILE) * TILE
    x = np.zeros((padded, e), np.float32)
    normal, added = np.zeros((padded, e), np.float32), np.zeros((padded, e), np.float32)
    fused = np.zeros((padded, attention[0].shape[1]), np.float32)
    inner = np.zeros((padded, mlp_in[0].shape[1]), np.float32)
    attended = np.zeros((padded, e), np.float32)
    scores, one = np.zeros((e // (groups * d), capacity), np.float32), np.zeros(d, np.float32)
    for r in range(rows):
        token, position = tokens[r], positions[r]
        for j in range(e):
            x[r, j] = _wide(embedding[token, j]) * embedding_scale[token] + wpe[position, j]
    for layer in range(layers):
        _normalise(x, norms[layer, 0], norms[layer, 1], normal)
        _multiply(normal, attention[0][layer], attention[1][layer], attention[2][layer], fused, alone)
        for r in range(rows):
            for g in range(groups):
                for j in range(d):
                    at = (layer, slots[r], g, columns[r], j)
                    _put(keys, at, fused[r, e + g * d + j])
                    _put(values, at, fused[r, e + (groups + g) * d + j])
        for r in range(rows):
            slot = slots[r]
            _attend(fused[r, :e], keys[layer, slot], values[layer, slot], columns[r] + 1, scores, one, attended[r])
        _multiply(attended, projection[0][layer], projection[1][layer], projection[2][layer], added, alone)
        x += added
        _normalise(x, norms[layer, 2], norms[layer, 3], normal)
        _multiply(normal, mlp_in[0][layer], mlp_in[1][layer], mlp_in[2][layer], inner, alone)
        _gelu(inner)
        _multiply(inner, mlp_out[0][layer], mlp_out[1][layer], mlp_out[2][layer], added, alone)
        x += added
    _normalise(x, final[0], final[1], normal)
    nothing = np.zeros(embedding.shape[0], np.float32)
    if alone:
        _one_row(normal[0], embedding, embedding_scale, nothing, logits[0])
    else:
        # The vocabulary's size may be odd; its last output then goes through a pair of its own with itself.
        even = embedding.shape[0] // 2 * 2
        whole = np.empty((padded, embedding.shape[0]), np.float32)
        _rows(normal, embedding[:even], embedding_scale[:even], nothing[:even], whole[:, :even])
        if even < embedding.shape[0]:
            last = np.empty((padded, 2), np.float32)
            pair = embedding[even - 1 :]
            _rows(normal, pair, embedding_scale[even - 1 :], nothing[even - 1 :], last)
            whole[:, even] = last[:, 1]
        logits[:rows] = whole[:rows]


def step(
    weights: Streams,
    keys: np.ndarray,
    values: np.ndarray,
    tokens: np.ndarray,
    positions: np.ndarray,
    columns: np.ndarray,
    slots: np.ndarray,
    logits: np.ndarray,
    *,
    alone: bool,
) -> None:
    """Feed tokens (R,) at positions (R,); their keys and values go to columns (R,) of slots (R,) of keys and values
    (L, slots, G, C, D), and logits (R, V) float32 is filled.

    Rows of one slot must come in the order of their columns: each sees the columns up to its own. `alone` is for R = 1:
    faster, but not the bits that the same row has in company.
    """
    w = weights
    _step(
        w.embedding,
        w.embedding_scale,
        w.positions,
        (w.attention, w.attention_scale, w.attention_bias),
        (w.projection, w.projection_scale, w.projection_bias),
        (w.mlp_in, w.mlp_in_scale, w.mlp_in_bias),
        (w.mlp_out, w.mlp_out_scale, w.mlp_out_bias),
        w.norms,
        w.final,
        keys,
        values,
        tokens,
        positions,
        columns,
        slots,
        alone,
        logits,
    )
