"""How much of one text is contained in another, exactly, for a few texts against very many.

Texts are cut into tokens at every character outside [A-Za-z0-9_] (real words; no empty tokens) and compared by their
sets of distinct 5-grams of tokens, hashed to 64 bits: a rolling polynomial of the tokens' hashes, mixed once more. Two
different 5-grams share a hash once in 2^64, and once in 2^60 where only tokens changed places. A text of fewer than 5
tokens counts as a single gram, its whole token sequence. Contained share = grams found in the other / own grams.

Two steps find who contains half of a text. A sketch is a Bloom filter (Bloom 1970) of the grams of many texts, all
bits of a gram in one word (Putze et al. 2007): it misses none, so a text of which it lacks more than half is in none of
them, and is known to be after little more than half of its grams. What is left, nearly nothing, is looked
for text by text through a `Matcher`, whose index is inverted and prefix-filtered (Chaudhuri et al. 2006; Bayardo et al.
2007): of a text with g grams, any match that holds half of them holds one of its g - ceil(g/2) + 1 rarest, so only
those count towards a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

GRAM = 5  # tokens, as in SantaCoder's near-duplicate filter (recipe of the paper, section 5.3)
HALF = 0.5  # a text is a near-copy when at least this share of its grams is contained

_WORD = np.zeros(256, dtype=np.bool_)
_WORD[[c for c in range(128) if chr(c).isalnum() or chr(c) == "_"]] = True

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits (Fowler, Noll, Vo)
_MIX1, _MIX2 = (
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)  # SplitMix64's finalizer (Steele et al. 2014)
_BASE = np.uint64(
    0x9E3779B97F4A7C15
)  # of the polynomial; 16 is all of 2 that divides its powers up to GRAM - 1, less 1
_LEAVES = np.uint64(pow(0x9E3779B97F4A7C15, GRAM, 1 << 64))
_ONE, _S6, _S12, _S27, _S30, _S31, _S32, _S33 = (np.uint64(n) for n in (1, 6, 12, 27, 30, 31, 32, 33))
_LOW6 = np.uint64(63)
_SHORT = np.uint64(0x5851F42D4C957F2D)  # starts the hash of a whole short sequence, so that it is no 5-gram's

# Six bits and four marks a gram find 7% of what is not there (measured; Putze et al. 2007 have the formula). That is
# enough to tell that a text of twenty grams is not there: it passes by chance once in 100,000 sketches. Shorter ones
# are few, and ten bits would make the sketches, the largest thing that the split keeps, two thirds larger.
SKETCH_BITS = 6
# Files of a sketch are told apart in so many parts: code that is written by rote has half of the grams of any file
# somewhere in a few megabytes. The words of all parts for a gram are one line of the cache, so this costs little time.
SKETCH_PARTS = 8


@unlocked
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@unlocked
def _hash(
    data: NDArray[np.uint8], begin: int, end: int, word: NDArray[np.bool_], grams: NDArray[np.uint64], at: int
) -> int:
    """Hashes of the grams of data[begin:end] in their order, repeated ones too, into `grams` from `at` on; returns
    where they end. At most (end - begin) // 2 + 1 are written."""
    t0 = t1 = t2 = t3 = t4 = np.uint64(0)  # the last five tokens
    rolling = np.uint64(0)
    value = _OFFSET
    inside = False
    count = 0
    for place in range(begin, end + 1):
        byte = data[place] if place < end else np.uint8(0)  # the end ends a token
        if word[byte]:
            value = (value ^ np.uint64(byte)) * _PRIME
            inside = True
        elif inside:
            token = _mix(value)
            rolling = rolling * _BASE + token - t0 * _LEAVES
            t0, t1, t2, t3, t4 = t1, t2, t3, t4, token
            count += 1
            if count >= GRAM:
                grams[at] = _mix(rolling)
                at += 1
            value = _OFFSET
            inside = False
    if count < GRAM:
        grams[at] = _mix(rolling ^ _mix(_SHORT + np.uint64(count)))
        at += 1
    return at


@unlocked
def _hash_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    word: NDArray[np.bool_],
    grams: NDArray[np.uint64],
    starts: NDArray[np.int64],
) -> None:
    at = 0
    for i in range(len(rows)):
        at = _hash(data, offsets[rows[i]], offsets[rows[i] + 1], word, grams, at)
        starts[i + 1] = at


