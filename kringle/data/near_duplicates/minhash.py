"""MinHash signatures (Broder 1997), cut into bands of which 64-bit keys are kept.

`faithful` is bit-identical with BigCode's scripts (bigcode-analysis, near-deduplication, commits 9f5f70c and 13aa9c3;
datasketch before version 2): a shingle's hash h is the first four bytes of its SHA-1, little-endian; a permutation is
((a * h + b) mod (2^61 - 1)) with its low 32 bits kept, products wrapping at 64 bits, a and b drawn alternately from
NumPy's RandomState. Which shingles of a text are the same is told by a hash of 64 bits. `corrected` hashes shingles of
real words to 32 bits and permutes with an odd factor modulo 2^32, so that 16 permutations are one vector instruction.
Keys, not minima, leave these functions: 8 bytes a band.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.near_duplicates.bands import PERMUTATIONS, Bands
from kringle.data.near_duplicates.sha1 import LANES, SHORT, WORDS, sha1_low32, sha1_low32_lanes
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
_KNOWN = 1 << 15  # slots of the table of shingles whose SHA-1 is known, for all documents of a batch
_S50, _S49 = np.uint64(64 - 14), np.uint64(64 - 15)  # a shingle's slot in each is its highest bits
_DOUBT = np.uint32(9)  # what `_permute_four` may get wrong comes out as at most this


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


@unlocked
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


@unlocked
def _permute_legacy(h: np.uint64, a: NDArray[np.uint64], b: NDArray[np.uint64], lowest: NDArray[np.uint32]) -> None:
    """The minima (256,) with one more hash, as the definition says it."""
    for k in range(len(a)):
        x = a[k] * h + b[k]
        x = (x & _MERSENNE) + (x >> _S61)  # 2^61 is 1 modulo 2^61 - 1
        x = (x + ((x + _ONE) >> _S61)) & _LOW  # subtracting 2^61 - 1 from what is not below it adds 1 to its low bits
        lowest[k] = min(lowest[k], np.uint32(x))


@unlocked
def _permute_four(
    h0: np.uint64,
    h1: np.uint64,
    h2: np.uint64,
    h3: np.uint64,
    a: NDArray[np.uint64],
    b1: NDArray[np.uint64],
    above: NDArray[np.uint32],
) -> None:
    """Four hashes at once, each minimum one too high: with b1 = b + 1 and without the last step of the reduction.

    Reducing x = a * h + b to y = (x mod 2^61) + (x >> 61) leaves y below 2^61 - 1, and its low bits right, unless the
    low 61 bits of x are all ones but for the last three. Whatever such an x comes to is at most `_DOUBT` here.
    """
    for k in range(len(a)):
        factor, summand, lowest = a[k], b1[k], above[k]
        x = factor * h0 + summand
        lowest = min(lowest, np.uint32(x + (x >> _S61)))
        x = factor * h1 + summand
        lowest = min(lowest, np.uint32(x + (x >> _S61)))
        x = factor * h2 + summand
        lowest = min(lowest, np.uint32(x + (x >> _S61)))
        x = factor * h3 + summand
        above[k] = min(lowest, np.uint32(x + (x >> _S61)))


@unlocked
def _minima(
    hashes: NDArray[np.uint64],
    count: int,
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    b1: NDArray[np.uint64],
    lowest: NDArray[np.uint32],
) -> None:
    """Minima (256,) over hashes[:count]; `hashes` has room for three more."""
    lowest[:] = np.uint32(_LOW)
    if count == 0:
        return
    for i in range(count, count + 3):
        hashes[i] = hashes[count - 1]
    for i in range(0, count, 4):
        _permute_four(hashes[i], hashes[i + 1], hashes[i + 2], hashes[i + 3], a, b1, lowest)
    doubt = False
    for k in range(len(a)):
        doubt |= lowest[k] <= _DOUBT or lowest[k] == np.uint32(_LOW)
        lowest[k] -= np.uint32(1)
    if doubt:  # one text of ten thousand
        lowest[:] = np.uint32(_LOW)
        for i in range(count):
            _permute_legacy(hashes[i], a, b, lowest)


@unlocked
def _distinct(
    tokens: NDArray[np.uint64],
    count: int,
    ngram: int,
    seen: NDArray[np.uint64],
    places: NDArray[np.int64],
    shingles: NDArray[np.uint64],
) -> int:
    """Where the shingles begin that were not `seen` before, and their hashes; returns how many.

    A shingle that came before changes no minimum: a small table remembers the last hash of each slot, and saves two
    thirds of the work.
    """
    seen[:] = 0
    top = np.uint64(1)
    for _ in range(ngram - 1):
        top *= GOLDEN
    value = np.uint64(0)
    for i in range(min(ngram - 1, count)):
        value = value * GOLDEN + tokens[i]
    found = 0
    for i in range(count - ngram + 1):
        value = value * GOLDEN + tokens[i + ngram - 1]
        shingle = mix(value) | _ONE  # so that no shingle looks like an empty slot
        value -= top * tokens[i]
        slot = shingle >> _S50
        if seen[slot] != shingle:
            seen[slot] = shingle
            places[found], shingles[found] = i, shingle
            found += 1
    return found


@unlocked
def _learn(
    waiting: NDArray[np.int64],
    digests: NDArray[np.uint32],
    shingles: NDArray[np.uint64],
    known: NDArray[np.uint64],
    known_hash: NDArray[np.uint32],
    hashes: NDArray[np.uint64],
) -> None:
    """Put the digests of the shingles that waited for them where they belong, and remember them."""
    for lane in range(len(waiting)):
        i, digest = waiting[lane], digests[lane]
        slot = shingles[i] >> _S49
        known[slot], known_hash[slot] = shingles[i], digest
        hashes[i] = np.uint64(digest)


@unlocked
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
    fields = np.empty(longest + 2, dtype=np.uint64)
    places = np.empty(longest + 2, dtype=np.int64)
    shingles = np.empty(longest + 2, dtype=np.uint64)
    hashes = np.empty(longest + 5, dtype=np.uint64)
    seen = np.zeros(_SEEN, dtype=np.uint64)
    known = np.zeros(_KNOWN, dtype=np.uint64)
    known_hash = np.zeros(_KNOWN, dtype=np.uint32)
    words = np.zeros(WORDS * LANES, dtype=np.uint32)
    states = np.zeros((WORDS + 5) * LANES, dtype=np.uint32)
    alone = np.zeros(WORDS, dtype=np.uint32)
    waiting = np.zeros(LANES, dtype=np.int64)
    starts = np.zeros(LANES, dtype=np.int64)
    lengths = np.zeros(LANES, dtype=np.int64)
    digests = np.zeros(LANES, dtype=np.uint32)
    b1 = b + _ONE
    for document in range(len(offsets) - 1):
        count, filled = _fields(data, offsets[document], offsets[document + 1], text, begins, ends, fields, keep_empty)
        tokens[document] = filled
        if filled < SHORTEST:
            continue
        found = _distinct(fields, count, ngram, seen, places, shingles)
        queued = 0
        for i in range(found):
            slot = shingles[i] >> _S49
            if known[slot] == shingles[i]:
                hashes[i] = np.uint64(known_hash[slot])
                continue
            start = begins[places[i]]
            length = ends[places[i] + ngram - 1] - start
            if length > SHORT:
                hashes[i] = sha1_low32(text, start, start + length, alone)
                continue
            waiting[queued], starts[queued], lengths[queued] = i, start, length
            queued += 1
            if queued == LANES:
                sha1_low32_lanes(text, starts, lengths, queued, words, states, digests)
                _learn(waiting[:queued], digests, shingles, known, known_hash, hashes)
                queued = 0
        sha1_low32_lanes(text, starts, lengths, queued, words, states, digests)
        _learn(waiting[:queued], digests, shingles, known, known_hash, hashes)
        _minima(hashes, found, a, b, b1, minima[document])


@unlocked
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


@unlocked
def _permute(h: np.uint32, a: NDArray[np.uint32], b: NDArray[np.uint32], lowest: NDArray[np.uint32]) -> None:
    for k in range(len(a)):
        x = np.uint32(a[k] * h + b[k])
        lowest[k] = min(lowest[k], x)


@unlocked
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
