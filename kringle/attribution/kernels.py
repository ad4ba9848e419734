"""Hashing and sampling for the attribution index, compiled with numba.

A document is sampled at every `STEP`-th byte: a seed of `SEED` bytes there, hashed to 64 bits, and for the `SIDE`
bytes left and right of the seed a tag of 8 bits each. Any common stretch of `SHORTEST` bytes holds a whole seed, and
beside it `SIDE` bytes on one side at least, because SHORTEST = SEED + STEP - 1 and 2 * SIDE <= SHORTEST - SEED. So a
query that looks up all its own offsets, and follows only seeds with an equal tag on one side, misses nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

SHORTEST = 50  # bytes: what counts as a copy; a character has one or more of them
SEED = 16  # two words of 64 bits
STEP = SHORTEST - SEED + 1
SIDE = (SHORTEST - SEED) // 2
NO_TAG = 0  # where there is no whole side; equal to no tag

Bytes = NDArray[np.uint8]

_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finalizer
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S8, _S27, _S30, _S31 = np.uint64(8), np.uint64(27), np.uint64(30), np.uint64(31)

_kernel = njit(nogil=True, cache=True)


@_kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _MULTIPLIER_1
    x = (x ^ (x >> _S27)) * _MULTIPLIER_2
    return x ^ (x >> _S31)


@_kernel
def _word(text: Bytes, start: int, length: int) -> np.uint64:
    value = np.uint64(0)
    for i in range(start, start + length):
        value = (value << _S8) | np.uint64(text[i])
    return value


@_kernel
def _seed_hash(text: Bytes, at: int) -> np.uint64:
    return _mix(_mix(_word(text, at, 8) + _GOLDEN) ^ _word(text, at + 8, 8))


@_kernel
def _tag(text: Bytes, start: int, end: int) -> np.uint8:
    """1 to 255 of the `SIDE` bytes from `start`; `NO_TAG` where the text does not have them all."""
    if start < 0 or end > len(text):
        return np.uint8(NO_TAG)
    value = _mix(_word(text, start, 8) + _GOLDEN)
    value = _mix(value ^ _word(text, start + 8, end - start - 8))
    return np.uint8(1 + value % np.uint64(255))


@_kernel
def sample(text: Bytes, step: int, hashes: NDArray[np.uint64], left: Bytes, right: Bytes) -> int:
    """Fill hash and tags of the seeds at 0, step, 2 * step, ...; returns how many there are."""
    count = 0
    for at in range(0, len(text) - SEED + 1, step):
        hashes[count] = _seed_hash(text, at)
        left[count] = _tag(text, at - SIDE, at)
        right[count] = _tag(text, at + SEED, at + SEED + SIDE)
        count += 1
    return count


@_kernel
def without_white_space(text: Bytes, out: Bytes, places: NDArray[np.int64]) -> int:
    """Copy all bytes but white space to `out`, and where each came from to `places`; returns how many."""
    count = 0
    for i in range(len(text)):
        byte = text[i]
        if byte != 32 and (byte < 9 or byte > 13):
            out[count] = byte
            places[count] = i
            count += 1
    return count


@_kernel
def decode(tokens: NDArray[np.unsignedinteger], starts: NDArray[np.int64], blob: Bytes) -> Bytes:
    """The bytes behind tokens: token t is blob[starts[t] : starts[t + 1]]."""
    size = 0
    for token in tokens:
        size += starts[token + 1] - starts[token]
    text = np.empty(size, dtype=np.uint8)
    at = 0
    for token in tokens:
        for i in range(starts[token], starts[token + 1]):
            text[at] = blob[i]
            at += 1
    return text


@_kernel
def count(buckets: NDArray[np.uint32], fill: NDArray[np.int64]) -> None:
    """Add to `fill` (B,) how many samples fall into each bucket."""
    for bucket in buckets:
        fill[bucket] += 1


@_kernel
def scatter(
    buckets: NDArray[np.uint32],
    left: Bytes,
    right: Bytes,
    first: int,
    cursor: NDArray[np.int64],
    entries: NDArray[np.uint32],
    tags: NDArray[np.uint8],
) -> None:
    """Put samples number `first`, `first` + 1, ... at their buckets' cursors; tags (E, 2) are left and right."""
    for i in range(len(buckets)):
        place = cursor[buckets[i]]
        cursor[buckets[i]] += 1
        entries[place] = first + i
        tags[place, 0] = left[i]
        tags[place, 1] = right[i]


@_kernel
def look_up(
    text: Bytes,
    shift: int,
    directory: NDArray[np.uint32],
    entries: NDArray[np.uint32],
    tags: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> int:
    """Fill (offset in `text`, sample) of every seed that may be equal, as far as the arrays have room; returns how many
    there are in all."""
    count = 0
    for at in range(len(text) - SEED + 1):
        bucket = _seed_hash(text, at) >> np.uint64(shift)
        first, last = np.int64(directory[bucket]), np.int64(directory[bucket + np.uint64(1)])
        if first == last:
            continue
        left = _tag(text, at - SIDE, at)
        right = _tag(text, at + SEED, at + SEED + SIDE)
        for place in range(first, last):
            same_left = left != NO_TAG and tags[place, 0] == left
            same_right = right != NO_TAG and tags[place, 1] == right
            if same_left or same_right:
                if count < len(offsets):
                    offsets[count] = at
                    samples[count] = entries[place]
                count += 1
    return count
