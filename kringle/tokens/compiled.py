"""Compile a kernel with numba, and keep the machine code between processes wherever this installation can write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function as machine code, made at its first call."""
    made: Any
    try:
        made = numba.njit(cache=True)(function)
    except RuntimeError:  # numba found no writable place: neither beside the file nor in the user's cache folder
        made = numba.njit(function)
    return cast("Callable[_P, _R]", made)


def inlined(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """As `compiled`, for a small function that belongs into the loops that call it."""
    made: Any
    try:
        made = numba.njit(cache=True, forceinline=True)(function)
    except RuntimeError:
        made = numba.njit(forceinline=True)(function)
    return cast("Callable[_P, _R]", made)
