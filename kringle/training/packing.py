"""Packing pieces into rows: first fit with a bounded number of open rows.

Each piece goes into the oldest open row that has room for it. Where none has, a new row is opened; if too many are
open, the one with least room left is closed first. One pass, in the given order: a function of the lengths alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

# Positions used by 10M tokens of Python, half of them rearranged: 97.9% at context 256, 99.2% at 2,048. With 8 open
# rows 97.7% and 98.4%, with 4,096 not more than with 64.
OPEN_ROWS = 64
COMPILE_FROM = 100_000  # pieces; below, compiling (1 to 2 s) takes longer than interpreting


def _first_fit(lengths: np.ndarray, capacity: int, open_rows: int, rows: np.ndarray) -> int:
    """Fill `rows` (P,) with the row of each piece; returns the number of rows. Runs interpreted and compiled."""
    number = np.empty(open_rows, np.int64)  # of each open row, oldest first
    room = np.empty(open_rows, np.int64)
    opened = total = 0
    for piece in range(len(lengths)):
        length = lengths[piece]
        place = 0
        while place < opened and room[place] < length:
            place += 1
        if place == opened:
            if opened == open_rows:
                fullest = 0
                for other in range(1, opened):
                    if room[other] < room[fullest]:
                        fullest = other
                for other in range(fullest, opened - 1):
                    number[other], room[other] = number[other + 1], room[other + 1]
                opened -= 1
                place = opened
            number[place], room[place] = total, capacity
            opened += 1
            total += 1
        rows[piece] = number[place]
        room[place] -= length
        if room[place] == 0:
            for other in range(place, opened - 1):
                number[other], room[other] = number[other + 1], room[other + 1]
            opened -= 1
    return total


@functools.cache
def _compiled() -> Callable[[np.ndarray, int, int, np.ndarray], int]:
    import numba  # here alone: small studies never load it

    compiled: Callable[[np.ndarray, int, int, np.ndarray], int] = numba.njit(_first_fit)
    return compiled


def pack(lengths: np.ndarray, capacity: int, open_rows: int = OPEN_ROWS) -> tuple[np.ndarray, int]:
    """Row number (P,) of each piece of these lengths (P,), and the number of rows of `capacity` positions."""
    if len(lengths) and not 0 < lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"lengths must be within 1 .. {capacity}, got {lengths.min()} .. {lengths.max()}")
    rows = np.empty(len(lengths), dtype=np.int64)
    fit = _first_fit if len(lengths) < COMPILE_FROM else _compiled()
    return rows, int(fit(lengths, capacity, open_rows, rows))
