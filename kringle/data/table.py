"""The document table and the decision table: Parquet files (zstd) with checksums, written in shards of bounded size.

A document is one row per distinct content; a decision is one row per file and step, kept or dropped, and is what
`kringle why` reads. Rows stream in and out a row group at a time. A file that is cut short or damaged is an error that
names it, never fewer rows. There is no update in place: a stage writes new tables.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kringle.data.columns import ColumnCache, Footer, Stamp, stamp_of
from kringle.errors import ShardError

COPY = pa.struct(
    [
        pa.field("source", pa.string()),
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("licenses", pa.list_(pa.string())),
        pa.field("language", pa.string()),
        pa.field("stars", pa.int64()),
    ]
)

DOCUMENT = pa.schema(
    [
        pa.field("id", pa.string()),  # git blob SHA-1 of the original bytes, hex: The Stack's `hexsha`
        pa.field("content_id", pa.string()),  # the same of `content` as it is here: another one once it is redacted
        pa.field("content", pa.string()),  # as collected, the exact bytes, which are valid UTF-8
        pa.field("path", pa.string()),  # inside the repository, in the printable form of `printable`
        pa.field("repo", pa.string()),
        pa.field("language", pa.string()),
        pa.field("size", pa.int64()),  # bytes
        pa.field("licenses", pa.list_(pa.string())),  # SPDX expressions; all of them apply; empty when none is known
        pa.field("stars", pa.int64()),  # null when unknown
        pa.field("source", pa.string()),
        pa.field("revision", pa.string()),  # commit or package version; empty when unknown
        pa.field("copies", pa.list_(COPY)),  # every other place where the same bytes were found
    ]
)

DECISION = pa.schema(
    [
        pa.field("id", pa.string()),  # null for a file that was never read
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("step", pa.string()),
        pa.field("value", pa.float64()),  # what was measured, where something was
        pa.field("threshold", pa.string()),  # what keeps a file: "<= 1000", "permissive"
        pa.field("kept", pa.bool_()),
        pa.field("witness", pa.string()),  # the evidence: a licence, a twin, a matched string
    ]
)

SURVIVOR = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("language", pa.string()),
        pa.field("size", pa.int64()),
    ]
)

SPLIT = pa.schema([pa.field("id", pa.string()), pa.field("split", pa.string())])  # "train" or "held-out"

ROW_GROUP_BYTES = 16 << 20  # of content: bounds the memory of writing and of reading back
ROW_GROUP_ROWS = 100_000  # for tables without content


class CorruptTable(ShardError):
    """A Parquet file that cannot be read; names the file."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(file, ValueError(f"{reason}; delete the folder it lies in and run again"))

    def __reduce__(self) -> tuple[Any, ...]:
        return CorruptTable, (self.file, self.reason)


class Decision(NamedTuple):
    """One step's verdict on one file. Columns as in `DECISION`."""

    id: str | None
    repo: str
    path: str
    step: str
    value: float | None
    threshold: str
    kept: bool
    witness: str | None = None


class TableWriter:
    """Writes rows of one schema to one Parquet file; use as a context manager. Fails without leaving a whole file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        text = [f.name for f in schema if pa.types.is_string(f.type) and f.name not in ("id", "content_id", "content")]
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=text,
            write_statistics=text,  # the smallest and largest content would be copied into every page
            write_page_checksum=True,
        )

    def write_table(self, table: pa.Table) -> None:
        """Append a table of this schema as one row group; an empty one adds nothing."""
        if table.num_rows:
            self._writer.write_table(table)

    def write_rows(self, rows: Iterable[Sequence[Any]]) -> int:
        """Append rows (values in the schema's order) in groups of `ROW_GROUP_ROWS`; returns how many."""
        total = 0
        rows = iter(rows)
        while group := list(islice(rows, ROW_GROUP_ROWS)):
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(zip(*group, strict=True), self._schema, strict=True)
            ]
            self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            total += len(group)
        return total

    def write_tables(self, tables: Iterable[pa.Table]) -> int:
        """Append the rows of tables of this schema in groups of `ROW_GROUP_ROWS`, as `write_rows` would; how many."""
        total = 0
        for group in in_row_groups(tables):
            self.write_table(group)
            total += group.num_rows
        return total

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the footer, without which the file is none."""
        self._writer.close()


def in_row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of tables of one schema in tables of `ROW_GROUP_ROWS`, the last one shorter; each lies in one piece."""
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        while rows >= ROW_GROUP_ROWS:
            whole = pa.concat_tables(pending)
            pending = [whole.slice(ROW_GROUP_ROWS)]
            rows -= ROW_GROUP_ROWS
            group = whole.slice(0, ROW_GROUP_ROWS).combine_chunks()
            del whole  # so that its rows are in memory once
            yield group
    if rows:
        yield pa.concat_tables(pending).combine_chunks()


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Sequence[Any]]) -> int:
    """Write rows (values in the schema's order) to `path`; returns how many."""
    with TableWriter(path, schema) as writer:
        return writer.write_rows(rows)


