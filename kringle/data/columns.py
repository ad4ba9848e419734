"""Columns of Parquet files that were read a moment ago, for the next stage that asks for them.

The stages of a run read the same ids, names and sizes of the same shards one after the other, under several names: a
part of the document table is another name of a shard's file. Opening a file costs a few tenths of a millisecond
whatever is asked of it, which is a good part of what a rerun costs where a corpus has grown by a little.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

LIMIT = 32 << 20  # bytes of columns that are held: the ids, names and sizes of some 150,000 documents
_FOOTERS, _SCHEMAS = 10_000, 100


class Stamp(NamedTuple):
    """What names a file's contents, whatever the file is called: tables are not changed in place."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Footer(NamedTuple):
    """A file's columns, the rows of each of its row groups, and the fingerprint of its rows once it was asked for."""

    schema: pa.Schema
    rows: tuple[int, ...]
    fingerprint: str | None = None


class ColumnCache:
    """Footers of the last 10,000 files, and columns of row groups by (file, row group, name); the ones that were asked
    for last are kept, up to `limit` bytes. Threads may share it."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._held = limit, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Stamp, int, str], tuple[pa.ChunkedArray, int]] = OrderedDict()
        self._footers: OrderedDict[Stamp, Footer] = OrderedDict()
        self._schemas: dict[bytes, pa.Schema] = {}  # of thousands of shards, of which most have the same

    def footer(self, stamp: Stamp) -> Footer | None:
        """The footer of a file, if it was read before."""
        return self._footers.get(stamp)

    def keep_footer(self, stamp: Stamp, footer: Footer) -> None:
        """Keep a file's footer."""
        with self._lock:
            if len(self._schemas) >= _SCHEMAS:
                self._schemas.clear()
            schema = self._schemas.setdefault(footer.schema.serialize().to_pybytes(), footer.schema)
            self._footers[stamp] = footer._replace(schema=schema)
            if len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)

    def column(self, stamp: Stamp, group: int, name: str) -> pa.ChunkedArray | None:
        """A column of a row group, if it is here."""
        with self._lock:
            found = self._kept.get((stamp, group, name))
            if found is None:
                return None
            self._kept.move_to_end((stamp, group, name))
            return found[0]

    def keep(self, stamp: Stamp, group: int, name: str, column: pa.ChunkedArray) -> None:
        """Keep a column, and let go of those that were not asked for the longest."""
        size = column.get_total_buffer_size()
        with self._lock:
            if (stamp, group, name) in self._kept or size > self._limit // 4:
                return
            self._kept[stamp, group, name] = column, size
            self._held += size
            while self._held > self._limit:
                _, (_, gone) = self._kept.popitem(last=False)
                self._held -= gone


def stamp_of(path: Path) -> Stamp:
    """A file's stamp. Raises OSError where it is missing."""
    status = path.stat()
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
