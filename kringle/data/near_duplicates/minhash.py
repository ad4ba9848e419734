"""MinHash signatures (Broder 1997), cut into bands of which 64-bit keys are kept.

`faithful` is bit-identical with BigCode's scripts (bigcode-analysis, near-deduplication, commits 9f5f70c and 13aa9c3;
datasketch before version 2): a shingle's hash h is the first four bytes of its SHA-1, little-endian; a permutation is
((a * h + b) mod (2^61 - 1)) with its low 32 bits kept, products wrapping at 64 bits, a and b drawn alternately from
NumPy's RandomState. `corrected` hashes shingles of real words to 32 bits and permutes with an odd factor modulo 2^32,
so that 16 permutations are one vector instruction. Keys, not minima, leave these functions: 8 bytes a band.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.compiled import compiled
from kringle.data.near_duplicates.bands import PERMUTATIONS, Bands
from kringle.data.near_duplicates.sha1 import WORDS, sha1_low32
from kringle.data.near_duplicates.shingles import (
    ASCII_WORD,
    GOLDEN,
    REAL_WORD,
    body_start,
    mix,
    sequence_hash,
    shingle_of,
    tokens_of,
)
from kringle.randomness import stream

SHORTEST = 10  # tokens: with fewer, a file gets no signature (BigCode's MIN_NUM_TOKENS and --min-token-length)
_MERSENNE = np.uint64((1 << 61) - 1)
_LOW, _ONE = np.uint64(0xFFFFFFFF), np.uint64(1)
_S32, _S61 = np.uint64(32), np.uint64(61)
_SEEN = 1 << 14  # slots of the table of shingles seen, per document
_KNOWN = 1 << 15  # slots of the table of short shingles whose SHA-1 is known, for all documents of a batch
_SHORT = 24  # bytes, three words: five of six shingles of source code are no longer


class Signatures(NamedTuple):
    """Of N texts: `keys` (bands, N) and `tokens` (N,), which counts words, empty ones left out."""

    keys: NDArray[np.uint64]
    tokens: NDArray[np.int64]


def legacy_permutations(seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """BigCode's 256 factors and summands (256,): seed 42 for the stronger step, 1 (datasketch's default) for the base
    step."""
    generator = np.random.RandomState(seed)
    prime = (1 << 61) - 1
    pairs = [
        (generator.randint(1, prime, dtype=np.uint64), generator.randint(0, prime, dtype=np.uint64))
        for _ in range(PERMUTATIONS)
    ]
    a, b = np.array(pairs, dtype=np.uint64).T
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def word_permutations(bands: Bands) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands (bands * rows,) of `corrected`."""
    generator = stream(0, "minhash")
    a, b = generator.integers(0, 1 << 32, size=(2, PERMUTATIONS), dtype=np.uint32)[:, : bands.permutations]
    return np.ascontiguousarray(a | np.uint32(1)), np.ascontiguousarray(b)


# -- faithful ----------------------------------------------------------------------------------------------------------


@compiled
def _fields(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    text: NDArray[np.uint8],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    keep_empty: bool,
) -> tuple[int, int]:
    """Cut data[start:end] at every character that is no word character. `text` becomes the fields joined by single
    spaces, `begins` and `ends` their places in it, `hashes` a hash of each. Returns their count, and how many are not
    empty."""
    count, filled, place = 0, 0, 0
    begin = 0
    value = np.uint64(0xCBF29CE484222325)
    for p in range(start, end + 1):
        byte = data[p] if p < end else np.uint8(0)
        if ASCII_WORD[byte]:
            text[place] = byte
            place += 1
            value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
            continue
        if (byte & np.uint8(0xC0)) == np.uint8(0x80):  # inside a character that has been cut at already
            continue
        if place > begin or keep_empty:
            begins[count], ends[count] = begin, place
            hashes[count] = mix(value)
            count += 1
            if place > begin:
                filled += 1
            text[place] = np.uint8(32)
            place += 1
            begin = place
        value = np.uint64(0xCBF29CE484222325)
    return count, filled


@compiled
def _permute_legacy(h: np.uint64, a: NDArray[np.uint64], b: NDArray[np.uint64], lowest: NDArray[np.uint64]) -> None:
    for k in range(len(a)):
        x = a[k] * h + b[k]
        x = (x & _MERSENNE) + (x >> _S61)  # 2^61 is 1 modulo 2^61 - 1
        x = (x + ((x + _ONE) >> _S61)) & _LOW  # subtracting 2^61 - 1 from what is not below it adds 1 to its low bits
        lowest[k] = min(lowest[k], x)


@compiled
def _same(text: NDArray[np.uint8], a: int, b: int, length: int) -> bool:
    for i in range(length):  # noqa: SIM110 (a loop compiles better)
        if text[a + i] != text[b + i]:
            return False
    return True


