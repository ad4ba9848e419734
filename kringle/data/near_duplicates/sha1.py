"""SHA-1 (FIPS 180-4): the first four bytes of a message's digest, which is what BigCode's scripts hash a shingle to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

WORDS = 80  # of 32 bits: a block of 16, expanded
LANES = 32  # short messages hashed side by side; with 16, LLVM unrolls the loops over lanes instead of vectorizing them
SHORT = 55  # bytes: the longest message that fits one block with its padding


@unlocked
def _word(data: NDArray[np.uint8], p: int) -> np.uint32:
    """The four bytes from `p` on, the first one highest."""
    return np.uint32(
        (np.uint32(data[p]) << np.uint32(24))
        | (np.uint32(data[p + 1]) << np.uint32(16))
        | (np.uint32(data[p + 2]) << np.uint32(8))
        | np.uint32(data[p + 3])
    )


@unlocked
def _block(data: NDArray[np.uint8], first: int, end: int, length: int, words: NDArray[np.uint32]) -> None:
    """Write the 64 bytes that begin at `first` into words[:16], with the message's padding after `end`."""
    if first + 64 <= end:
        for word in range(16):
            words[word] = _word(data, first + 4 * word)
        return
    for word in range(16):
        words[word] = np.uint32(0)
    for p in range(first, end):
        at = p - first
        words[at >> 2] |= np.uint32(data[p]) << np.uint32(24 - 8 * (at & 3))
    if first <= end:
        at = end - first
        words[at >> 2] |= np.uint32(0x80) << np.uint32(24 - 8 * (at & 3))
    if end + 9 <= first + 64:  # the last block ends with the length in bits
        words[14] = np.uint32(length >> 29)
        words[15] = np.uint32((length << 3) & 0xFFFFFFFF)


@unlocked
def _swapped(x: np.uint32) -> np.uint32:
    """The four bytes in the other order."""
    high = (x & np.uint32(0xFF)) << np.uint32(24) | (x & np.uint32(0xFF00)) << np.uint32(8)
    return np.uint32(high | ((x >> np.uint32(8)) & np.uint32(0xFF00)) | (x >> np.uint32(24)))


@unlocked
def _turned(x: np.uint32, bits: int) -> np.uint32:
    return np.uint32((x << np.uint32(bits)) | (x >> np.uint32(32 - bits)))


@unlocked
def sha1_low32(data: NDArray[np.uint8], start: int, end: int, words: NDArray[np.uint32]) -> np.uint64:
    """First four bytes, little-endian, of the SHA-1 of data[start:end]; `words` (WORDS,) is scratch."""
    h0, h1, h2, h3, h4 = (
        np.uint32(0x67452301),
        np.uint32(0xEFCDAB89),
        np.uint32(0x98BADCFE),
        np.uint32(0x10325476),
        np.uint32(0xC3D2E1F0),
    )
    length = end - start
    for block in range((length + 8) // 64 + 1):
        _block(data, start + 64 * block, end, length, words)
        for t in range(16, 80):
            x = words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]
            words[t] = _turned(x, 1)
        a, b, c, d, e = h0, h1, h2, h3, h4
        for t in range(20):
            f = np.uint32(d ^ (b & (c ^ d)))
            total = np.uint32(_turned(a, 5) + f + e + np.uint32(0x5A827999) + words[t])
            a, b, c, d, e = total, a, _turned(b, 30), c, d
        for t in range(20, 40):
            f = np.uint32(b ^ c ^ d)
            total = np.uint32(_turned(a, 5) + f + e + np.uint32(0x6ED9EBA1) + words[t])
            a, b, c, d, e = total, a, _turned(b, 30), c, d
        for t in range(40, 60):
            f = np.uint32((b & c) | (d & (b | c)))
            total = np.uint32(_turned(a, 5) + f + e + np.uint32(0x8F1BBCDC) + words[t])
            a, b, c, d, e = total, a, _turned(b, 30), c, d
        for t in range(60, 80):
            f = np.uint32(b ^ c ^ d)
            total = np.uint32(_turned(a, 5) + f + e + np.uint32(0xCA62C1D6) + words[t])
            a, b, c, d, e = total, a, _turned(b, 30), c, d
        h0 = np.uint32(h0 + a)
        h1 = np.uint32(h1 + b)
        h2 = np.uint32(h2 + c)
        h3 = np.uint32(h3 + d)
        h4 = np.uint32(h4 + e)
    return np.uint64(_swapped(h0))


