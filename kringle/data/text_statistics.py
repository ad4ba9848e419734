"""What the basic filter looks at: line lengths, and the share of letters and digits."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked

_ASCII_ALPHANUMERIC = np.array([c < 128 and chr(c).isalnum() for c in range(256)])
_ASCII_LINE_END = np.zeros(256, dtype=np.bool_)
_ASCII_LINE_END[[0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E]] = True
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class TextStatistics(NamedTuple):
    """Line lengths in characters without line ends, lines as `str.splitlines` cuts them; share of characters for which
    `str.isalnum` holds, line ends counted in the whole. As in The Stack's columns of these names."""

    max_line: int
    mean_line: float
    alphanumeric: float


@unlocked
def _scan(data: NDArray[np.uint8], alphanumeric: NDArray[np.bool_], line_end: NDArray[np.bool_]) -> tuple[int, ...]:
    """Longest line, characters in lines, lines, characters, and ASCII letters and digits of UTF-8 text."""
    longest, inside, lines, characters, counted = 0, 0, 0, 0, 0
    line = 0
    open_line = False
    for p in range(len(data)):
        byte = data[p]
        if byte < 128:
            characters += 1
            counted += alphanumeric[byte]
            ends = line_end[byte]
            if byte == 0x0A and p > 0 and data[p - 1] == 0x0D:  # the second half of a line end
                continue
        else:
            # U+0085, U+2028 and U+2029 end lines too; their characters are counted at their first bytes
            first = (byte & 0xC0) != 0x80
            characters += first
            ends = (byte == 0x85 and data[p - 1] == 0xC2) or (
                (byte == 0xA8 or byte == 0xA9) and p > 1 and data[p - 1] == 0x80 and data[p - 2] == 0xE2
            )
            if ends:
                line -= 1  # its first byte was taken for a character of the line
            elif first:
                line += 1
                open_line = True
                continue
            else:
                continue
        if ends:
            longest = max(longest, line)
            inside += line
            lines += 1
            line = 0
            open_line = False
        else:
            line += 1
            open_line = True
    if open_line:
        longest = max(longest, line)
        inside += line
        lines += 1
    return longest, inside, lines, characters, counted


def text_statistics(content: str) -> TextStatistics:
    """The basic filter's three values of a text that is not empty."""
    data = np.frombuffer(content.encode(), dtype=np.uint8)
    longest, inside, lines, characters, alphanumeric = _scan(data, _ASCII_ALPHANUMERIC, _ASCII_LINE_END)
    if len(data) > characters:
        alphanumeric += sum(sum(map(str.isalnum, run)) for run in _NOT_ASCII.findall(content))
    return TextStatistics(longest, inside / lines, alphanumeric / characters)
