"""Following seeds into the token store: how far a text and a document agree around each, compiled with numba.

A document is read token by token from where a seed lies, forwards and backwards, and no further than it agrees with the
text; so following a seed costs about the same in a large document as in a small one. To get to a byte of a document
there is a checkpoint every `CHECKPOINT` tokens: the byte that the token begins at.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kringle.attribution.kernels import SEED, SHORTEST, Bytes

CHECKPOINT = 256  # tokens
FULLY_FOLLOWED = 16  # seeds at one offset of the text; further ones only where they could make a known copy longer

_kernel = njit(nogil=True, cache=True)


@_kernel
def checkpoints(tokens: NDArray[np.unsignedinteger], starts: NDArray[np.int64], out: NDArray[np.uint32]) -> int:
    """Fill the byte that every `CHECKPOINT`-th token begins at; returns the size of the document in bytes."""
    at = 0
    for i in range(len(tokens)):
        if i % CHECKPOINT == 0:
            out[i // CHECKPOINT] = at
        at += starts[tokens[i] + 1] - starts[tokens[i]]
    return at


@_kernel
def _token_at(
    tokens: NDArray[np.unsignedinteger], first: int, starts: NDArray[np.int64], marks: NDArray[np.uint32], place: int
) -> tuple[int, int]:
    """(number of the token, byte inside it) of the byte `place` of the document whose tokens begin at `first`."""
    low, high = 0, len(marks)
    while high - low > 1:
        middle = (low + high) // 2
        if marks[middle] <= place:
            low = middle
        else:
            high = middle
    token, at = first + low * CHECKPOINT, int(marks[low])
    while True:
        size = int(starts[tokens[token] + 1] - starts[tokens[token]])
        if place < at + size:
            return token, place - at
        at += size
        token += 1


@_kernel
def _byte(
    tokens: NDArray[np.unsignedinteger],
    first: int,
    starts: NDArray[np.int64],
    blob: Bytes,
    marks: NDArray[np.uint32],
    place: int,
) -> int:
    token, inside = _token_at(tokens, first, starts, marks, place)
    return int(blob[starts[tokens[token]] + inside])


@_kernel
def follow(
    text: Bytes,
    offsets: NDArray[np.int64],
    documents: NDArray[np.int64],
    places: NDArray[np.int64],
    tokens: NDArray[np.unsignedinteger],
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
    blob: Bytes,
    mark_starts: NDArray[np.int64],
    marks: NDArray[np.uint32],
    found: NDArray[np.int64],
) -> int:
    """Fill rows (start, end, candidate) of `found` (C, 3) with the stretches text[start:end], `SHORTEST` bytes or more,
    that the documents share through the candidates' seeds; returns how many.

    Candidate c says that text[offsets[c]:] and byte places[c] of document documents[c] may begin with the same seed;
    offsets ascend. Document d has sizes[d] bytes and the tokens firsts[d] to lasts[d] - 1; token t is
    blob[starts[t] : starts[t + 1]].
    """
    count = 0
    known_start = known_end = tried = 0  # the copy that reaches furthest so far
    last = -1
    for c in range(len(offsets)):
        at, document = offsets[c], documents[c]
        if at != last:
            last, tried = at, 0
        first, stop = firsts[document], lasts[document]
        here = marks[mark_starts[document] : mark_starts[document + 1]]
        if tried >= FULLY_FOLLOWED and known_start <= at and at + SEED <= known_end:
            # It can add to the known copy only if it agrees with the text in the byte before it or in the one after.
            before, after = places[c] - (at - known_start) - 1, places[c] + (known_end - at)
            if not (
                known_start > 0
                and before >= 0
                and _byte(tokens, first, starts, blob, here, before) == text[known_start - 1]
            ) and not (
                known_end < len(text)
                and after < sizes[document]
                and _byte(tokens, first, starts, blob, here, after) == text[known_end]
            ):
                continue
        tried += 1
        token, inside = _token_at(tokens, first, starts, here, places[c])
        end = at
        number, byte = token, starts[tokens[token]] + inside
        while end < len(text):
            if byte == starts[tokens[number] + 1]:
                number += 1
                if number == stop:
                    break
                byte = starts[tokens[number]]
                continue  # a token may stand for no bytes
            if blob[byte] != text[end]:
                break
            byte += 1
            end += 1
        if end - at < SEED:
            continue
        start = at
        number, byte = token, starts[tokens[token]] + inside
        while start > 0:
            if byte == starts[tokens[number]]:
                if number == first:
                    break
                number -= 1
                byte = starts[tokens[number] + 1]
                continue
            if blob[byte - 1] != text[start - 1]:
                break
            byte -= 1
            start -= 1
        if end - start >= SHORTEST:
            if end > known_end:
                known_start, known_end = start, end
            found[count, 0], found[count, 1], found[count, 2] = start, end, c
            count += 1
    return count
