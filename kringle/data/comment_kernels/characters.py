"""Classes of bytes, and counting characters of UTF-8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

WORD = np.zeros(256, dtype=np.bool_)
WORD[[c for c in range(128) if chr(c).isalnum() or chr(c) == "_"]] = True
SPACE = np.zeros(256, dtype=np.bool_)  # ASCII characters that \s of a Python pattern matches
SPACE[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = True
UNSURE = -1


@unlocked
def characters(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Characters of UTF-8 in data[start:end]."""
    count = 0
    for p in range(start, end):
        count += (data[p] & np.uint8(0xC0)) != np.uint8(0x80)
    return count


@unlocked
def after_comment(data: NDArray[np.uint8], p: int) -> int:
    """Place after the `*/` of the comment that begins at p; -1 where it has none."""
    for q in range(p + 2, len(data) - 1):
        if data[q] == 42 and data[q + 1] == 47:
            return q + 2
    return -1


@unlocked
def is_word(data: NDArray[np.uint8], start: int, end: int, text: bytes) -> bool:
    """Whether data[start:end] is `text`."""
    if end - start != len(text):
        return False
    for i in range(len(text)):  # noqa: SIM110 (a loop compiles)
        if data[start + i] != text[i]:
            return False
    return True
