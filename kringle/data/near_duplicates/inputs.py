"""Where texts come from, for near-deduplication: shards of a document table, or anyone's Parquet and JSON Lines files.

A shard gives its texts as they lie in memory (UTF-8 bytes and offsets, what Arrow calls a string array), a batch at a
time, and one row of ranks a document: what decides which of several near-duplicates is the best one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from kringle.data.licenses import is_permissive
from kringle.data.table import CorruptTable, iter_row_groups, text_bytes
from kringle.errors import UserError

BATCH_BYTES = 32 << 20  # of JSON Lines read at once
# Parts of a path that tell a copy or a by-product from the original place.
SECONDARY = frozenset(
    (
        *("test", "tests", "testing", "fixtures", "examples", "example", "samples", "demo", "docs"),
        *("vendor", "vendored", "_vendor", "third_party", "thirdparty", "external", "node_modules"),
        *("dist", "build", "generated", "backup", "old", "deprecated"),
    )
)

Texts = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Columns(NamedTuple):
    """Names of a shard's columns; None where it has none. In the order of `FIELDS` of a row."""

    content: str
    id: str | None = None
    repo: str | None = None
    path: str | None = None
    licenses: str | None = None
    stars: str | None = None

    @property
    def metadata(self) -> list[str]:
        return [name for name in self[1:] if name is not None]


# Names for each column, the first that is there counts: ours, The Stack's, the usual.
KNOWN = {
    "content": ("content", "text", "code"),
    "id": ("id", "hexsha", "blob_id"),
    "repo": ("repo", "max_stars_repo_name", "repo_name", "repository_name"),
    "path": ("path", "max_stars_repo_path", "original_path"),
    "licenses": ("licenses", "max_stars_repo_licenses", "license", "detected_licenses"),
    "stars": ("stars", "max_stars_count", "star_events_count"),
}
DOCUMENT_COLUMNS = Columns("content", "id", "repo", "path", "licenses", "stars")


class Shard(NamedTuple):
    """One file of texts, `rows` of them. `fingerprint` stands for its content."""

    path: Path
    format: Literal["parquet", "jsonl"]
    columns: Columns
    rows: int
    fingerprint: str


def batches(shard: Shard, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of these columns. Raises `UserError` naming the file that cannot be read as what it is."""
    if shard.format == "parquet":
        try:
            yield from iter_row_groups(shard.path, columns, keep=False)  # texts, by whatever name
        except CorruptTable as error:
            raise UserError(f"cannot be read as Parquet: {error.reason}", where=str(shard.path)) from None
        return
    rows: list[dict[str, Any]] = []
    size = 0
    for row in lines(shard.path):
        chosen = {name: row.get(name) for name in columns}
        rows.append(chosen)
        size += sum(len(value) for value in chosen.values() if isinstance(value, str))
        if size > BATCH_BYTES:
            yield _table(rows, columns, shard.path)
            rows, size = [], 0
    if rows:
        yield _table(rows, columns, shard.path)


def lines(path: Path, raw: bool = False) -> Iterator[Any]:
    """The objects of a JSON Lines file (plain, gzip or Zstandard), or with `raw` its lines as they are; empty lines are
    left out. Raises `UserError` naming the line that is no object."""
    number = 0
    try:
        with _opened(path) as file:
            for line in file:
                number += 1
                if not line.strip():
                    continue
                if raw:
                    yield line
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no object")
                yield row
    except (ValueError, RecursionError):
        raise UserError("is not a JSON object", where=f"{path}, line {number}") from None
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile reads like any other
    if path.name.endswith(".zst"):
        return io.BufferedReader(zstandard.open(path, "rb"), 1 << 20)
    return path.open("rb")


def _table(rows: list[dict[str, Any]], columns: Sequence[str], path: Path) -> pa.Table:
    try:
        return pa.table({name: pa.array([row[name] for row in rows]) for name in columns})
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise UserError(f"holds values of mixed or unknown types: {error}", where=str(path)) from None


def texts(column: pa.ChunkedArray, where: str) -> Texts:
    """The bytes (total,) and offsets (rows + 1,) of a column of strings; a missing one counts as empty."""
    if pa.types.is_null(column.type):
        return np.zeros(0, dtype=np.uint8), np.zeros(len(column) + 1, dtype=np.int64)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or _is_binary(column.type)):
        raise UserError(f"the column of texts holds {column.type}, not strings", where=where)
    return text_bytes(column)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


RANKS = 6


def ranks(table: pa.Table, columns: Columns, content: Texts) -> NDArray[np.uint64]:
    """What ranks each document (RANKS, rows), smaller is better, the first row weighs most: licence (permissive, other,
    unknown), path (a place of its own, a secondary one), stars (many before few, unknown last), length (long before
    short), then hashes of content and of place, so that no two different documents rank alike."""
    rows = table.num_rows
    out = np.zeros((RANKS, rows), dtype=np.uint64)
    data, offsets = content
    largest = (1 << 63) - 1

    def values(name: str | None) -> list[Any]:
        return table[name].to_pylist() if name is not None else [None] * rows

    repos, paths = values(columns.repo), values(columns.path)
    licences, stars = values(columns.licenses), values(columns.stars)
    known: dict[Any, int] = {}
    for i in range(rows):
        given = [licences[i]] if isinstance(licences[i], str) else list(licences[i] or ())
        key = tuple(str(name) for name in given)
        if key not in known:
            known[key] = 2 if not key else 0 if is_permissive(key) else 1
        out[0, i] = known[key]
        path = str(paths[i] or "")
        out[1, i] = int(not SECONDARY.isdisjoint(part.lower() for part in PurePosixPath(path).parts))
        out[2, i] = largest - (int(stars[i]) + 1 if stars[i] is not None else 0)
        out[5, i] = hash64(f"{repos[i] or ''}\0{path}".encode("utf-8", "surrogatepass"))
    out[3] = np.uint64(largest) - np.diff(offsets).astype(np.uint64)
    for i in range(rows):
        out[4, i] = hash64(data[offsets[i] : offsets[i + 1]].tobytes())
    return out


def hash64(data: bytes) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
