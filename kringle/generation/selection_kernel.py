"""Choosing tokens on a CPU, row by row, in passes that stay in the core's cache.

The borders of top-k and of the nucleus are found by bisection over the bits of the weights. Positive floats order as
their bit patterns do, so "the largest weight w such that the tokens of weight >= w have mass p" is found by halving an
interval of integers, each time summing the weights above its middle: vectorised passes instead of a sort, and soon over
only what lies inside the interval. Needs numba; `selection.choose_by_sorting` chooses the same tokens without.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BITS_OF_SIZE = 0x7FFFFFFF  # all but the sign
BITS_OF_INFINITY = 0x7F800000
BITS_OF_ONE = 0x3F800000  # the highest weight of every row is 1
BITS_OF_FIRST_PROBE = 0x37800000  # 2^-16: the border of a nucleus lies above it in practice, which saves three passes
BLOCK = 64  # weights summed at once while looking for the token drawn

LOG2_E = np.float32(1.4426950408889634)
LN_2_HIGH = np.float32(
    0.693359375
)  # ln 2 in two parts, the first with so few bits that its product with an integer below
LN_2_LOW = np.float32(
    -2.12194440e-4
)  # 2^15 is exact (Cody and Waite, 1980; the pair and the polynomial are Cephes' expf)

# Sums may be reordered, which is what lets them be vectorised; NaN and infinity keep their meaning.
_kernel = njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
_in_order = njit(nogil=True, cache=True, fastmath={"nsz", "contract"})  # where the order of operations is the point


@_kernel
def select_rows(
    logits: np.ndarray,
    inverse_temperature: np.ndarray,
    top_p: np.ndarray,
    top_k: np.ndarray,
    uniforms: np.ndarray,
    floor: np.float32,
    ids: np.ndarray,
    log_probabilities: np.ndarray,
) -> None:
    """Fill ids (R,) and log-probabilities (R,) with draws from logits (R, V), or (1, V) for all rows; float32.

    An inverse temperature (R,) of 0 is greedy. The id of a row whose maximum is no finite number is -1. See
    `kringle.generation.selection` for the definitions and for `floor`.
    """
    width = logits.shape[1]
    weights, mass = np.empty(width, np.float32), np.empty(width, np.float32)
    bits = np.empty(width, np.int32)
    highest = np.float32(0)
    for r in range(len(ids)):
        row = logits[min(r, len(logits) - 1)]
        if r < len(logits):
            highest = maximum(row)
        if not np.isfinite(highest):
            ids[r] = -1
            continue
        total = temper(row, highest, np.float32(1.0), floor, weights)
        if inverse_temperature[r] == 0:
            chosen = 0
            while row[chosen] < highest:
                chosen += 1
        else:
            if inverse_temperature[r] != 1:
                temper(row, highest, inverse_temperature[r], floor, weights)
            chosen = choose(weights, top_p[r], top_k[r], uniforms[r], bits, mass)
        ids[r] = chosen
        log_probabilities[r] = row[chosen] - highest - np.log(total)


@_kernel
def maximum(row: np.ndarray) -> np.float32:
    """The highest of some float32 (V,), NaN where one of them is.

    Of their bits, which is vectorised as a comparison of floats that may be NaN is not: those of negative numbers are
    turned round, so that all order as the numbers do.
    """
    bits = row.view(np.int32)
    highest, farthest = np.int32(-BITS_OF_SIZE - 1), np.int32(0)
    for j in range(bits.shape[0]):
        size = bits[j] & np.int32(BITS_OF_SIZE)
        highest = max(highest, np.int32(bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(BITS_OF_SIZE))))
        farthest = max(farthest, size)
    if farthest > BITS_OF_INFINITY:
        return np.float32(np.nan)
    return np.float32(np.int32(highest ^ ((highest >> np.int32(31)) & np.int32(BITS_OF_SIZE))).view(np.float32))


@_in_order
def temper(
    row: np.ndarray, highest: np.float32, inverse_temperature: np.float32, floor: np.float32, weights: np.ndarray
) -> float:
    """Fill weights (V,) with exp((row - highest) * inverse_temperature), 0 where that exponent is not above `floor`,
    and return their sum.

    Two units in the last place from the exact exponential; as plain arithmetic it is vectorised, which a call of the
    library's exp is not (0.4 against 1.0 nanoseconds each).
    """
    for j in range(row.shape[0]):
        y = (row[j] - highest) * inverse_temperature
        x = floor if y < floor else y
        n = np.floor(x * LOG2_E + np.float32(0.5))
        x = x - n * LN_2_HIGH - n * LN_2_LOW
        p = np.float32(1.9875691500e-4)
        p = p * x + np.float32(1.3981999507e-3)
        p = p * x + np.float32(8.3334519073e-3)
        p = p * x + np.float32(4.1665795894e-2)
        p = p * x + np.float32(1.6666665459e-1)
        p = p * x + np.float32(5.0000001201e-1)
        p = p * x * x + x + np.float32(1.0)
        p = p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
        weights[j] = p if y > floor else np.float32(0)
    return _sum(weights)


@_kernel
def choose(
    weights: np.ndarray, top_p: float, top_k: int, uniform: float, scratch_bits: np.ndarray, scratch_mass: np.ndarray
) -> int:
    """Draw from unnormalised probabilities (V,) float32, the highest of which is 1; some weights are overwritten."""
    width = weights.shape[0]
    bits = weights.view(np.int32)
    if 0 < top_k < width:
        border, above, ties = _border(bits, np.ones(width, np.float32), float(top_k), scratch_bits, scratch_mass)
        _drop_ties(bits, border, top_k - int(above), ties)
        for j in range(width):
            bits[j] = bits[j] if bits[j] >= border else 0
    mass, border = _sum(weights), np.int32(1)
    if top_p < 1.0:
        target = top_p * mass
        border, mass, ties = _border(bits, weights, target, scratch_bits, scratch_mass)
        kept = 0
        while mass < target and kept < ties:
            mass += np.float64(np.int32(border).view(np.float32))
            kept += 1
        _drop_ties(bits, border, kept, ties)
    return _draw(bits, weights, border, uniform * mass)


@_kernel
def _sum(mass: np.ndarray) -> float:
    total = 0.0
    for j in range(mass.shape[0]):
        total += np.float64(mass[j])
    return total


@_kernel
def _mass_from(bits: np.ndarray, mass: np.ndarray, border: np.int32) -> float:
    """Mass of the tokens whose bits are at least `border`."""
    total = 0.0
    for j in range(bits.shape[0]):
        total += np.float64(mass[j]) if bits[j] >= border else 0.0
    return total


@_kernel
def _border(
    bits: np.ndarray, mass: np.ndarray, target: float, scratch_bits: np.ndarray, scratch_mass: np.ndarray
) -> tuple[np.int32, float, int]:
    """The highest border such that the tokens whose bits are at least that much have a mass of `target` or more, the
    mass of those above it, and the number of those on it."""
    low, high = np.int32(0), np.int32(BITS_OF_ONE + 1)  # mass from `low` reaches the target, mass from `high` does not
    middle, from_high, left_out = np.int32(BITS_OF_FIRST_PROBE), 0.0, 0.0
    passes = 0
    while high - low > 1:
        from_middle = left_out + _mass_from(bits, mass, middle)
        if from_middle >= target:
            low = middle
        else:
            high, from_high = middle, from_middle
        middle = low + (high - low) // np.int32(2)
        passes += 1
        if passes in (1, 4, 8):  # copy out what lies inside the interval
            n = _copy_between(low, high, bits, mass, scratch_bits, scratch_mass)
            bits, mass, left_out = scratch_bits[:n], scratch_mass[:n], from_high
    ties = 0
    for j in range(bits.shape[0]):
        ties += bits[j] == low
    return low, from_high, ties


@_kernel
def _copy_between(
    low: np.int32, high: np.int32, bits: np.ndarray, mass: np.ndarray, to_bits: np.ndarray, to_mass: np.ndarray
) -> int:
    """Copy the tokens with low <= bits < high; returns their number. Source and target may be the same memory."""
    n, span = 0, np.uint32(high - low)
    for j in range(bits.shape[0]):  # without a branch, which would be mispredicted every other time
        b, m = bits[j], mass[j]
        to_bits[n], to_mass[n] = b, m
        n += int(np.uint32(b - low) < span)
    return n


@_kernel
def _drop_ties(bits: np.ndarray, border: np.int32, kept: int, ties: int) -> None:
    """Set all but the first `kept` weights on the border to 0; there are `ties` of them."""
    j = bits.shape[0]
    while ties > kept:
        j -= 1
        if bits[j] == border:
            bits[j] = 0
            ties -= 1


@_kernel
def _draw(bits: np.ndarray, weights: np.ndarray, border: np.int32, target: float) -> int:
    """The first token at which the cumulative mass of those from the border on exceeds `target`."""
    width, total, last = weights.shape[0], 0.0, 0
    for start in range(0, width, BLOCK):
        end = min(width, start + BLOCK)
        after = total + _mass_from(bits[start:end], weights[start:end], border)
        if after > target:
            for j in range(start, end):
                if bits[j] >= border:
                    total += np.float64(weights[j])
                    if total > target:
                        return j
        total = after
    # The target is below the mass, yet sums in another order may fall short of it by a rounding.
    for j in range(width):
        if bits[j] >= border:
            last = j
    return last
