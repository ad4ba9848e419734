"""What the detectors hand on: a candidate is a stretch of bytes with what it is, how sure, and which bytes are
secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Segment = tuple[int, int]
Group = tuple[Segment, ...]


class Candidate(NamedTuple):
    """A stretch `data[start:end]` that one detector recognised.

    `confidence` 0 marks a shield: something known to be harmless (a stand-in, an example address, a token with a wrong
    checksum), which keeps weaker detectors from taking it for a secret. `rank` decides overlaps (smaller wins) and does
    not depend on the value, so that a stand-in wins where its original won. `groups` are the parts that a stand-in
    replaces; everything else of the stretch (prefixes, separators) stays. The stretches of one group share an alphabet.
    """

    start: int
    end: int
    kind: str
    format: str
    confidence: float
    rank: int
    groups: tuple[Group, ...]
    alphabet: str = ""


def whole(start: int, end: int) -> tuple[Group, ...]:
    """The groups of a candidate that is replaced from end to end."""
    return (((start, end),),)


class Finding(NamedTuple):
    """One email, IP address or key in a file.

    `start` and `end` are byte offsets; `line` and `column` count from 1, the column in bytes; `kind` is "email", "ip"
    or "key", `format` says more ("ipv6", "github-token"); `confidence` lies in (0, 1].
    """

    kind: str
    format: str
    start: int
    end: int
    line: int
    column: int
    confidence: float


# Ranks: formats that prove themselves come first, guesses from names and randomness last.
RANK_BLOCK = 0  # private keys in PEM
RANK_FORMAT = 1  # tokens with a vendor's format
RANK_URL = 2  # credentials in URLs
RANK_EMAIL = 3
RANK_IP = 4
RANK_NAMED = 5  # values assigned to a secret's name
RANK_RANDOM = 6  # random strings without such a name


def without_overlaps(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that win their stretch, in order of start: by rank, within a rank the longer, then the earlier."""
    by_rank: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        by_rank.setdefault(candidate.rank, []).append(candidate)
    chosen: list[Candidate] = []
    for rank in sorted(by_rank):
        chosen = _merge(chosen, _best_of_rank(sorted(by_rank[rank], key=lambda c: (c.start, -c.end))))
    return chosen


def _best_of_rank(candidates: list[Candidate]) -> list[Candidate]:
    best: list[Candidate] = []
    for candidate in candidates:
        if not best or candidate.start >= best[-1].end:
            best.append(candidate)
        elif candidate.end - candidate.start > best[-1].end - best[-1].start:
            best[-1] = candidate
    return best


def _merge(winners: list[Candidate], others: list[Candidate]) -> list[Candidate]:
    """Both lists are sorted and free of overlaps; of the second, those that overlap none of the first are added."""
    merged: list[Candidate] = []
    at = 0
    for other in others:
        while at < len(winners) and winners[at].end <= other.start:
            merged.append(winners[at])
            at += 1
        if at == len(winners) or winners[at].start >= other.end:
            merged.append(other)
    return merged + winners[at:]
