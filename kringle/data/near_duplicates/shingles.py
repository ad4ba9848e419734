"""Texts to tokens to shingles, in compiled loops over UTF-8 bytes.

`corrected` takes real words: runs of ASCII letters, digits, `_` and all characters beyond ASCII (so that a comment in
Chinese is text, not white space). `faithful` splits at every character outside [A-Za-z0-9_]. A shingle is n tokens in a
row, hashed to 64 bits; two different ones share a hash once in 2^64, so set operations on hashes are taken as exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

ASCII_WORD = np.zeros(256, dtype=np.bool_)
ASCII_WORD[[c for c in range(128) if chr(c).isalnum() or chr(c) == "_"]] = True
REAL_WORD = ASCII_WORD.copy()
REAL_WORD[128:] = True
SPACE = np.zeros(256, dtype=np.bool_)
SPACE[[9, 10, 11, 12, 13, 32]] = True

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits (Fowler, Noll, Vo)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's finalizer (Steele et al.)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)


@unlocked
def mix(x: np.uint64) -> np.uint64:
    """SplitMix64's finalizer: a bijection in which every output bit depends on every input bit."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@unlocked
def tokens_of(
    data: NDArray[np.uint8], start: int, end: int, word: NDArray[np.bool_], tokens: NDArray[np.uint64]
) -> int:
    """Write the hashes of the words of data[start:end] into `tokens` (at least (end - start) // 2 + 1); their count."""
    count = 0
    value = _OFFSET
    inside = False
    for p in range(start, end):
        byte = data[p]
        if word[byte]:
            value = (value ^ np.uint64(byte)) * _PRIME
            inside = True
        elif inside:
            tokens[count] = mix(value)
            count += 1
            value = _OFFSET
            inside = False
    if inside:
        tokens[count] = mix(value)
        count += 1
    return count


@unlocked
def _mentions_rights(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Whether the bytes hold `copyright` or `license`, in any case."""
    for p in range(start, end - 6):
        for word in (b"copyright", b"license", b"licence"):
            if p + len(word) > end:
                continue
            same = True
            for i in range(len(word)):
                if (data[p + i] | 32) != word[i]:
                    same = False
                    break
            if same:
                return True
    return False


@unlocked
def body_start(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Where a file begins after its notice of copyright and licence: leading comments (`/* */`, lines of `#` or `//`)
    that speak of them. Such a notice is the same in thousands of files and longer than many of them."""
    body = start
    p = start
    while True:
        while p < end and SPACE[data[p]]:
            p += 1
        first = p
        if p + 1 < end and data[p] == 47 and data[p + 1] == 42:
            p += 2
            while p + 1 < end and not (data[p] == 42 and data[p + 1] == 47):
                p += 1
            p = min(p + 2, end)
        elif p < end and (data[p] == 35 or (p + 1 < end and data[p] == 47 and data[p + 1] == 47)):
            mark = data[p]
            while p < end and data[p] == mark:
                while p < end and data[p] != 10:
                    p += 1
                p += 1
                while p < end and (data[p] == 32 or data[p] == 9):
                    p += 1
            p = min(p, end)
        else:
            return body
        if not _mentions_rights(data, first, p):
            return body
        body = p


@unlocked
def shingle_of(tokens: NDArray[np.uint64], first: int, ngram: int) -> np.uint64:
    """Hash of the `ngram` tokens from `first` on."""
    value = tokens[first]
    for i in range(1, ngram):
        value = value * GOLDEN + tokens[first + i]
    return mix(value)


@unlocked
def sequence_hash(data: NDArray[np.uint8], start: int, end: int, word: NDArray[np.bool_]) -> np.uint64:
    """Hash of all tokens in their order, punctuation included: equal for texts that differ in white space alone."""
    value = GOLDEN
    run = _OFFSET
    inside = False
    for p in range(start, end):
        byte = data[p]
        if word[byte]:
            run = (run ^ np.uint64(byte)) * _PRIME
            inside = True
            continue
        if inside:
            value = mix(value * GOLDEN + run)
            run = _OFFSET
            inside = False
        if not SPACE[byte]:
            value = mix(value * GOLDEN + np.uint64(byte))
    if inside:
        value = mix(value * GOLDEN + run)
    return value


@unlocked
def _sets(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    chosen: NDArray[np.int64],
    ngram: int,
    shortest: int,
    word: NDArray[np.bool_],
    skip_notice: bool,
    out: NDArray[np.uint64],
    out_offsets: NDArray[np.int64],
) -> None:
    longest = 0
    for document in chosen:
        longest = max(longest, offsets[document + 1] - offsets[document])
    tokens = np.empty(longest // 2 + 1, dtype=np.uint64)
    place = np.int64(0)
    for number in range(len(chosen)):
        document = chosen[number]
        out_offsets[number] = place
        start = body_start(data, offsets[document], offsets[document + 1]) if skip_notice else offsets[document]
        count = tokens_of(data, start, offsets[document + 1], word, tokens)
        if count < shortest:
            out[place] = sequence_hash(data, offsets[document], offsets[document + 1], word)
            place += 1
            continue
        shingles = np.empty(max(0, count - ngram + 1), dtype=np.uint64)
        for i in range(len(shingles)):
            shingles[i] = shingle_of(tokens, i, ngram)
        shingles.sort()
        for i in range(len(shingles)):
            if i == 0 or shingles[i] != shingles[i - 1]:
                out[place] = shingles[i]
                place += 1
    out_offsets[len(chosen)] = place


def shingle_sets(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    chosen: NDArray[np.int64],
    ngram: int,
    shortest: int,
    word: NDArray[np.bool_],
    skip_notice: bool,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sorted distinct shingles of the texts `chosen` out of data[offsets[i] : offsets[i + 1]], end to end, and where
    each begins (len(chosen) + 1,). A text of fewer than `shortest` tokens has one element, its
    `sequence_hash`; with `skip_notice`, what stands before `body_start` is not looked at."""
    room = int(((offsets[chosen + 1] - offsets[chosen]) // 2 + 1).sum())
    out = np.empty(room, dtype=np.uint64)
    places = np.zeros(len(chosen) + 1, dtype=np.int64)
    _sets(data, offsets, chosen, ngram, shortest, word, skip_notice, out, places)
    return out[: places[-1]], places


@unlocked
def common(a: NDArray[np.uint64], b: NDArray[np.uint64], least: int) -> int:
    """How many elements two sorted sets share; gives up, with what was found so far, once `least` is out of reach."""
    i, j, shared = 0, 0, 0
    while i < len(a) and j < len(b):
        x, y = a[i], b[j]
        if x == y:
            shared += 1
            i += 1
            j += 1
        elif x < y:
            i += 1
            if shared + len(a) - i < least:
                break
        else:
            j += 1
            if shared + len(b) - j < least:
                break
    return shared