@unlocked
def _fill_lane(data: NDArray[np.uint8], start: int, length: int, words: NDArray[np.uint32], lane: int) -> None:
    """Write a message of up to `SHORT` bytes, padded, into a lane of the first 16 rows of `words`, which hold zeros."""
    whole = length >> 2
    for word in range(whole):
        words[word * LANES + lane] = _word(data, start + 4 * word)
    last = np.uint32(0x80) << np.uint32(24 - 8 * (length & 3))
    for i in range(length & 3):
        last |= np.uint32(data[start + 4 * whole + i]) << np.uint32(24 - 8 * i)
    words[whole * LANES + lane] = last
    words[15 * LANES + lane] = np.uint32(length << 3)


# The rounds below are written out four times, over flat arrays at constant distances, because only so does LLVM see
# that they are vectors of independent lanes: eight times as fast as one message after another.


@unlocked
def _expand(words: NDArray[np.uint32]) -> None:
    for t in range(64):
        for lane in range(LANES):
            i = t * LANES + lane
            x = words[i + 13 * LANES] ^ words[i + 8 * LANES] ^ words[i + 2 * LANES] ^ words[i]
            words[i + 16 * LANES] = _turned(x, 1)


@unlocked
def _rounds(words: NDArray[np.uint32], states: NDArray[np.uint32]) -> None:
    for t in range(20):
        for lane in range(LANES):
            i = t * LANES + lane
            b, c, d = states[i + 3 * LANES], _turned(states[i + 2 * LANES], 30), _turned(states[i + LANES], 30)
            total = _turned(states[i + 4 * LANES], 5) + _turned(states[i], 30) + words[i]
            states[i + 5 * LANES] = np.uint32(total + np.uint32(d ^ (b & (c ^ d))) + np.uint32(0x5A827999))
    for t in range(20, 40):
        for lane in range(LANES):
            i = t * LANES + lane
            b, c, d = states[i + 3 * LANES], _turned(states[i + 2 * LANES], 30), _turned(states[i + LANES], 30)
            total = _turned(states[i + 4 * LANES], 5) + _turned(states[i], 30) + words[i]
            states[i + 5 * LANES] = np.uint32(total + np.uint32(b ^ c ^ d) + np.uint32(0x6ED9EBA1))
    for t in range(40, 60):
        for lane in range(LANES):
            i = t * LANES + lane
            b, c, d = states[i + 3 * LANES], _turned(states[i + 2 * LANES], 30), _turned(states[i + LANES], 30)
            total = _turned(states[i + 4 * LANES], 5) + _turned(states[i], 30) + words[i]
            states[i + 5 * LANES] = np.uint32(total + np.uint32((b & c) | (d & (b | c))) + np.uint32(0x8F1BBCDC))
    for t in range(60, 80):
        for lane in range(LANES):
            i = t * LANES + lane
            b, c, d = states[i + 3 * LANES], _turned(states[i + 2 * LANES], 30), _turned(states[i + LANES], 30)
            total = _turned(states[i + 4 * LANES], 5) + _turned(states[i], 30) + words[i]
            states[i + 5 * LANES] = np.uint32(total + np.uint32(b ^ c ^ d) + np.uint32(0xCA62C1D6))


@unlocked
def sha1_low32_lanes(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    count: int,
    words: NDArray[np.uint32],
    states: NDArray[np.uint32],
    out: NDArray[np.uint32],
) -> None:
    """`sha1_low32` of up to `LANES` messages of at most `SHORT` bytes at once, into out[:count].

    `words` (WORDS * LANES,) and `states` ((WORDS + 5) * LANES,) are scratch, in rows of one word for each lane. Row
    t + 5 of `states` is the register `a` after round t; the other four registers are earlier rows, turned by 30 bits,
    so nothing is ever moved between registers.
    """
    words[: 16 * LANES] = 0
    for lane in range(count):
        _fill_lane(data, starts[lane], lengths[lane], words, lane)
    _expand(words)
    for lane in range(LANES):  # the first three rows are the constants e, d and c, turned back by 30 bits
        states[lane] = np.uint32(0x0F4B87C3)
        states[LANES + lane] = np.uint32(0x40C951D8)
        states[2 * LANES + lane] = np.uint32(0x62EB73FA)
        states[3 * LANES + lane] = np.uint32(0xEFCDAB89)
        states[4 * LANES + lane] = np.uint32(0x67452301)
    _rounds(words, states)
    for lane in range(count):
        out[lane] = _swapped(np.uint32(states[(WORDS + 4) * LANES + lane] + np.uint32(0x67452301)))