class DocumentWriter:
    """Writes documents as they come to one shard, in row groups of about `ROW_GROUP_BYTES` of content."""

    def __init__(self, path: Path) -> None:
        self._table = TableWriter(path, DOCUMENT)
        self._group: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, document: dict[str, Any]) -> None:
        """Append a document; its keys are the schema's columns, of which `content_id` may be left to be the id."""
        self._group.append({"content_id": document["id"], **document})
        self._bytes += document["size"]
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is pending and the footer."""
        try:
            self._flush()
        finally:
            self._table.close()

    def _flush(self) -> None:
        if self._group:
            columns = [pa.array([d[field.name] for d in self._group], field.type) for field in DOCUMENT]
            self._table.write_table(pa.Table.from_arrays(columns, schema=DOCUMENT))
            self._group, self._bytes = [], 0


def write_documents(path: Path, documents: Iterable[dict[str, Any]]) -> int:
    """Write documents to one shard; returns how many."""
    writer = DocumentWriter(path)
    total = 0
    try:
        for document in documents:
            writer.add(document)
            total += 1
    finally:
        writer.close()
    return total


def document_shards(folder: Path) -> list[Path]:
    """The shards `part-*.parquet` of a document folder, in canonical order; `CorruptTable` when there are none."""
    shards = sorted(folder.glob("part-*.parquet"))
    if not shards:
        raise CorruptTable(str(folder), "holds no part-*.parquet")
    return shards


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole table, or some of its columns. Raises `CorruptTable` naming the file."""
    with _Reading(path) as file:
        names = file.names(columns)
        keep = "content" not in names
        if groups := [file.read(number, names, keep=keep) for number in range(len(file.footer.rows))]:
            return pa.concat_tables(groups)
        return pa.schema([file.footer.schema.field(name) for name in names]).empty_table()


def iter_row_groups(
    path: Path, columns: Sequence[str] | None = None, only: Iterable[int] | None = None, *, keep: bool = True
) -> Iterator[pa.Table]:
    """One table per row group of a Parquet file, or of those numbered in `only`. Raises `CorruptTable` naming the
    file. Without `keep`, columns are read from the file and not remembered, as `content` always is."""
    with _Reading(path) as file:
        names = file.names(columns)
        for number in range(len(file.footer.rows)) if only is None else only:
            yield file.read(number, names, keep=keep and "content" not in names)


def row_group_starts(path: Path) -> NDArray[np.int64]:
    """The first row of each row group of a Parquet file, and the number of all rows (groups + 1,)."""
    with _Reading(path) as file:
        return np.concatenate([[0], np.cumsum(file.footer.rows)]).astype(np.int64)


_columns = ColumnCache()


