"""Counting pre-tokens: the distinct words of a corpus, each with how often it occurs, in one pass over the bytes.

A hash table that grows with the number of distinct words, not with the text. Counts of parts of a corpus are added with
`merge`, in any order: a word list is sorted by its bytes, so the same corpus gives the same arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import compiled
from kringle.tokens.character_classes import class_table
from kringle.tokens.pretokens import Bytes, next_border

_PRIME = np.uint64(0x9FB21C651E98DF25)  # as in the encoder
_SEED = np.uint64(0x9E3779B97F4A7C15)
_S32 = np.uint64(32)
_Counts = NDArray[np.int64]


class Words(NamedTuple):
    """W distinct words: word w is `bytes[offsets[w] : offsets[w + 1]]` and occurs `counts[w]` times."""

    bytes: Bytes
    offsets: NDArray[np.int64]
    counts: _Counts


@compiled
def _count(
    data: Bytes,
    offsets: NDArray[np.int64],
    weights: _Counts,
    split: bool,
    classes: Bytes,
    slots: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: _Counts,
    kept: Bytes,
    words: int,
    text: int,
    place: int,
) -> tuple[int, int, int, int]:
    """Count the pre-tokens of the texts from number `text`, place `place` on; the texts as they are, unless `split`.

    Stops early where the arrays might not hold the next word: (words, text, place, bytes needed for the next word).
    """
    mask = np.uint64(len(slots) - 1)
    for d in range(text, len(offsets) - 1):
        end = offsets[d + 1]
        i = offsets[d] if d != text else max(place, offsets[d])
        while i < end:
            border = next_border(data, i, end, classes) if split else end
            length = border - i
            if 2 * (words + 1) > len(slots) or starts[words] + length > len(kept):
                return words, d, i, length
            hash = _SEED ^ np.uint64(length)
            for k in range(i, border):
                hash = (hash ^ np.uint64(data[k])) * _PRIME
            hash ^= hash >> _S32
            slot = hash & mask
            while True:
                word = slots[slot] - 1
                if word < 0:
                    slots[slot] = words + 1
                    hashes[words] = hash
                    counts[words] = weights[d]
                    start = starts[words]
                    for k in range(length):
                        kept[start + k] = data[i + k]
                    starts[words + 1] = start + length
                    words += 1
                    break
                if hashes[word] == hash and starts[word + 1] - starts[word] == length:
                    start = starts[word]
                    same = True
                    for k in range(length):
                        if kept[start + k] != data[i + k]:
                            same = False
                            break
                    if same:
                        counts[word] += weights[d]
                        break
                slot = (slot + np.uint64(1)) & mask
            i = border
    return words, len(offsets) - 1, 0, 0


@compiled
def _refill(slots: NDArray[np.int64], hashes: NDArray[np.uint64], words: int) -> None:
    mask = np.uint64(len(slots) - 1)
    for word in range(words):
        slot = hashes[word] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word + 1


class Counter:
    """Adds up the words of texts as they come."""

    def __init__(self) -> None:
        self._classes = class_table()
        self._words = 0
        self._slots = np.zeros(1 << 16, dtype=np.int64)
        self._hashes = np.zeros(1 << 15, dtype=np.uint64)
        self._starts = np.zeros((1 << 15) + 1, dtype=np.int64)
        self._counts = np.zeros(1 << 15, dtype=np.int64)
        self._kept = np.empty(1 << 19, dtype=np.uint8)

    def add(self, data: Bytes, offsets: NDArray[np.int64]) -> None:
        """Count the pre-tokens of the texts `data[offsets[d] : offsets[d + 1]]`."""
        self._add(data, offsets, np.ones(len(offsets) - 1, dtype=np.int64), True)

    def merge(self, words: Words) -> None:
        """Add the counts of another part of the corpus."""
        self._add(words.bytes, words.offsets, words.counts, False)

    def _add(self, data: Bytes, offsets: NDArray[np.int64], weights: _Counts, split: bool) -> None:
        text = place = 0
        while True:
            self._words, text, place, needed = _count(
                data, offsets, weights, split, self._classes, self._slots, self._hashes, self._starts, self._counts,
                self._kept, self._words, text, place,
            )  # fmt: skip
            if not needed:
                return
            self._grow(needed)

    def _grow(self, needed: int) -> None:
        if 2 * (self._words + 1) > len(self._slots):
            self._slots = np.zeros(2 * len(self._slots), dtype=np.int64)
            _refill(self._slots, self._hashes, self._words)
            more = len(self._hashes)
            self._hashes, self._starts, self._counts = (
                np.concatenate([array, np.zeros(more, dtype=array.dtype)])
                for array in (self._hashes, self._starts, self._counts)
            )
        if int(self._starts[self._words]) + needed > len(self._kept):
            self._kept = np.concatenate([self._kept, np.empty(max(len(self._kept), needed), dtype=np.uint8)])

    def words(self) -> Words:
        """The distinct words, sorted by their bytes, so that the order of the texts is forgotten."""
        starts = self._starts[: self._words + 1].tolist()
        kept = self._kept[: starts[-1]].tobytes()
        pieces = [kept[a:b] for a, b in pairwise(starts)]
        order = sorted(range(self._words), key=pieces.__getitem__)
        pieces = [pieces[w] for w in order]
        offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)]).astype(np.int64)
        return Words(np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets, self._counts[order])


def added(parts: Iterable[Words]) -> Words:
    """The counts of several parts of a corpus together."""
    counter = Counter()
    for part in parts:
        counter.merge(part)
    return counter.words()
