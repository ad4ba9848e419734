"""When Python looks for reference cycles: less often than it does by itself.

The collector goes through what is alive again and again while much is made, which takes a third of the time of whoever
parses many files, and a fifth of whoever lists many. Objects without cycles go at once as always.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 100_000  # made and still alive since the last look; 700 by default


@contextmanager
def rare_collection() -> Iterator[None]:
    """Look for cycles once in `_OBJECTS` new objects until the end of the block."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave cycles alone until the end of the block."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
