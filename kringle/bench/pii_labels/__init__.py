"""The labelled benchmark of `kringle bench pii`: its files, BigCode's matching rule, precision and recall.

A reported span finds a labelled one of the same kind when their overlap covers at least 80% of each. Intervals (95%)
come from resamples of the hand-written fragments that the files were assembled from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.bench.pii_labels.files import Half, LabelledFile, Span, load
from kringle.randomness import stream

__all__ = [
    "KINDS",
    "Finder",
    "Half",
    "LabelledFile",
    "Reported",
    "Score",
    "Span",
    "counts",
    "load",
    "matches",
    "quality",
]

KINDS = ("email", "ip", "key")
OVERLAP = 0.8  # bigcode-dataset, pii/utils/evaluation.py
RESAMPLES = 1000


class Reported(NamedTuple):
    """A span that a finder reports: offsets in characters, kind as in `KINDS`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], list[Reported]]


class Score(NamedTuple):
    """Counts of one finder for one kind, and 95% intervals of precision and recall."""

    true: int
    missed: int
    wrong: int
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]

    @property
    def precision(self) -> float:
        return self.true / (self.true + self.wrong) if self.true + self.wrong else 0.0

    @property
    def recall(self) -> float:
        return self.true / (self.true + self.missed) if self.true + self.missed else 0.0


def matches(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """BigCode's rule: the overlap covers at least 80% of both spans."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    return overlap > 0 and overlap >= OVERLAP * (a[1] - a[0]) and overlap >= OVERLAP * (b[1] - b[0])


def counts(file: LabelledFile, reported: Sequence[Reported]) -> NDArray[np.int64]:
    """True positives, missed labels and wrong reports of one file by kind, (3 kinds, 3)."""
    table = np.zeros((len(KINDS), 3), dtype=np.int64)
    for row, kind in enumerate(KINDS):
        labels = [(s.start, s.end) for s in file.positives if s.kind == kind]
        spans = [(r.start, r.end) for r in set(reported) if r.kind == kind]
        found = sum(any(matches(label, span) for span in spans) for label in labels)
        wrong = sum(not any(matches(label, span) for label in labels) for span in spans)
        table[row] = found, len(labels) - found, wrong
    return table


def quality(files: Sequence[LabelledFile], finder: Finder) -> dict[str, Score]:
    """Precision and recall by kind over labelled files, with intervals from resampled fragments."""
    tables = np.stack([counts(file, finder(file.content)) for file in files])  # (files, kinds, 3)
    fragments = sorted({name for file in files for name in file.skeletons})
    index = {name: i for i, name in enumerate(fragments)}
    member = np.zeros((len(files), len(fragments)))
    for row, file in enumerate(files):
        member[row, [index[name] for name in file.skeletons]] = 1 / len(file.skeletons)
    draw = stream(0, "bench pii", "resamples")
    weights = draw.multinomial(len(fragments), np.full(len(fragments), 1 / len(fragments)), size=RESAMPLES) @ member.T
    resampled = np.einsum("rf,fkc->rkc", weights, tables)  # (resamples, kinds, 3)
    total = tables.sum(axis=0)
    scores = {}
    for row, kind in enumerate(KINDS):
        true, missed, wrong = resampled[:, row].T
        true_count, missed_count, wrong_count = (int(x) for x in total[row])
        intervals = _interval(true, true + wrong), _interval(true, true + missed)
        scores[kind] = Score(true_count, missed_count, wrong_count, *intervals)
    return scores


def _interval(part: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[float, float]:
    if not whole.any():
        return 0.0, 0.0
    low, high = np.percentile(part[whole > 0] / whole[whole > 0], [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)