@compiled
def _packed(text: NDArray[np.uint8], start: int, length: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Up to 24 bytes as three words."""
    x0, x1, x2 = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(min(length, 8)):
        x0 = (x0 << np.uint64(8)) | np.uint64(text[start + i])
    for i in range(8, min(length, 16)):
        x1 = (x1 << np.uint64(8)) | np.uint64(text[start + i])
    for i in range(16, length):
        x2 = (x2 << np.uint64(8)) | np.uint64(text[start + i])
    return x0, x1, x2


@compiled
def _legacy(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ngram: int,
    keep_empty: bool,
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    minima: NDArray[np.uint32],
    tokens: NDArray[np.int64],
) -> None:
    """Minima (N, permutations) of each text, and its count of tokens that are not empty."""
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    text = np.empty(2 * longest + 2, dtype=np.uint8)
    begins = np.empty(longest + 2, dtype=np.int64)
    ends = np.empty(longest + 2, dtype=np.int64)
    hashes = np.empty(longest + 2, dtype=np.uint64)
    words = np.zeros(WORDS, dtype=np.uint32)
    seen_at = np.full(_SEEN, -1, dtype=np.int64)
    seen_length = np.zeros(_SEEN, dtype=np.int64)
    known = np.zeros((_KNOWN, 3), dtype=np.uint64)
    known_length = np.full(_KNOWN, -1, dtype=np.int64)
    known_hash = np.zeros(_KNOWN, dtype=np.uint64)
    lowest = np.empty(len(a), dtype=np.uint64)
    for document in range(len(offsets) - 1):
        count, filled = _fields(data, offsets[document], offsets[document + 1], text, begins, ends, hashes, keep_empty)
        tokens[document] = filled
        if filled < SHORTEST:
            continue
        for k in range(len(a)):
            lowest[k] = _LOW
        seen_at[:] = -1
        for i in range(count - ngram + 1):
            # A shingle whose very bytes were seen before changes no minimum: a small table remembers the last of each
            # slot, and saves two thirds of the work.
            start, length = begins[i], ends[i + ngram - 1] - begins[i]
            slot = shingle_of(hashes, i, ngram) >> _S32
            last = slot & np.uint64(_SEEN - 1)
            if seen_at[last] >= 0 and seen_length[last] == length and _same(text, seen_at[last], start, length):
                continue
            seen_at[last], seen_length[last] = start, length
            if length <= _SHORT:
                x0, x1, x2 = _packed(text, start, length)
                slot &= np.uint64(_KNOWN - 1)
                if known[slot, 0] != x0 or known[slot, 1] != x1 or known[slot, 2] != x2 or known_length[slot] != length:
                    known[slot, 0], known[slot, 1], known[slot, 2], known_length[slot] = x0, x1, x2, length
                    known_hash[slot] = sha1_low32(text, start, start + length, words)
                h = known_hash[slot]
            else:
                h = sha1_low32(text, start, start + length, words)
            _permute_legacy(h, a, b, lowest)
        for k in range(len(a)):
            minima[document, k] = np.uint32(lowest[k])


@compiled
def _band_keys(minima: NDArray[np.uint32], bands: int, rows: int, keys: NDArray[np.uint64]) -> None:
    for document in range(len(minima)):
        for band in range(bands):
            value = GOLDEN
            for row in range(rows):
                value = mix(value * GOLDEN + np.uint64(minima[document, band * rows + row]))
            keys[band, document] = value


def legacy_minima(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], ngram: int, keep_empty: bool, seed: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """BigCode's signatures (N, 256) of texts data[offsets[i] : offsets[i + 1]], and their token counts (N,)."""
    a, b = legacy_permutations(seed)
    minima = np.zeros((len(offsets) - 1, PERMUTATIONS), dtype=np.uint32)
    tokens = np.zeros(len(offsets) - 1, dtype=np.int64)
    _legacy(data, offsets, ngram, keep_empty, a, b, minima, tokens)
    return minima, tokens


def legacy_signatures(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], ngram: int, keep_empty: bool, seed: int, bands: Bands
) -> Signatures:
    """Band keys of BigCode's signatures; those of texts with fewer than `SHORTEST` tokens mean nothing."""
    minima, tokens = legacy_minima(data, offsets, ngram, keep_empty, seed)
    keys = np.zeros((bands.bands, len(tokens)), dtype=np.uint64)
    _band_keys(minima, bands.bands, bands.rows, keys)
    return Signatures(keys, tokens)


# -- corrected ---------------------------------------------------------------------------------------------------------


@compiled
def _permute(h: np.uint32, a: NDArray[np.uint32], b: NDArray[np.uint32], lowest: NDArray[np.uint32]) -> None:
    for k in range(len(a)):
        x = np.uint32(a[k] * h + b[k])
        lowest[k] = min(lowest[k], x)


@compiled
def _words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ngram: int,
    shortest: int,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    bands: int,
    rows: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    tokens = np.empty(longest // 2 + 1, dtype=np.uint64)
    lowest = np.empty(len(a), dtype=np.uint32)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        count = tokens_of(data, body_start(data, start, end), end, REAL_WORD, tokens)
        counts[document] = count
        if count < shortest:
            keys[:, document] = sequence_hash(data, start, end, REAL_WORD)
            continue
        for k in range(len(a)):
            lowest[k] = np.uint32(0xFFFFFFFF)
        for i in range(count - ngram + 1):
            _permute(np.uint32(shingle_of(tokens, i, ngram) >> _S32), a, b, lowest)
        for band in range(bands):
            value = GOLDEN
            for row in range(rows):
                value = mix(value * GOLDEN + np.uint64(lowest[band * rows + row]))
            keys[band, document] = value


def word_signatures(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], ngram: int, shortest: int, bands: Bands
) -> Signatures:
    """Band keys of real-word shingles of texts data[offsets[i] : offsets[i + 1]]. A text of fewer than `shortest`
    tokens has the hash of its whole token sequence as every key: it meets those with the same tokens and no other."""
    a, b = word_permutations(bands)
    count = len(offsets) - 1
    keys = np.zeros((bands.bands, count), dtype=np.uint64)
    tokens = np.zeros(count, dtype=np.int64)
    _words(data, offsets, ngram, shortest, a, b, bands.bands, bands.rows, keys, tokens)
    return Signatures(keys, tokens)
