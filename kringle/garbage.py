"""No look for reference cycles while millions of small objects are made that hold none.

The collector goes through all that is alive again and again while it grows: a third of the time of whoever parses many
files or lists many.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave cycles alone until the end of the block; objects without any go as always."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
