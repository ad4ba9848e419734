"""What a study's results tell of its filters: how much they keep at which threshold, and how near-duplicates met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALL = "all"  # languages together
Signal = Literal["stars", "comments: floor", "comments: ceiling", "near-duplicates", "fertility"]


@dataclass(frozen=True)
class Kept:
    """Share of the training pool's bytes that a filter keeps at a threshold."""

    threshold: float
    share: float


@dataclass(frozen=True)
class ThresholdCurve:
    """What a signal's filter keeps at each threshold of one language (or `ALL`). Near-duplicates: `name` is their
    setting, and the pool is what was compared."""

    signal: Signal
    name: str
    language: str
    points: tuple[Kept, ...]


@dataclass(frozen=True)
class ThresholdUsed:
    """Where an arm's filter stands on a signal's curve; `language` where it is not the same for all."""

    signal: Signal
    arm: str
    language: str
    threshold: float


@dataclass(frozen=True)
class Removed:
    """Share of the training pool's bytes that an arm's filter removes, beside what SantaCoder's filter of that name
    removed of its corpus; None where that was not published."""

    arm: str
    language: str
    share: float
    published: float | None


@dataclass(frozen=True)
class Cluster:
    """How many groups of near-duplicates have so many members: one that stays, and what gave way to it."""

    members: int
    groups: int


@dataclass(frozen=True)
class Meeting:
    """The probability that two documents of a similarity meet in a band, and are compared."""

    similarity: float
    probability: float


@dataclass(frozen=True)
class NearDuplicates:
    """One setting of near-deduplication on the training pool. Sizes in bytes."""

    ngram: int
    threshold: float
    bands: int
    rows: int
    documents: int
    dropped: int
    bytes: int
    bytes_dropped: int
    collision: tuple[Meeting, ...]
    clusters: tuple[Cluster, ...]


def setting_name(ngram: int, threshold: float) -> str:
    """ "5-grams, from 0.7"."""
    return f"{'single words' if ngram == 1 else f'{ngram}-grams'}, from {threshold:g}"


@dataclass(frozen=True)
class Filtering:
    """Of all filters of a study, on the documents that are trained on."""

    curves: tuple[ThresholdCurve, ...]
    used: tuple[ThresholdUsed, ...]
    removed: tuple[Removed, ...]
    near_duplicates: tuple[NearDuplicates, ...]
