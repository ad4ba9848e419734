"""Decontamination by token n-grams: what `corrected` searches for, whatever the indentation, line breaks and case.

Tokens are words (runs of ASCII letters, digits, `_` and characters beyond ASCII; ASCII letters in lower case) and
single punctuation marks; white space only separates. A document is contaminated when it holds all tokens of a
benchmark's string in a row, or, of a long string, `RUN` tokens in a row that are not boilerplate: windows that `COMMON`
tasks or more of one benchmark share (the imports of every MultiPL-E prompt) are no evidence.

The search is linear: every window of a document is looked up once among anchors, windows of the strings chosen so that
no sufficient run can miss all of them, and a hit is followed to both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.contamination import BenchmarkString
from kringle.data.near_duplicates.shingles import GOLDEN, REAL_WORD, SPACE, mix, shingle_of

RUN = 30  # tokens, punctuation included: about 13 words of code, the n-gram of GPT-3's decontamination
WINDOW = 8  # tokens looked up at once; shorter strings are looked up by windows of their own length
COMMON = 3  # tasks
_SHOWN = 200  # characters of matched text that a decision shows


@unlocked
def _tokens(
    data: NDArray[np.uint8], word: NDArray[np.bool_], hashes: NDArray[np.uint64], starts: NDArray[np.int64]
) -> int:
    """Hashes and places of all tokens; `starts` gets the end of each in its second half of rows (2, n)."""
    count = 0
    value = np.uint64(0xCBF29CE484222325)
    begin = -1
    for p in range(len(data) + 1):
        byte = data[p] if p < len(data) else np.uint8(32)
        if word[byte]:
            if begin < 0:
                begin = p
            if 65 <= byte <= 90:
                byte = np.uint8(byte + 32)
            value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
            continue
        if begin >= 0:
            hashes[count] = mix(value)
            starts[0, count], starts[1, count] = begin, p
            count += 1
            begin = -1
            value = np.uint64(0xCBF29CE484222325)
        if not SPACE[byte]:
            hashes[count] = mix(np.uint64(byte) * GOLDEN)
            starts[0, count], starts[1, count] = p, p + 1
            count += 1
    return count


def tokenize(text: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Token hashes (n,) and their first and last byte in UTF-8 (2, n)."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    hashes = np.empty(len(data) + 1, dtype=np.uint64)
    places = np.empty((2, len(data) + 1), dtype=np.int64)
    count = _tokens(data, REAL_WORD, hashes, places)
    return hashes[:count], places[:, :count]


@unlocked
def _scan(
    tokens: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    slots: NDArray[np.int64],
    keys: NDArray[np.uint64],
    heads: NDArray[np.int64],
    following: NDArray[np.int64],
    owners: NDArray[np.int64],
    offsets: NDArray[np.int64],
    known: NDArray[np.uint64],
    places: NDArray[np.int64],
    telling: NDArray[np.int64],
) -> tuple[int, int, int]:
    """(string, first, last token) of the first sufficient run in a document; (-1, 0, 0) without one."""
    best, best_first, best_last = -1, 0, 0
    mask = len(slots) - 1
    for length in lengths:
        # keys as `shingle_of` makes them, each from the one before it
        top = np.uint64(1)
        value = np.uint64(0)
        for i in range(min(length - 1, len(tokens))):
            top *= GOLDEN
            value = value * GOLDEN + tokens[i]
        for first in range(len(tokens) - length + 1):
            value = value * GOLDEN + tokens[first + length - 1]
            key = mix(value)
            value -= top * tokens[first]
            slot = np.int64(key & np.uint64(mask))
            while slots[slot] >= 0 and keys[slots[slot]] != key:
                slot = (slot + 1) & mask
            if slots[slot] < 0:
                continue
            entry = heads[slots[slot]]
            while entry >= 0:
                string, offset = owners[entry], offsets[entry]
                entry = following[entry]
                low, high = places[string], places[string + 1]
                if best >= 0 and string >= best:
                    continue
                back = 0
                while back < min(first, offset) and tokens[first - back - 1] == known[low + offset - back - 1]:
                    back += 1
                ahead = 0
                while (
                    first + ahead < len(tokens)
                    and low + offset + ahead < high
                    and tokens[first + ahead] == known[low + offset + ahead]
                ):
                    ahead += 1
                run = back + ahead
                whole = high - low
                begin = low + offset - back
                if run == whole:
                    enough = True
                else:  # so many windows that tell as the shortest sufficient run has
                    last = max(begin, begin + run - WINDOW + 1)
                    enough = run >= min(whole, RUN) and telling[last] - telling[begin] > RUN - WINDOW
                if enough:
                    best, best_first, best_last = string, first - back, first + ahead
    return best, best_first, best_last


class TokenFinder:
    """Finds the first of the benchmark strings, in their order, that a document holds, and where."""

    def __init__(self, strings: Sequence[BenchmarkString]) -> None:
        self._strings = list(strings)
        tokens = [tokenize(string.text)[0] for string in self._strings]
        self._places = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
        self._known = np.concatenate([np.zeros(0, np.uint64), *tokens])
        self._telling = self._count_telling(tokens)
        entries: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # (length, key) -> (string, offset)
        for number, own in enumerate(tokens):
            if not len(own):
                continue
            length = min(WINDOW, len(own))
            step = RUN - WINDOW + 1
            anchors = [0] if len(own) <= RUN else range(0, len(own) - WINDOW + 1, step)
            for offset in anchors:
                entries[length, int(shingle_of(own, offset, length))].append((number, offset))
        self._lengths = np.array(sorted({length for length, _ in entries}), dtype=np.int64)
        self._keys = np.array([key for _, key in entries], dtype=np.uint64)
        self._slots = np.full(1 << max(4, (4 * len(entries)).bit_length()), -1, dtype=np.int64)
        heads: list[int] = []
        following: list[int] = []
        owners: list[int] = []
        offsets: list[int] = []
        for number, (key, found) in enumerate(zip(self._keys.tolist(), entries.values(), strict=True)):
            slot = key & (len(self._slots) - 1)
            while self._slots[slot] >= 0:
                slot = (slot + 1) & (len(self._slots) - 1)
            self._slots[slot] = number
            heads.append(len(owners))
            for string, offset in found:
                owners.append(string)
                offsets.append(offset)
                following.append(len(owners))
            following[-1] = -1
        self._heads, self._following, self._owners, self._offsets = (
            np.array(values, dtype=np.int64) for values in (heads, following, owners, offsets)
        )

    def _count_telling(self, tokens: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        """How many windows before each token (all + 1,) occur in fewer than `COMMON` tasks of their benchmark."""
        tasks: dict[tuple[str, int], set[str]] = defaultdict(set)
        windows: list[list[int]] = []
        for string, own in zip(self._strings, tokens, strict=True):
            keys = [int(shingle_of(own, i, WINDOW)) for i in range(len(own) - WINDOW + 1)]
            windows.append(keys)
            for key in keys:
                tasks[string.suite, key].add(string.task)
        flags: list[int] = []
        for string, own, keys in zip(self._strings, tokens, windows, strict=True):
            told = [int(len(tasks[string.suite, key]) < COMMON) for key in keys]
            flags += told + [0] * (len(own) - len(told))
        return np.concatenate([[0], np.cumsum(flags)]).astype(np.int64)

    def find(self, content: str) -> BenchmarkString | None:
        """The contaminating string with the document's own matching text (its white space joined), or None."""
        if not self._strings:
            return None
        tokens, places = tokenize(content)
        string, first, last = _scan(
            tokens,
            self._lengths,
            self._slots,
            self._keys,
            self._heads,
            self._following,
            self._owners,
            self._offsets,
            self._known,
            self._places,
            self._telling,
        )
        if string < 0:
            return None
        matched = content.encode()[places[0, first] : places[1, last - 1]].decode()
        shown = " ".join(matched.split())
        return self._strings[string]._replace(text=shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...")
