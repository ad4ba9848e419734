"""Following a text while it is written: which stretches of it occur in the training data, told as they grow.

A stretch that does not reach the end of the text so far cannot grow any more, and a new one begins at most 49
characters (white space aside) before the end. So each look-up is of the end of the text alone: from the first stretch
that may still grow, or from there.
"""

from __future__ import annotations

from dataclasses import replace

from kringle.attribution.index import SHORTEST_CHARACTERS, AttributionIndex, Copy, outermost

EVERY = 16  # characters between look-ups: about five tokens; what is told in between waits for the next one


class TextFollower:
    """One text in the making. Not for two threads at once."""

    def __init__(self, index: AttributionIndex, shortest: int = SHORTEST_CHARACTERS) -> None:
        self._index, self._shortest = index, shortest
        self._text = ""
        self._looked = 0  # characters that were looked up
        self._settled: list[Copy] = []  # cannot grow any more
        self._open: list[Copy] = []  # reach the end of what was looked up
        self._told: dict[tuple[int, str], int] = {}  # start and kind -> end

    def feed(self, text: str) -> list[Copy]:
        """Take the next part of the text; copies that are new or grew since the last call. A later one with the same
        start and kind replaces the earlier."""
        self._text += text
        if len(self._text) - self._looked < EVERY:
            return []
        return self._look()

    def finish(self) -> list[Copy]:
        """All copies of the whole text, as `AttributionIndex.find` tells them."""
        if self._looked < len(self._text):
            self._look()
        return self.copies()

    def copies(self) -> list[Copy]:
        """All copies of what was looked up so far."""
        return [copy for copy in outermost([*self._settled, *self._open]) if copy.end - copy.start >= self._shortest]

    def _look(self) -> list[Copy]:
        start = min([self._new_from(), *(copy.start for copy in self._open)])
        found = [
            replace(copy, start=copy.start + start, end=copy.end + start)
            for copy in self._index.find(self._text[start:])
        ]
        self._looked = len(self._text)
        end = len(self._text.rstrip())  # white space after it may be part of a longer copy but for white space
        # What is inside a settled one was found again because the look-up began in the middle of it.
        self._settled = outermost([*self._settled, *(copy for copy in found if copy.end < end)])
        self._open = [copy for copy in found if copy.end >= end]
        news = [copy for copy in self.copies() if self._told.get((copy.start, copy.kind), 0) < copy.end]
        self._told.update({(copy.start, copy.kind): copy.end for copy in news})
        return news

    def _new_from(self) -> int:
        """Where a copy that was not found yet may begin: `SHORTEST_CHARACTERS` - 1 before what is new, white space not
        counted."""
        at, left = self._looked, SHORTEST_CHARACTERS - 1
        while at > 0 and left > 0:
            at -= 1
            left -= not self._text[at].isspace()
        return at
