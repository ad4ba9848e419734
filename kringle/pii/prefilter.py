"""The multi-pattern scan that decides where the detectors look at all.

Each anchor is a short pattern; an event is an anchor and the offset at which a match of it ends. Two engines report
the same events: `hyperscan` (the Vectorscan wheels; hundreds of megabytes a second) where it can be imported, and the
standard library's `re` elsewhere. For that every anchor is written so that a match from one start has one end only.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kringle import pycache


def _module() -> Any:
    """The module `hyperscan`, or None on a platform without a wheel of it: the same events, slower."""
    try:
        return importlib.import_module("hyperscan")
    except ImportError:
        return None


hyperscan = _module()
LONGEST_MATCH = 1024  # bytes; no anchor matches more (`urls.REACH` is the longest)

Event = tuple[int, int]  # end offset, index of the anchor


class Anchor(NamedTuple):
    """A pattern in the common subset of `re` and hyperscan, and whether case matters."""

    pattern: bytes
    any_case: bool = False


class Prefilter:
    """Finds the events of some anchors in bytes.

    `groups` lists the indices of anchors that are compiled together: a few simple automata are faster than one that has
    to remember everything. `engine` is "hyperscan", "re", or None for the fastest that is there. Data is scanned in
    pieces of `window` bytes, so that a hostile file of many events needs no more memory than its worst piece. With
    `keep` hyperscan's automata are kept for later processes: those of the detectors take a quarter of a second to make.
    """

    def __init__(
        self,
        anchors: Sequence[Anchor],
        groups: Sequence[Sequence[int]],
        engine: str | None = None,
        window: int = 1 << 20,
        keep: bool = False,
    ) -> None:
        self._patterns = [re.compile(a.pattern, re.IGNORECASE if a.any_case else 0) for a in anchors]
        self._anchors, self._groups, self._window, self._keep = anchors, groups, window, keep
        self.engine = engine or ("re" if hyperscan is None else "hyperscan")
        if self.engine == "hyperscan":
            self._databases = [self._compile(group) for group in groups]
            self._local = threading.local()

    def _compile(self, group: Sequence[int]) -> Any:
        flags = [hyperscan.HS_FLAG_CASELESS if self._anchors[i].any_case else 0 for i in group]
        expressions = [self._anchors[i].pattern for i in group]
        made_from = repr((expressions, flags, list(group), hyperscan.__version__, platform.machine()))
        name = f"prefilter-{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.hs"
        if self._keep and (kept := pycache.read(__file__, name)) is not None:
            with suppress(hyperscan.error):  # damaged, or made for a processor that can do more
                return hyperscan.loadb(kept, hyperscan.HS_MODE_BLOCK)
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(expressions=expressions, ids=list(group), elements=len(group), flags=flags)
        if self._keep:
            pycache.write(__file__, name, hyperscan.dumpb(database))
        return database

    def events(self, data: bytes) -> Iterator[Event]:
        """Every event in `data`, in order, without repetition."""
        scan = self._hyperscan if self.engine == "hyperscan" else self._re
        for start in range(0, len(data), self._window):
            low = max(0, start - LONGEST_MATCH)  # a match that began in the piece before
            piece = data[low : start + self._window]
            yield from ((low + end, index) for end, index in sorted(scan(piece)) if low + end > start)

    def _re(self, data: bytes) -> set[Event]:
        found: set[Event] = set()
        for index, pattern in enumerate(self._patterns):
            match = pattern.search(data)
            while match:
                found.add((match.end(), index))
                match = pattern.search(data, match.start() + 1)
        return found

    def _hyperscan(self, data: bytes) -> set[Event]:
        found: set[Event] = set()

        def report(index: int, _start: int, end: int, _flags: int, _context: object) -> None:
            found.add((end, index))

        for database, scratch in zip(self._databases, self._scratches(), strict=True):
            database.scan(data, match_event_handler=report, scratch=scratch)
        return found

    def _scratches(self) -> list[Any]:
        """Working memory of this thread: a scan must not share it."""
        if not hasattr(self._local, "scratches"):
            self._local.scratches = [hyperscan.Scratch(database) for database in self._databases]
        scratches: list[Any] = self._local.scratches
        return scratches