class Grams(NamedTuple):
    """Gram hashes of N texts end to end, those of text i are grams[starts[i] : starts[i + 1]]; `starts` is (N + 1,)."""

    grams: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, data: NDArray[np.uint8], offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> Grams:
        """Of the texts data[offsets[i] : offsets[i + 1]] (UTF-8) with i in `rows` (N,): one hash at least each, in the
        order of the text, repeated ones too."""
        room = int((offsets[rows + 1] - offsets[rows]).sum()) // 2 + len(rows)
        grams = np.empty(room, dtype=np.uint64)
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        _hash_rows(data, offsets, rows, _WORD, grams, starts)
        return cls(grams[: starts[-1]], starts)

    def distinct(self) -> Grams:
        """Each text's own, sorted, none twice."""
        sets = [np.unique(self.grams[a:b]) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        return Grams.joined(sets)

    @classmethod
    def joined(cls, sets: Sequence[NDArray[np.uint64]]) -> Grams:
        """From the grams of each text."""
        starts = np.concatenate([[0], np.cumsum([len(own) for own in sets])]).astype(np.int64)
        return cls(np.concatenate([np.empty(0, dtype=np.uint64), *sets]), starts)

    def chosen(self, numbers: NDArray[np.int64]) -> Grams:
        """Those of some of the texts."""
        return Grams.joined([np.asarray(self.grams[self.starts[n] : self.starts[n + 1]]) for n in numbers])


def gram_hashes(content: str) -> NDArray[np.uint64]:
    """Sorted distinct hashes (g,), g >= 1, of the 5-grams of a text, or of its token sequence if that is shorter."""
    data = np.frombuffer(content.encode(), dtype=np.uint8)
    return np.unique(Grams.of(data, np.array([0, len(data)]), np.zeros(1, dtype=np.int64)).grams)


# -- the sketch --------------------------------------------------------------------------------------------------------


def sketch(texts: Grams) -> NDArray[np.uint64]:
    """Bloom filters (words, `SKETCH_PARTS`) of consecutive texts in parts of about as many grams, all of one size: of
    about `SKETCH_BITS` for each distinct gram of a part."""
    cuts = texts.starts[sketched(texts)]
    parts = [texts.grams[first:last] for first, last in pairwise(cuts.tolist())]
    distinct = sum(map(_distinct, parts)) / SKETCH_PARTS
    words = np.zeros((max(1, -(-int(SKETCH_BITS * distinct) // 64)), SKETCH_PARTS), dtype=np.uint64)
    for number, grams in enumerate(parts):
        _add(grams, number, words)
    return words


def sketched(texts: Grams) -> NDArray[np.int64]:
    """Where each part of a sketch of these texts begins among them (`SKETCH_PARTS` + 1,)."""
    borders = np.arange(SKETCH_PARTS + 1) * int(texts.starts[-1]) / SKETCH_PARTS
    return np.searchsorted(texts.starts, borders)


def _distinct(grams: NDArray[np.uint64]) -> float:
    """How many distinct ones there are, about: linear counting (Whang et al. 1990)."""
    marks = np.zeros(1 << max(3, (2 * len(grams)).bit_length() - 3), dtype=np.uint8)
    bits = 8 * len(marks)
    return min(len(grams), -bits * float(np.log(1 - _count_marks(grams, marks) / bits)))


@unlocked
def _count_marks(grams: NDArray[np.uint64], marks: NDArray[np.uint8]) -> int:
    """How many bits of `marks` the grams set."""
    mask = np.uint64(8 * len(marks) - 1)
    count = 0
    for gram in grams:
        place = gram & mask
        bit = np.uint8(1 << (place & np.uint64(7)))
        if not marks[place >> np.uint64(3)] & bit:
            marks[place >> np.uint64(3)] |= bit
            count += 1
    return count


@unlocked
def _marks(gram: np.uint64) -> np.uint64:
    """The four bits (some may be the same) that a gram sets in its word."""
    low, high = (_ONE << (gram & _LOW6)) | (_ONE << ((gram >> _S6) & _LOW6)), gram >> _S12
    return low | (_ONE << (high & _LOW6)) | (_ONE << ((high >> _S6) & _LOW6))


@unlocked
def _add(grams: NDArray[np.uint64], part: int, words: NDArray[np.uint64]) -> None:
    count = np.uint64(len(words))
    for gram in grams:
        words[((gram >> _S32) * count) >> _S32, part] |= _marks(gram)


@unlocked
def _may_hold(
    grams: NDArray[np.uint64], starts: NDArray[np.int64], words: NDArray[np.uint64], may: NDArray[np.uint8]
) -> None:
    count = np.uint64(len(words))
    for text in range(len(may)):
        size = starts[text + 1] - starts[text]
        # How many may be missing in each part. Eight variables and no array: they stay in registers.
        a = b = c = d = e = f = g = h = size - (size + 1) // 2
        for i in range(starts[text], starts[text + 1]):
            gram = grams[i]
            marks = _marks(gram)
            row = words[((gram >> _S32) * count) >> _S32]
            a -= np.int64(row[0] & marks != marks)
            b -= np.int64(row[1] & marks != marks)
            c -= np.int64(row[2] & marks != marks)
            d -= np.int64(row[3] & marks != marks)
            e -= np.int64(row[4] & marks != marks)
            f -= np.int64(row[5] & marks != marks)
            g -= np.int64(row[6] & marks != marks)
            h -= np.int64(row[7] & marks != marks)
            if (a & b & c & d & e & f & g & h) < 0:  # all are
                break
        for part, left in enumerate((a, b, c, d, e, f, g, h)):
            if left >= 0:
                may[text] |= np.uint8(1 << part)


def may_hold(texts: Grams, words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """For each of N texts (their distinct grams) the parts of a sketch (words, `SKETCH_PARTS`) one of whose texts may
    have half of its grams, bit by bit from the lowest on: every part that has one, and few others."""
    may = np.zeros(len(texts.starts) - 1, dtype=np.uint8)
    _may_hold(texts.grams, texts.starts, words, may)
    return may


# -- the index ---------------------------------------------------------------------------------------------------------


class Index(NamedTuple):
    """The inverted index over N texts. `keys` (K,) are their distinct grams, `slots` an open-addressing hash table (a
    power of two of slots) of number + 1 or 0. A text's rare grams are its g - ceil(g/2) + 1 rarest: `starts` (K + 1,)
    and `postings` are the texts in which a key is rare, `common_starts` (N + 1,) and `common` the numbers of the
    remaining grams of each text, `sizes` (N,) the number of all."""

    keys: NDArray[np.uint64]
    slots: NDArray[np.int32]
    starts: NDArray[np.int64]
    postings: NDArray[np.int32]
    common_starts: NDArray[np.int64]
    common: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def build(cls, texts: Grams) -> Index:
        """From the distinct grams of each text."""
        sizes = np.diff(texts.starts)
        owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        keys, number, counts = np.unique(texts.grams, return_inverse=True, return_counts=True)
        order = np.lexsort((number, counts[number], owner))  # per text, the rarest first
        number, owner = number[order], owner[order]
        rank = np.arange(len(number)) - np.repeat(texts.starts[:-1], sizes)
        rare = rank < np.repeat(sizes - (sizes + 1) // 2 + 1, sizes)
        by_gram = np.lexsort((owner[rare], number[rare]))
        lengths = np.bincount(owner[~rare], minlength=len(sizes))
        return cls(
            keys=keys,
            slots=_slots(keys),
            starts=np.concatenate([[0], np.cumsum(np.bincount(number[rare], minlength=len(keys)))]).astype(np.int64),
            postings=owner[rare][by_gram],
            common_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            common=number[~rare].astype(np.int64),
            sizes=sizes,
        )


def _slots(keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """A hash table with open addressing: number + 1 of each of the distinct `keys`, at most half full."""
    slots = np.zeros(max(16, 1 << (2 * len(keys)).bit_length()), dtype=np.int32)
    _fill(keys, slots)
    return slots


@unlocked
def _fill(keys: NDArray[np.uint64], slots: NDArray[np.int32]) -> None:
    mask = np.uint64(len(slots) - 1)
    for number in range(len(keys)):
        slot = (keys[number] >> _S33) & mask
        while slots[slot] != 0:
            slot = (slot + _ONE) & mask
        slots[slot] = number + 1


class Matcher:
    """For each of N texts the probed one that contains most of it, as far as that is at least half.

    `found` (N,) is the number of grams contained, 0 below half; `probe` (N,) the number of the probed text, the first
    of several that contain equally much.
    """

    def __init__(self, texts: Grams) -> None:
        self._index = Index.build(texts)
        texts_count = len(self._index.sizes)
        self._seen = np.full(len(self._index.keys), -1, dtype=np.int64)  # by which probe a key was seen last
        self._counts = np.zeros(texts_count, dtype=np.int64)
        self._touched = np.zeros(texts_count, dtype=np.int64)
        self.found = np.zeros(texts_count, dtype=np.int64)
        self.probe = np.full(texts_count, -1, dtype=np.int64)

    def add(self, probes: Grams, first: int) -> None:
        """Probe with texts (their grams in any order, repeated or not), which have the numbers `first` and following;
        no number may come twice."""
        state = (self._seen, self._counts, self._touched, self.found, self.probe)
        _match(probes.grams, probes.starts, first, *self._index, *state)


@unlocked
def _match(
    grams: NDArray[np.uint64],
    begins: NDArray[np.int64],
    first: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    starts: NDArray[np.int64],
    postings: NDArray[np.int32],
    common_starts: NDArray[np.int64],
    common: NDArray[np.int64],
    sizes: NDArray[np.int64],
    seen: NDArray[np.int64],
    counts: NDArray[np.int64],
    touched: NDArray[np.int64],
    found: NDArray[np.int64],
    probe: NDArray[np.int64],
) -> None:
    mask = np.uint64(len(slots) - 1)
    for row in range(len(begins) - 1):
        number = first + row
        candidates = 0
        for i in range(begins[row], begins[row + 1]):
            gram = grams[i]
            slot = (gram >> _S33) & mask
            while slots[slot] != 0:
                key = slots[slot] - 1
                if keys[key] == gram:
                    if seen[key] != number:
                        seen[key] = number
                        for place in range(starts[key], starts[key + 1]):
                            text = np.int64(postings[place])
                            if counts[text] == 0:
                                touched[candidates] = text
                                candidates += 1
                            counts[text] += 1
                    break
                slot = (slot + _ONE) & mask
        for text in touched[:candidates]:
            total = counts[text]
            counts[text] = 0
            low, high = common_starts[text], common_starts[text + 1]
            least = max((sizes[text] + 1) // 2, found[text] + 1)  # at least half, and more than the best so far
            for place in range(low, high):
                if total + (high - place) < least:
                    break
                if seen[common[place]] == number:
                    total += 1
            if total >= least:
                found[text] = total
                probe[text] = number
