"""Near-duplicates of the document table, for the clean and the annotate stage: places and ids instead of numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kringle.data.near_duplicates.find import Outcome, figures, find
from kringle.data.near_duplicates.inputs import DOCUMENT_COLUMNS, Shard
from kringle.data.near_duplicates.method import Method
from kringle.data.table import Decision, document_shards, read_table, shard_fingerprint
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, fingerprint

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
    """Of the documents that took part, in canonical order: ids, places, and what became of them."""

    method: Method
    ids: list[str]
    repos: list[str]
    paths: list[str]
    considered: NDArray[np.bool_]
    outcome: Outcome
    figures: dict[str, Any]

    def decisions(self) -> Iterator[Decision]:
        """One row for each document that took part."""
        outcome = self.outcome
        for i in np.flatnonzero(self.considered).tolist():
            place = (self.ids[i], self.repos[i], self.paths[i], STEP)
            kept = bool(outcome.kept[i])
            value = None if np.isnan(outcome.similarity[i]) else float(outcome.similarity[i])
            yield Decision(*place, value, self.method.criterion, kept, None if kept else self._witness(i))

    def _witness(self, i: int) -> str:
        other = int(self.outcome.witness[i])
        if other < 0:
            return f"only {int(self.outcome.tokens[i])} tokens"
        name = f"{self.repos[other]}/{self.paths[other]} ({self.ids[other]})"
        share = float(self.outcome.contained[i])
        return name if np.isnan(share) else f"{name}, which holds {share:.0%} of its {self.shingles}"

    @property
    def shingles(self) -> str:
        return "words" if self.method.ngram == 1 else f"{self.method.ngram}-grams"

    def dropped(self) -> set[str]:
        """Ids of what goes."""
        return {self.ids[i] for i in np.flatnonzero(self.considered & ~self.outcome.kept)}

    def clusters(self) -> Iterator[tuple[str, bool, str, float | None]]:
        """Rows of `CLUSTER`."""
        for i in np.flatnonzero(self.considered).tolist():
            other = int(self.outcome.witness[i])
            value = float(self.outcome.similarity[i])
            head = self.ids[other] if other >= 0 else self.ids[i]
            yield self.ids[i], bool(self.outcome.kept[i]), head, None if np.isnan(value) else value


def near_duplicates_of(
    documents: Path, ids: Collection[str], method: Method, store: ShardStore, engine: Engine, progress: Reporter
) -> Found:
    """Look for near-duplicates among the documents `ids` of the folder `documents`.

    The original's steps ran for each language apart, over documents in canonical order; so do the faithful rules.
    """
    shards, columns = [], []
    for part in document_shards(documents):
        table = read_table(part, ["id", "repo", "path", "language", "size"])
        ranked = read_table(part, ["licenses", "stars"])
        mark = fingerprint(shard_fingerprint(part), [column.to_pylist() for column in ranked.columns])
        shards.append(Shard(part, "parquet", DOCUMENT_COLUMNS, table.num_rows, mark))
        columns.append(table)
    whole = pa.concat_tables(columns)
    names = whole["id"].to_pylist()
    wanted = ids if isinstance(ids, set | frozenset | dict) else set(ids)
    considered = np.array([id in wanted for id in names], dtype=np.bool_)
    group = None
    if method.rule != "verified":
        _, number = np.unique(whole["language"].to_pylist(), return_inverse=True)
        group = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    outcome = find(shards, method, store, engine, progress, considered=considered, group=group)
    sizes = whole["size"].to_numpy()
    return Found(
        method=method,
        ids=names,
        repos=whole["repo"].to_pylist(),
        paths=whole["path"].to_pylist(),
        considered=considered,
        outcome=outcome,
        figures=figures(method, outcome, sizes, considered),
    )
