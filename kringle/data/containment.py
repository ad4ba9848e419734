"""How much of one text is contained in another, exactly, for a few texts against very many.

Texts are cut into tokens at every character outside [A-Za-z0-9_] (real words; no empty tokens) and compared by their
sets of distinct 5-grams of tokens, hashed to 64 bits (two different 5-grams share a hash once in 2^64). A text of fewer
than 5 tokens counts as a single gram, its whole token sequence. Contained share = grams found in the other / own grams.

The index is inverted, and prefix-filtered (Chaudhuri et al. 2006; Bayardo et al. 2007): of a text with g grams, any
match that holds half of them holds one of its g - ceil(g/2) + 1 rarest, so only those are looked up, and everyday
boilerplate costs nothing. Work is linear in the bytes probed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.compiled import compiled

GRAM = 5  # tokens, as in SantaCoder's near-duplicate filter (recipe of the paper, section 5.3)
HALF = 0.5  # a text is a near-copy when at least this share of its grams is contained

_WORD = np.zeros(256, dtype=np.bool_)
_WORD[[c for c in range(128) if chr(c).isalnum() or chr(c) == "_"]] = True

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits (Fowler, Noll, Vo)
_MIX1, _MIX2 = (
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)  # SplitMix64's finalizer (Steele et al. 2014)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S27, _S30, _S31, _S33 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(33)
_SHORT = np.uint64(0x5851F42D4C957F2D)  # starts the hash of a whole short sequence, so that it is no 5-gram's


@compiled
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@compiled
def _grams(data: NDArray[np.uint8], word: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Sorted distinct gram hashes of UTF-8 bytes (n,)."""
    tokens = np.empty(len(data) // 2 + 1, dtype=np.uint64)
    count = 0
    value = _OFFSET
    inside = False
    for byte in data:
        if word[byte]:
            value = (value ^ np.uint64(byte)) * _PRIME
            inside = True
        elif inside:
            tokens[count] = _mix(value)
            count += 1
            value = _OFFSET
            inside = False
    if inside:
        tokens[count] = _mix(value)
        count += 1
    if count < GRAM:
        sequence = _mix(_SHORT + np.uint64(count))
        for i in range(count):
            sequence = _mix(sequence * _GOLDEN + tokens[i])
        return np.full(1, sequence, dtype=np.uint64)
    grams = np.empty(count - GRAM + 1, dtype=np.uint64)
    for i in range(len(grams)):
        gram = _GOLDEN
        for j in range(GRAM):
            gram = _mix(gram * _GOLDEN + tokens[i + j])
        grams[i] = gram
    grams.sort()
    kept = 1
    for i in range(1, len(grams)):
        if grams[i] != grams[i - 1]:
            grams[kept] = grams[i]
            kept += 1
    return grams[:kept].copy()


def gram_hashes(content: str) -> NDArray[np.uint64]:
    """Sorted distinct hashes (g,), g >= 1, of the 5-grams of a text, or of its token sequence if that is shorter."""
    grams: NDArray[np.uint64] = _grams(np.frombuffer(content.encode(), dtype=np.uint8), _WORD)
    return grams


class Index(NamedTuple):
    """The inverted index over N texts. `table` is an open-addressing hash table (a power of two of slots) of the rare
    grams: `slots` holds their number + 1 or 0; `starts` and `postings` are the texts per rare gram; `common_starts` and
    `common` the remaining grams per text; `sizes` (N,) the number of grams of each text."""

    keys: NDArray[np.uint64]
    slots: NDArray[np.int32]
    starts: NDArray[np.int64]
    postings: NDArray[np.int32]
    common_starts: NDArray[np.int64]
    common: NDArray[np.uint64]
    sizes: NDArray[np.int64]

    @classmethod
    def build(cls, texts: Sequence[NDArray[np.uint64]]) -> Index:
        """From the gram hashes of each text."""
        sizes = np.array([len(grams) for grams in texts], dtype=np.int64)
        grams = np.concatenate([np.empty(0, dtype=np.uint64), *texts])
        owner = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
        _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
        order = np.lexsort((grams, counts[inverse], owner))  # per text, the rarest first
        grams, owner = grams[order], owner[order]
        rank = np.arange(len(grams)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rare = rank < np.repeat(sizes - (sizes + 1) // 2 + 1, sizes)

        by_gram = np.lexsort((owner[rare], grams[rare]))
        keys, first = np.unique(grams[rare][by_gram], return_index=True)
        slots = _slots(keys)
        lengths = np.bincount(owner[~rare], minlength=len(texts))
        return cls(
            keys=keys,
            slots=slots,
            starts=np.append(first, rare.sum()).astype(np.int64),
            postings=owner[rare][by_gram],
            common_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            common=grams[~rare],
            sizes=sizes,
        )

    def save(self, path: Path) -> str:
        """Write the index to `path` (.npz); returns its fingerprint."""
        np.savez(path, **self._asdict())
        digest = hashlib.sha256()
        for name in ("keys", "starts", "postings", "common_starts", "common"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()[:32]

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in cls._fields})


def _slots(keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """A hash table with open addressing: number + 1 of each of the distinct `keys`, at most half full."""
    slots = np.zeros(max(16, 1 << (2 * len(keys)).bit_length()), dtype=np.int32)
    _fill(keys, slots)
    return slots


@compiled
def _fill(keys: NDArray[np.uint64], slots: NDArray[np.int32]) -> None:
    mask = np.uint64(len(slots) - 1)
    for number in range(len(keys)):
        slot = (keys[number] >> _S33) & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = number + 1


class Best:
    """For each indexed text the probed one that contains most of it, as far as that is at least half.

    `found` (N,) is the number of grams contained, 0 below half; `probe` (N,) the number of the probed text, the first
    of several that contain equally much.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._counts = np.zeros(len(index.sizes), dtype=np.int64)
        self.found = np.zeros(len(index.sizes), dtype=np.int64)
        self.probe = np.full(len(index.sizes), -1, dtype=np.int64)

    def add(self, number: int, grams: NDArray[np.uint64]) -> None:
        """Probe with the gram hashes of the text `number`."""
        _probe(number, grams, *self._index, self._counts, self.found, self.probe)


@compiled
def _probe(
    number: int,
    grams: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    starts: NDArray[np.int64],
    postings: NDArray[np.int32],
    common_starts: NDArray[np.int64],
    common: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    found: NDArray[np.int64],
    probe: NDArray[np.int64],
) -> None:
    mask = np.uint64(len(slots) - 1)
    touched = [np.int64(0) for _ in range(0)]
    for gram in grams:
        slot = (gram >> _S33) & mask
        while slots[slot] != 0:
            key = slots[slot] - 1
            if keys[key] == gram:
                for place in range(starts[key], starts[key + 1]):
                    text = np.int64(postings[place])
                    if counts[text] == 0:
                        touched.append(text)
                    counts[text] += 1
                break
            slot = (slot + np.uint64(1)) & mask
    for text in touched:
        total = counts[text]
        counts[text] = 0
        first, last = common_starts[text], common_starts[text + 1]
        least = max((sizes[text] + 1) // 2, found[text] + 1)  # at least half, and more than the best so far
        for place in range(first, last):
            if total + (last - place) < least:
                break
            gram = common[place]
            position = np.searchsorted(grams, gram)
            if position < len(grams) and grams[position] == gram:
                total += 1
        if total >= least:
            found[text] = total
            probe[text] = number


class Seen:
    """Which of the distinct `grams` (n,) occur in any of the probed texts: `seen` (n,)."""

    def __init__(self, grams: NDArray[np.uint64]) -> None:
        self._grams, self._slots = grams, _slots(grams)
        self.seen = np.zeros(len(grams), dtype=np.bool_)

    def add(self, grams: NDArray[np.uint64]) -> None:
        """Probe with the gram hashes of one text."""
        _mark(grams, self._grams, self._slots, self.seen)


@compiled
def _mark(
    probe: NDArray[np.uint64], keys: NDArray[np.uint64], slots: NDArray[np.int32], seen: NDArray[np.bool_]
) -> None:
    mask = np.uint64(len(slots) - 1)
    for gram in probe:
        slot = (gram >> _S33) & mask
        while slots[slot] != 0:
            if keys[slots[slot] - 1] == gram:
                seen[slots[slot] - 1] = True
                break
            slot = (slot + np.uint64(1)) & mask
