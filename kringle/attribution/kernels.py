"""Hashing and sampling for the attribution index, compiled with numba.

A document is sampled at every `STEP`-th byte: a seed of `SEED` bytes there, hashed to 64 bits, and for the `SIDE`
bytes left and right of the seed a tag of 8 bits each. Any common stretch of `SHORTEST` bytes holds a whole seed, and
beside it `SIDE` bytes on one side at least, because SHORTEST = SEED + STEP - 1 and 2 * SIDE <= SHORTEST - SEED. So a
query that looks up all its own offsets, and follows only seeds with an equal tag on one side, misses nothing.

Of samples with equal surroundings (`AROUND` steps on both sides) only the first `KEPT` are kept. A stretch is covered
by the `STEP` - 1 bytes before and the `SHORTEST` after each of its samples, all of them well inside the surroundings,
so whatever a sample that was left out would have led to, one that was kept leads to as well, in another place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

SHORTEST = 50  # bytes: what counts as a copy; a character has one or more of them
SEED = 16  # two words of 64 bits
STEP = SHORTEST - SEED + 1
SIDE = (SHORTEST - SEED) // 2
AROUND = 2  # steps; 175 bytes in all. One would be enough for what is found, more keep long stretches in one piece
KEPT = 16  # samples with the same surroundings; more than are ever listed as sources
BEFORE = 100  # bytes before a seed that the order of a heavy bucket knows; it knows SHORTEST from its first byte on
HEAVY = 256  # samples in one bucket from which on they are sorted, to be bisected
NO_TAG = 0  # where there is no whole side; equal to no tag

Bytes = NDArray[np.uint8]

_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finalizer
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S8, _S27, _S30, _S31 = np.uint64(8), np.uint64(27), np.uint64(30), np.uint64(31)


@unlocked
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _MULTIPLIER_1
    x = (x ^ (x >> _S27)) * _MULTIPLIER_2
    return x ^ (x >> _S31)


@unlocked
def _word(text: Bytes, start: int, length: int) -> np.uint64:
    value = np.uint64(0)
    for i in range(start, start + length):
        value = (value << _S8) | np.uint64(text[i])
    return value


@unlocked
def seed_hash_at(text: Bytes, at: int) -> np.uint64:
    return _mix(_mix(_word(text, at, 8) + _GOLDEN) ^ _word(text, at + 8, 8))


@unlocked
def tag_of(text: Bytes, start: int, end: int) -> np.uint8:
    """1 to 255 of the `SIDE` bytes from `start`; `NO_TAG` where the text does not have them all."""
    if start < 0 or end > len(text):
        return np.uint8(NO_TAG)
    value = _mix(_word(text, start, 8) + _GOLDEN)
    value = _mix(value ^ _word(text, start + 8, end - start - 8))
    return np.uint8(1 + value % np.uint64(255))


@unlocked
def sample(
    text: Bytes, shift: int, buckets: NDArray[np.uint32], tags: NDArray[np.uint8], around: NDArray[np.uint64]
) -> None:
    """Fill the buckets of the seeds at 0, STEP, 2 * STEP, ... (their hashes without the last `shift` bits), their tags
    (S, 2), left and right, and a hash of the surroundings of each."""
    steps = (len(text) + STEP - 1) // STEP
    blocks = np.zeros(steps + 2 * AROUND, dtype=np.uint64)  # outside the text: 0
    for i in range(steps):
        start, end = i * STEP, min((i + 1) * STEP, len(text))
        value = _GOLDEN * np.uint64(end - start)
        for word in range(start, end, 8):
            value = _mix(value ^ _word(text, word, min(8, end - word)))
        blocks[AROUND + i] = value
    for i in range(len(buckets)):
        at = i * STEP
        buckets[i] = seed_hash_at(text, at) >> np.uint64(shift)
        tags[i, 0] = tag_of(text, at - SIDE, at)
        tags[i, 1] = tag_of(text, at + SEED, at + SEED + SIDE)
        value = np.uint64(0)
        for j in range(i, i + 2 * AROUND + 1):
            value = _mix(value + _GOLDEN) ^ blocks[j]
        around[i] = value


@unlocked
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


@unlocked
def decode(tokens: NDArray[np.unsignedinteger], starts: NDArray[np.int64], blob: Bytes, text: Bytes) -> None:
    """Fill `text` with the bytes behind tokens: token t is blob[starts[t] : starts[t + 1]]."""
    at = 0
    for token in tokens:
        for i in range(starts[token], starts[token + 1]):
            text[at] = blob[i]
            at += 1


@unlocked
def sort(buckets: NDArray[np.uint32], directory: NDArray[np.int64], entries: NDArray[np.uint32]) -> None:
    """Fill `entries` with the numbers of the samples, bucket by bucket, in order, and `directory` (B + 1,), which is
    given as zeros, with where each bucket begins."""
    for bucket in buckets:
        directory[bucket + 1] += 1
    for bucket in range(len(directory) - 1):
        directory[bucket + 1] += directory[bucket]
    cursor = directory[:-1].copy()
    for i in range(len(buckets)):
        entries[cursor[buckets[i]]] = i
        cursor[buckets[i]] += 1


@unlocked
def thin(directory: NDArray[np.int64], entries: NDArray[np.uint32], around: NDArray[np.uint64]) -> int:
    """Leave `KEPT` samples of each surroundings in a bucket, the first ones, in place; returns how many are left."""
    left = 0
    first = directory[0]
    for bucket in range(len(directory) - 1):
        last = directory[bucket + 1]
        kept = np.ones(last - first, dtype=np.bool_)
        if last - first > KEPT:
            here = around[entries[first:last]]
            order = np.argsort(here, kind="mergesort")  # a stable one
            equal = 0
            for i in range(1, len(order)):
                equal = equal + 1 if here[order[i]] == here[order[i - 1]] else 0
                kept[order[i]] = equal < KEPT
        directory[bucket] = left
        for place in range(first, last):
            if kept[place - first]:
                entries[left] = entries[place]
                left += 1
        first = last
    directory[-1] = left
    return left


@unlocked
def contexts(text: Bytes, places: NDArray[np.int64], rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
    """For the seeds at `places` fill rows of `out` (H, SHORTEST + BEFORE): the `SHORTEST` bytes from the first one on,
    then the `BEFORE` ones before it, the nearest first; -1 outside the text."""
    for i in range(len(places)):
        for j in range(SHORTEST):
            at = places[i] + j
            out[rows[i], j] = text[at] if at < len(text) else -1
        for j in range(BEFORE):
            at = places[i] - 1 - j
            out[rows[i], SHORTEST + j] = text[at] if at >= 0 else -1


@unlocked
def _comes_after(context: NDArray[np.int16], a: int, b: int, backward: bool) -> bool:
    for j in range(SEED if backward else SHORTEST):
        if context[a, j] != context[b, j]:
            return bool(context[a, j] > context[b, j])
    if backward:
        for j in range(SHORTEST, context.shape[1]):
            if context[a, j] != context[b, j]:
                return bool(context[a, j] > context[b, j])
    return False


@unlocked
def sort_contexts(context: NDArray[np.int16], rows: NDArray[np.int64], backward: bool) -> None:
    """Sort `rows` of `context` in place: by what follows from the seed on, or (`backward`) by the seed and what comes
    before it. A stable merge sort."""
    other = np.empty_like(rows)
    width = 1
    while width < len(rows):
        for start in range(0, len(rows), 2 * width):
            middle, end = min(start + width, len(rows)), min(start + 2 * width, len(rows))
            i, j = start, middle
            for k in range(start, end):
                if i < middle and (j >= end or not _comes_after(context, rows[i], rows[j], backward)):
                    other[k] = rows[i]
                    i += 1
                else:
                    other[k] = rows[j]
                    j += 1
        rows[:] = other
        width *= 2
