"""Functions compiled by numba, their machine code kept between processes wherever this installation can write it.

numba is loaded by the first call of the first of them: a process that only hands out work, or finds everything done,
does without it. Kept code is made again when the function's own file changes; numba does not look at other files, so
after a change here, or in a function of another file that it calls, remove `__pycache__`. The kernels of
`kringle.generation` need other options and are made there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(Generic[P, R]):
    """A function as machine code, made or fetched at its first call; other kernels may call it from theirs."""

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        functools.update_wrapper(self, function)
        self._options = options

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        result: R = self._made(*arguments, **named)
        return result

    def __reduce__(self) -> str:
        return self.__wrapped__.__qualname__  # as a function: by its name

    @functools.cached_property
    def _made(self) -> Any:
        import numba

        try:
            made = numba.njit(cache=True, **self._options)(self.__wrapped__)
        except RuntimeError:  # numba found no writable place: neither beside the file nor in the user's cache folder
            made = numba.njit(**self._options)(self.__wrapped__)
        return self.__dict__.setdefault("_made", made)  # one for all threads: numba holds it by a weak reference

    @property
    def _numba_type_(self) -> Any:
        """What `numba.typeof` asks an object for that a kernel refers to."""
        return self._made._numba_type_


def compiled(function: Callable[P, R]) -> Kernel[P, R]:
    """Compile a kernel."""
    return Kernel(function)


def unlocked(function: Callable[P, R]) -> Kernel[P, R]:
    """As `compiled`, for one that changes nothing but its arguments: it lets go of the interpreter's lock, so threads
    may run it side by side."""
    return Kernel(function, nogil=True)


def inlined(function: Callable[P, R]) -> Kernel[P, R]:
    """As `compiled`, for a small function that belongs in the loops that call it."""
    return Kernel(function, forceinline=True)
