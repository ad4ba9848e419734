"""Documents in shards for the stages that read text: rows of one row group of one part, a few megabytes at a time.

A shard's fingerprint is the hash of its document ids, which say everything about content; so a changed selection redoes
only the shards that it touches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 16 << 20  # of text, a row group of the document table: less than a second of one core to redo
TEXTS_AT_ONCE = 256


class Slice(NamedTuple):
    """Rows of one row group of one part of the document table. `size` is in bytes of text."""

    part: Path
    row_group: int
    rows: list[int]
    size: int
    fingerprint: str

    @property
    def name(self) -> str:
        return f"{self.part.name} row group {self.row_group}, rows {self.rows[0]} to {self.rows[-1]}"

    def read(self, columns: Sequence[str]) -> Iterator[Any]:
        """These rows as Arrow tables of at most `TEXTS_AT_ONCE` rows."""
        import pyarrow.parquet as pq  # here alone: whoever only reads stores needs no pyarrow

        with pq.ParquetFile(self.part, page_checksum_verification=True) as file:
            table = file.read_row_group(self.row_group, columns=list(columns), use_threads=False)
        if len(self.rows) < table.num_rows:
            table = table.take(self.rows)
        for start in range(0, table.num_rows, TEXTS_AT_ONCE):
            yield table.slice(start, TEXTS_AT_ONCE)


def plan_slices(documents: Path, ids: Collection[str]) -> list[Slice]:
    """The documents named by `ids` in slices, in their order; reads ids and sizes only."""
    from kringle.data.table import document_shards, identity, iter_row_groups

    slices: list[Slice] = []
    for part in document_shards(documents):
        names = identity(part)  # what the content is called; a document is chosen by its id
        for number, group in enumerate(iter_row_groups(part, list(dict.fromkeys(["id", names, "size"])))):
            rows_of_group = zip(*(group[name].to_pylist() for name in ("id", names, "size")), strict=True)
            chosen = [(row, content, size) for row, (id, content, size) in enumerate(rows_of_group) if id in ids]
            for rows in _cut(chosen):
                digest = hashlib.sha256("\n".join(id for _, id, _ in rows).encode()).hexdigest()
                numbers, size = [row for row, _, _ in rows], sum(size for _, _, size in rows)
                slices.append(Slice(part, number, numbers, size, digest))
    return slices


def _cut(rows: Sequence[tuple[int, str, int]]) -> Iterator[list[tuple[int, str, int]]]:
    """Consecutive rows (number, id of the content, bytes) in slices that end once they hold `SHARD_BYTES`."""
    part: list[tuple[int, str, int]] = []
    total = 0
    for row in rows:
        part.append(row)
        total += row[2]
        if total >= SHARD_BYTES:
            yield part
            part, total = [], 0
    if part:
        yield part


def utf8(column: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of an Arrow column of strings and their offsets (N + 1,), without copying what is in one chunk."""
    import pyarrow as pa

    chunk = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    _, offsets, data = chunk.buffers()
    borders = np.frombuffer(offsets, dtype=width)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    return np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8), borders