class _Reading:
    """A Parquet file that is opened when something is asked for that was not read a moment ago; use as a context
    manager, which closes it. Whatever goes wrong is a `CorruptTable`."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, None
        self._stamp = _stamp(path)

    def __enter__(self) -> _Reading:
        footer = _columns.footer(self._stamp)
        if footer is None:
            try:
                metadata, schema = self._opened().metadata, self._opened().schema_arrow
            except (pa.ArrowException, OSError) as error:
                raise CorruptTable(str(self._path), _reason(error)) from error
            footer = Footer(schema, tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
            _columns.keep_footer(self._stamp, footer)
        self.footer: Footer = footer
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def names(self, columns: Sequence[str] | None) -> list[str]:
        """These columns, or all."""
        schema = self.footer.schema
        if missing := set(columns or ()) - set(schema.names):  # pyarrow itself would leave them out silently
            raise CorruptTable(str(self._path), f"lacks the column {min(missing)}")
        _check_copies(self._path, schema)
        return schema.names if columns is None else list(columns)

    def read(self, group: int, names: Sequence[str], *, keep: bool) -> pa.Table:
        """Columns of a row group, those that were read before and are remembered if `keep`."""
        if not keep or not names:  # a table of no columns would forget how many rows it has
            return self._read(group, names)
        found = {name: _columns.column(self._stamp, group, name) for name in names}
        if lacking := [name for name in names if found[name] is None]:
            table = self._read(group, lacking)
            for name in lacking:
                found[name] = table[name]
                _columns.keep(self._stamp, group, name, table[name])
        schema = pa.schema([self.footer.schema.field(name) for name in names])
        return pa.Table.from_arrays(list(found.values()), schema=schema)

    def fingerprint(self) -> str:
        """See `shard_fingerprint`."""
        known = self.footer.fingerprint
        if known is None:
            known = self._hashed()
            self.footer = self.footer._replace(fingerprint=known)
            _columns.keep_footer(self._stamp, self.footer)
        return known

    def _hashed(self) -> str:
        digest = hashlib.sha256()
        metadata = self._opened().metadata
        digest.update(self._opened().schema_arrow.serialize())
        with self._path.open("rb") as stored:
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                digest.update(group.num_rows.to_bytes(8, "little"))
                for column in (group.column(i) for i in range(group.num_columns)):
                    if column.path_in_schema != "content":
                        stored.seek(
                            column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                        )
                        digest.update(stored.read(column.total_compressed_size))
        return digest.hexdigest()[:32]

    def _read(self, group: int, names: Sequence[str]) -> pa.Table:
        try:
            return self._opened().read_row_group(group, columns=names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise CorruptTable(str(self._path), _reason(error)) from error

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = _open(self._path)
            if _stamp(self._path) != self._stamp:  # or columns of two files would lie side by side
                raise CorruptTable(str(self._path), "was replaced while it was read")
        return self._file


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(path)
    except OSError as error:
        raise CorruptTable(str(path), _reason(error)) from error


def iter_documents(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Documents of a folder of shards as dictionaries, in canonical order; `columns` limits what is read.

    Raises `CorruptTable` naming the shard that cannot be read.
    """
    for shard in document_shards(folder):
        for group in iter_row_groups(shard, columns):
            yield from group.to_pylist()


def link(file: Path, name: Path) -> None:
    """Give a finished file a second name; a copy where the file system has no hard links."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(file, name)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptTable(str(path), _reason(error)) from error


def _check_copies(path: Path, schema: pa.Schema) -> None:
    """No checksum covers a footer, and pyarrow would read a struct with a misspelt field without a word."""
    index = schema.get_field_index("copies")
    if index >= 0 and schema.field(index).type != DOCUMENT.field("copies").type:
        raise CorruptTable(str(path), "has a column of copies that is damaged, or another version's")


def _reason(error: BaseException) -> str:
    return f"is missing, cut short or damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def identity(path: Path) -> str:
    """The column that names a shard's contents: `content_id` where they were redacted, `id` otherwise."""
    with _Reading(path) as file:
        return "content_id" if "content_id" in file.footer.schema.names else "id"


def shard_fingerprint(path: Path) -> str:
    """A fingerprint of a document shard's rows: every column but the content, which its ids stand for.

    What is hashed are the bytes that are stored, so nothing is decompressed and no row becomes an object; the same rows
    in other row groups have another fingerprint.
    """
    with _Reading(path) as file:
        return file.fingerprint()


def text_bytes(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The UTF-8 bytes (total,) of a column of strings as they lie in memory, and where each begins (rows + 1,); a
    missing one counts as empty."""
    array = column.cast(pa.large_binary()).combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # an empty one
        array = pa.array([], pa.large_binary())
    if array.null_count:
        array = array.fill_null(b"")
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if data is None or not len(array):
        return np.zeros(0, dtype=np.uint8), np.zeros(len(array) + 1, dtype=np.int64)
    return np.frombuffer(data, dtype=np.uint8), places
