"""What a process has worked out from code alone, kept for the next one where Python keeps what it has compiled.

It is trusted as much as that. An installation that cannot be written to, or a Python that is told to write no bytecode,
does the work every time.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path


def read(module: str, name: str) -> bytes | None:
    """What was kept under this name beside a module's file (its `__file__`); None where nothing was."""
    try:
        return _place(module, name).read_bytes()
    except OSError:
        return None


def write(module: str, name: str, data: bytes) -> None:
    """Keep something, whole or not at all, if there is a place for it."""
    if sys.dont_write_bytecode:
        return
    place = _place(module, name)
    temporary = place.with_name(f".{name}.{platform.node()}.{os.getpid()}.{threading.get_ident()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(place)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _place(module: str, name: str) -> Path:
    return Path(cache_from_source(module)).with_name(name)
