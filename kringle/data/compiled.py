"""Functions compiled by numba, their machine code kept between processes wherever this installation can write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel. It releases the interpreter's lock, so threads may run it side by side."""
    kernel: Any
    try:
        kernel = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no writable place: neither beside the file nor in the user's cache folder
        kernel = numba.njit(nogil=True)(function)
    return cast("Callable[P, R]", kernel)
