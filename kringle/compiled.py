"""Functions compiled by numba, their machine code kept between processes wherever this installation can write it.

numba is loaded by the first call of the first of them: a process that only hands out work, or finds everything done,
does without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(Generic[P, R]):
    """A function as machine code, made or fetched at its first call; other kernels may call it from theirs."""

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self._function, self._options = function, options

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        result: R = self._made(*arguments, **named)
        return result

    @functools.cached_property
    def _made(self) -> Any:
        import numba

        try:
            return numba.njit(cache=True, **self._options)(self._function)
        except RuntimeError:  # numba found no writable place: neither beside the file nor in the user's cache folder
            return numba.njit(**self._options)(self._function)

    @property
    def _numba_type_(self) -> Any:
        """What numba asks an object for that a kernel calls."""
        return self._made._numba_type_


def compiled(function: Callable[P, R]) -> Kernel[P, R]:
    """Compile a kernel."""
    return Kernel(function)


def unlocked(function: Callable[P, R]) -> Kernel[P, R]:
    """As `compiled`, for one that changes nothing but its arguments: it lets go of the interpreter's lock, so threads
    may run it side by side."""
    return Kernel(function, nogil=True)


def inlined(function: Callable[P, R]) -> Kernel[P, R]:
    """As `compiled`, for a small function that belongs into the loops that call it."""
    return Kernel(function, forceinline=True)
