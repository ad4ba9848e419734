"""Which rows of the document table a table of ids names, shard by shard.

Everything that follows the document table is in its order: survivors are a subsequence of the documents, the split has
the order of survivors. So the two are read side by side, a shard and as many of the ids at a time, and no more than
that is held: a join by id needs neither all ids in memory nor a sort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.table import CorruptTable, document_shards, iter_row_groups, read_table, shard_fingerprint
from kringle.workspace import fingerprint

_AT_ONCE = 10_000  # ids as Python's strings, a megabyte of them


class Chosen(NamedTuple):
    """Rows of one shard of the document table: `rows` (M,), ascending. `own` is the table that named them, its M rows
    for these."""

    part: Path
    rows: NDArray[np.int64]
    own: pa.Table


def chosen_rows(documents: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[Chosen]:
    """For each shard of the folder `documents`, in their order, the rows whose ids the `tables` of this schema name in
    their column `id`.

    Raises `CorruptTable` when an id names no document, or one that stands before that of the id before it.
    """
    waiting = iter(tables)
    pending = schema.empty_table()
    for part in document_shards(documents):
        own = read_table(part, ["id"])
        while pending.num_rows < own.num_rows and (more := next(waiting, None)) is not None:
            pending = pa.concat_tables([pending, more])
        rows = rows_in(own, pending.slice(0, own.num_rows))
        if len(rows) > 1 and int(np.diff(rows).min()) <= 0:
            raise CorruptTable(str(part), "does not hold its documents in the order of the tables made from it")
        yield Chosen(part, rows, pending.slice(0, len(rows)))
        pending = pending.slice(len(rows))
    if pending.num_rows or any(table.num_rows for table in waiting):
        raise CorruptTable(str(documents), "lacks documents that a table made from it names, or has another order")


def rows_in(documents: pa.Table, chosen: pa.Table) -> NDArray[np.int64]:
    """Where the ids in the column `id` of `chosen` stand in that of `documents` (M,), up to the first that is none of
    them."""
    ids = documents["id"].combine_chunks()
    places: NDArray[np.int64] = pc.index_in(chosen["id"], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
    foreign = np.flatnonzero(places < 0)
    return places[: foreign[0]] if len(foreign) else places


def chosen_of(documents: Path, table: Path, schema: pa.Schema) -> Iterator[Chosen]:
    """`chosen_rows` of the Parquet file `table`, of which the columns of `schema` are read."""
    return chosen_rows(documents, iter_row_groups(table, schema.names), schema)


def mark_of(part: Path, rows: NDArray[np.int64]) -> str:
    """A fingerprint of some `rows` (M,) of a shard."""
    return fingerprint(shard_fingerprint(part), rows.astype("<i8").tobytes().hex())


# -- ids one by one, for choices that are no table ------------------------------------------------------------------


def split_ids(split: Path, name: str | None = None) -> Iterator[str]:
    """Ids of `split/split.parquet` in their order: those under this name ("train", "held-out"), or all."""
    for group in iter_row_groups(split / "split.parquet", ["id", "split"]):
        ids = (group if name is None else group.filter(pc.equal(group["split"], name)))["id"]
        for start in range(0, len(ids), _AT_ONCE):
            yield from ids.slice(start, _AT_ONCE).to_pylist()


class Subsequence:
    """A choice of documents, in their order, that is matched while they pass by."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = iter(ids)
        self._wanted = next(self._ids, None)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """Which of the next documents, whose ids these are, are chosen: their numbers (N,), rising from 0 on."""
        wanted, rows = self._wanted, []
        for row, id in enumerate(ids):
            if id == wanted:
                rows.append(row)
                wanted = next(self._ids, None)
        self._wanted = wanted
        return np.array(rows, dtype=np.int32)

    def close(self) -> None:
        """To be called after the last document. ValueError where one that was chosen has not passed by in its turn."""
        if self._wanted is not None:
            raise ValueError(f"document {self._wanted} is not among the documents, or not chosen in their order")
