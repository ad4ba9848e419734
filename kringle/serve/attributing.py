"""What the server asks of an attribution index: follow a completion while it is written.

    attributor.follow() -> Follower         one per sample
    follower.feed("text so far, the newest of it") -> [Span, ..]   newly found or grown since the last call
    follower.finish() -> [Span, ..]         all of them, final

A request with `"attribution": true` gets `choices[i].attribution`, a list of spans: in a stream, each chunk has those
that are new or grew (same `start` and `kind`: the later one replaces the earlier), the last chunk all. Both calls are
made on a thread of the pool, in order, one at a time per follower. Without an attributor the field is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Span:
    """A stretch of the completion's text, in characters, that occurs in the training data, and in `more` further
    documents than its sources at least.

    `kind` is "exact" or "white space"; each source is JSON as it is shown: repository, path, licences.
    """

    start: int
    end: int
    kind: str
    sources: tuple[Mapping[str, Any], ...]
    more: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "start": self.start,
            "end": self.end,
            "kind": self.kind,
            "sources": [dict(s) for s in self.sources],
            "more": self.more,
        }


class Follower(Protocol):
    """One completion in the making."""

    def feed(self, text: str) -> Sequence[Span]:
        """Take the next part of the text; spans that are new or grew."""

    def finish(self) -> Sequence[Span]:
        """All spans of the whole text."""


class Attributor(Protocol):
    """Where texts come from."""

    def follow(self) -> Follower: ...
