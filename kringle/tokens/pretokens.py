"""Pre-tokenisation: where a text is cut before byte-level BPE, as one pass over UTF-8 bytes.

Two steps of SantaCoder's tokenizer in one (arXiv 2301.03988, section "Tokenizer"): every digit stands alone, and what
lies between digits is cut by GPT-2's pattern (openai/gpt-2, src/encoder.py):

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

The pattern sees each stretch between digits as a text of its own, so a run of spaces before a digit stays whole, where
before a letter its last space goes with the word. Any bytes are accepted: a byte that is not part of valid UTF-8 is a
symbol of its own, as U+FFFD in its place would be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import compiled, inlined
from kringle.tokens.character_classes import LETTER, NUMBER, SPACE, SYMBOL

Bytes = NDArray[np.uint8]


@inlined
def _character(data: Bytes, i: int, end: int, classes: Bytes) -> tuple[Any, int]:
    """Class and length in bytes of the character at `i`; (SYMBOL, 1) where no valid character begins."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return np.int64(classes[lead]), 1
    if lead < 0xC2 or lead > 0xF4 or i + 1 >= end:
        return SYMBOL, 1
    second = np.int64(data[i + 1])
    if lead < 0xE0:
        if second & 0xC0 != 0x80:
            return SYMBOL, 1
        return np.int64(classes[(lead & 0x1F) << 6 | second & 0x3F]), 2
    # Overlong forms, surrogates and what lies beyond U+10FFFF are no UTF-8: the lead limits the second byte.
    low, high = 0x80, 0xBF
    if lead == 0xE0:
        low = 0xA0
    elif lead == 0xED:
        high = 0x9F
    elif lead == 0xF0:
        low = 0x90
    elif lead == 0xF4:
        high = 0x8F
    if second < low or second > high or i + 2 >= end or data[i + 2] & 0xC0 != 0x80:
        return SYMBOL, 1
    third = np.int64(data[i + 2]) & 0x3F
    if lead < 0xF0:
        return np.int64(classes[(lead & 0x0F) << 12 | (second & 0x3F) << 6 | third]), 3
    if i + 3 >= end or data[i + 3] & 0xC0 != 0x80:
        return SYMBOL, 1
    fourth = np.int64(data[i + 3]) & 0x3F
    return np.int64(classes[(lead & 0x07) << 18 | (second & 0x3F) << 12 | third << 6 | fourth]), 4


@inlined
def _run(data: Bytes, i: int, end: int, kind: int, classes: Bytes) -> int:
    """The end of the run of characters of one class that begins at `i` or before."""
    while i < end:
        if data[i] < 0x80:
            if classes[data[i]] != kind:
                break
            i += 1
        else:
            found, length = _character(data, i, end, classes)
            if found != kind:
                break
            i += length
    return i


@inlined
def _contraction(data: Bytes, i: int, end: int) -> int:
    """The end of 's 't 'm 'd 're 've 'll at the apostrophe `i`; `i` where none follows. Lower case only."""
    if i + 1 < end:
        first = data[i + 1]
        if first == 0x73 or first == 0x74 or first == 0x6D or first == 0x64:  # s t m d
            return i + 2
        if i + 2 < end:
            second = data[i + 2]
            if ((first == 0x72 or first == 0x76) and second == 0x65) or (first == 0x6C and second == 0x6C):  # re ve ll
                return i + 3
    return i


@compiled
def next_border(data: Bytes, i: int, end: int, classes: Bytes) -> int:
    """The end of the pre-token that begins at `i` < `end`."""
    kind, length = _character(data, i, end, classes)
    if kind == NUMBER:
        return i + length
    if kind == LETTER:
        return _run(data, i + length, end, LETTER, classes)
    if kind == SYMBOL:
        if data[i] == 0x27:
            after = _contraction(data, i, end)
            if after != i:
                return after
        return _run(data, i + length, end, SYMBOL, classes)
    if data[i] == 0x20 and i + 1 < end:
        following, _ = _character(data, i + 1, end, classes)
        if following in (LETTER, SYMBOL):
            return _run(data, i + 1, end, following, classes)
    start = last = i
    i += length
    while i < end:
        kind, length = _character(data, i, end, classes)
        if kind == NUMBER:
            return i  # to the pattern the text ends here
        if kind != SPACE:
            return last if last > start else i  # the last one is left for what follows, unless it is the only one
        last = i
        i += length
    return i
