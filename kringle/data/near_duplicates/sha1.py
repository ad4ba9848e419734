"""SHA-1 (FIPS 180-4): the first four bytes of a message's digest, which is what BigCode's scripts hash a shingle to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.data.compiled import compiled

WORDS = 80  # of 32 bits: a block of 16, expanded


@compiled
def _block(data: NDArray[np.uint8], first: int, end: int, length: int, words: NDArray[np.uint32]) -> None:
    """Write the 64 bytes that begin at `first` into words[:16], with the message's padding after `end`."""
    if first + 64 <= end:
        for word in range(16):
            p = first + 4 * word
            words[word] = np.uint32(
                (np.uint32(data[p]) << np.uint32(24))
                | (np.uint32(data[p + 1]) << np.uint32(16))
                | (np.uint32(data[p + 2]) << np.uint32(8))
                | np.uint32(data[p + 3])
            )
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


@compiled
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
            words[t] = np.uint32((x << np.uint32(1)) | (x >> np.uint32(31)))
        a, b, c, d, e = h0, h1, h2, h3, h4
        for t in range(20):
            f = np.uint32(d ^ (b & (c ^ d)))
            turned = np.uint32((a << np.uint32(5)) | (a >> np.uint32(27)))
            total = np.uint32(turned + f + e + np.uint32(0x5A827999) + words[t])
            a, b, c, d, e = total, a, np.uint32((b << np.uint32(30)) | (b >> np.uint32(2))), c, d
        for t in range(20, 40):
            f = np.uint32(b ^ c ^ d)
            turned = np.uint32((a << np.uint32(5)) | (a >> np.uint32(27)))
            total = np.uint32(turned + f + e + np.uint32(0x6ED9EBA1) + words[t])
            a, b, c, d, e = total, a, np.uint32((b << np.uint32(30)) | (b >> np.uint32(2))), c, d
        for t in range(40, 60):
            f = np.uint32((b & c) | (d & (b | c)))
            turned = np.uint32((a << np.uint32(5)) | (a >> np.uint32(27)))
            total = np.uint32(turned + f + e + np.uint32(0x8F1BBCDC) + words[t])
            a, b, c, d, e = total, a, np.uint32((b << np.uint32(30)) | (b >> np.uint32(2))), c, d
        for t in range(60, 80):
            f = np.uint32(b ^ c ^ d)
            turned = np.uint32((a << np.uint32(5)) | (a >> np.uint32(27)))
            total = np.uint32(turned + f + e + np.uint32(0xCA62C1D6) + words[t])
            a, b, c, d, e = total, a, np.uint32((b << np.uint32(30)) | (b >> np.uint32(2))), c, d
        h0 = np.uint32(h0 + a)
        h1 = np.uint32(h1 + b)
        h2 = np.uint32(h2 + c)
        h3 = np.uint32(h3 + d)
        h4 = np.uint32(h4 + e)
    swapped = (h0 & np.uint32(0xFF)) << np.uint32(24) | (h0 & np.uint32(0xFF00)) << np.uint32(8)
    return np.uint64(np.uint32(swapped | ((h0 >> np.uint32(8)) & np.uint32(0xFF00)) | (h0 >> np.uint32(24))))
