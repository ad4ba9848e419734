"""Near-duplicates of the document table, for the clean and the annotate stage: places and ids instead of numbers.

What is held of every document are arrays of some 50 bytes (`find.Outcome`, sizes); names are read shard by shard where
they are told, and held, as Arrow arrays, of those documents alone to which others gave way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.near_duplicates.find import Outcome, figures, find
from kringle.data.near_duplicates.inputs import DOCUMENT_COLUMNS, Shard
from kringle.data.near_duplicates.method import Method
from kringle.data.table import DECISION, document_shards, read_table, row_group_starts, shard_fingerprint
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore

STEP = "near-duplicate"
CLUSTER = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kept", pa.bool_()),
        pa.field("cluster", pa.string()),  # id of the document that stands for it: its own where it stays
        pa.field("similarity", pa.float64()),  # to that one; null where it stays, and where it was not verified
    ]
)


class Found(NamedTuple):
    """What became of the N documents of the shards, and which took part: `considered` (N,). `starts` (shards + 1,) are
    the numbers of the shards' first documents."""

    method: Method
    parts: list[Path]
    starts: NDArray[np.int64]
    considered: NDArray[np.bool_]
    outcome: Outcome
    figures: dict[str, Any]

    def gone(self, shard: int) -> NDArray[np.int64]:
        """The rows of the documents of a shard that go."""
        own = slice(self.starts[shard], self.starts[shard + 1])
        return np.flatnonzero(self.considered[own] & ~self.outcome.kept[own])

    def decisions(self) -> Iterator[pa.Table]:
        """Rows of `DECISION`, one for each document that took part, in canonical order."""
        witnesses = self._witnesses(["id", "repo", "path"])
        for numbers, names in self._shards(["id", "repo", "path"]):
            kept = self.outcome.kept[numbers]
            told = self._told(numbers[~kept], witnesses)
            place = np.cumsum(~kept) - 1
            similarity = self.outcome.similarity[numbers]
            columns = [
                *(names[name] for name in ("id", "repo", "path")),
                pa.repeat(STEP, len(numbers)),
                pa.array(similarity, mask=np.isnan(similarity)),
                pa.repeat(self.method.criterion, len(numbers)),
                pa.array(kept),
                pa.array(told, pa.string()).take(pa.array(place, mask=kept)),
            ]
            yield pa.Table.from_arrays(columns, schema=DECISION)

    def clusters(self) -> Iterator[pa.Table]:
        """Rows of `CLUSTER`, one for each document that took part, in canonical order."""
        witnesses = self._witnesses(["id"])
        for numbers, names in self._shards(["id"]):
            other = self.outcome.witness[numbers]
            heads = witnesses.names["id"].take(pa.array(witnesses.places(other), mask=other < 0))
            similarity = self.outcome.similarity[numbers]
            columns = [
                names["id"],
                pa.array(self.outcome.kept[numbers]),
                pc.coalesce(heads, names["id"]),
                pa.array(similarity, mask=np.isnan(similarity)),
            ]
            yield pa.Table.from_arrays(columns, schema=CLUSTER)

    def _told(self, numbers: NDArray[np.int64], witnesses: _Witnesses) -> list[str]:
        """To what documents (N,) gave way, in words."""
        others = self.outcome.witness[numbers]
        names = witnesses.names.take(pa.array(witnesses.places(others), mask=others < 0))
        places = (names[name].to_pylist() for name in ("id", "repo", "path"))
        told = []
        for number, share, id, repo, path in zip(
            numbers.tolist(), self.outcome.contained[numbers].tolist(), *places, strict=True
        ):
            if id is None:
                told.append(f"only {int(self.outcome.tokens[number])} tokens")
            elif math.isnan(share):
                told.append(f"{repo}/{path} ({id})")
            else:
                told.append(f"{repo}/{path} ({id}), which holds {share:.0%} of its {self.shingles}")
        return told

    @property
    def shingles(self) -> str:
        return "words" if self.method.ngram == 1 else f"{self.method.ngram}-grams"

    def _shards(self, columns: list[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """The numbers of the documents of each shard that took part, and columns of theirs."""
        for shard, part in enumerate(self.parts):
            rows = np.flatnonzero(self.considered[self.starts[shard] : self.starts[shard + 1]])
            yield rows + self.starts[shard], read_table(part, columns).take(rows)

    def _witnesses(self, columns: list[str]) -> _Witnesses:
        numbers = np.unique(self.outcome.witness[self.considered])
        numbers = numbers[numbers >= 0]
        cuts = np.searchsorted(numbers, self.starts)
        tables = [
            read_table(part, columns).take(numbers[cuts[shard] : cuts[shard + 1]] - self.starts[shard])
            for shard, part in enumerate(self.parts)
            if cuts[shard] < cuts[shard + 1]
        ]
        empty = pa.schema([DECISION.field(name) for name in columns]).empty_table()
        return _Witnesses(numbers, pa.concat_tables([empty, *tables]).combine_chunks())


class _Witnesses(NamedTuple):
    """Numbers (W,), sorted, of the documents to which others gave way, and columns of theirs."""

    numbers: NDArray[np.int64]
    names: pa.Table

    def places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where some of them stand; anything for what is none."""
        return np.searchsorted(self.numbers, numbers)


def near_duplicates_of(
    documents: Path,
    rows: Iterable[NDArray[np.int64]],
    method: Method,
    store: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> Found:
    """Look for near-duplicates among the documents of the folder `documents`: of each shard those at `rows`.

    The original's steps ran for each language apart, over documents in canonical order; so do the faithful rules.
    """
    parts = document_shards(documents)
    counts = [int(row_group_starts(part)[-1]) for part in parts]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    shards = [
        Shard(part, "parquet", DOCUMENT_COLUMNS, count, shard_fingerprint(part))
        for part, count in zip(parts, counts, strict=True)
    ]
    considered = np.zeros(starts[-1], dtype=np.bool_)
    for first, own in zip(starts[:-1], rows, strict=True):
        considered[first + own] = True
    sizes = np.concatenate([read_table(part, ["size"])["size"].to_numpy() for part in parts])
    group = None if method.rule == "verified" else _languages(parts) * np.uint64(0x9E3779B97F4A7C15)
    outcome = find(shards, method, store, engine, progress, considered=considered, group=group)
    return Found(method, parts, starts, considered, outcome, figures(method, outcome, sizes, considered))


def _languages(parts: list[Path]) -> NDArray[np.uint64]:
    """The number of each document's language (N,), in their alphabet."""
    columns = [pc.dictionary_encode(read_table(part, ["language"])["language"]).combine_chunks() for part in parts]
    names = sorted({name for column in columns for name in column.dictionary.to_pylist()})
    places = [np.searchsorted(names, column.dictionary.to_pylist())[column.indices.to_numpy()] for column in columns]
    return np.concatenate(places).astype(np.uint64)
