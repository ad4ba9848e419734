"""Documents in shards for the stages that read text: rows of one row group of one part, a few megabytes at a time.

A shard's fingerprint is the hash of its document ids, which say everything about content; so a changed selection redoes
only the shards that it touches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 16 << 20  # of text, a row group of the document table: less than a second of one core to redo
TEXTS_AT_ONCE = 256


class Slice(NamedTuple):
    """Rows (N,) of one row group of one part of the document table. `size` is in bytes of text."""

    part: Path
    row_group: int
    rows: NDArray[np.int32]
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


def plan_slices(documents: Path, ids: Iterable[str]) -> list[Slice]:
    """The documents named by `ids`, which must come in the order of the documents, in slices; reads ids and sizes only.

    Memory grows by four bytes for each of them, and by a slice for each `SHARD_BYTES`. ValueError where an id is out of
    order, or not among the documents.
    """
    from kringle.data.subsequence import Subsequence
    from kringle.data.table import document_shards, identity, iter_row_groups

    chosen = Subsequence(ids)
    slices: list[Slice] = []
    for part in document_shards(documents):
        names = identity(part)  # what the content is called; a document is chosen by its id
        for number, group in enumerate(iter_row_groups(part, list(dict.fromkeys(["id", names, "size"])))):
            rows = chosen.rows(group["id"].to_pylist())
            contents, sizes = group[names].take(rows).to_pylist(), group["size"].to_numpy()[rows]
            for first, last in _cut(sizes):
                digest = hashlib.sha256("\n".join(contents[first:last]).encode()).hexdigest()
                slices.append(Slice(part, number, rows[first:last], int(sizes[first:last].sum()), digest))
    chosen.close()
    return slices


def _cut(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of rows of these sizes (N,) in bytes: (first, behind the last). One ends when it holds `SHARD_BYTES`."""
    first = total = 0
    for row, size in enumerate(sizes.tolist()):
        total += size
        if total >= SHARD_BYTES:
            yield first, row + 1
            first, total = row + 1, 0
    if first < len(sizes):
        yield first, len(sizes)


def utf8(column: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of an Arrow column of strings and their offsets (N + 1,), without copying what is in one chunk."""
    import pyarrow as pa

    chunk = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    _, offsets, data = chunk.buffers()
    borders = np.frombuffer(offsets, dtype=width)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    return np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8), borders
