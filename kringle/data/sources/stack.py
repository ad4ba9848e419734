"""Source `stack`: tables of documents, Parquet or JSONL (plain, gzip or zstd), with the column names of The Stack.

Version 1 (`content`, `hexsha`, `max_stars_repo_name` ...), version 2's names where they differ (`blob_id`, `repo_name`,
`detected_licenses` ...), StarCoder's and this project's own are read as they are; only the text is required. Files are
local paths, folders or patterns, or URLs that fsspec opens (hf://, s3://, gs://). Listing reads footers and sizes
alone. Parquet is read a row group at a time, plain JSONL in ranges of `RANGE_BYTES`.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from kringle.data.sources.candidates import Found, Skipped, printable
from kringle.data.sources.containers import Container
from kringle.errors import UserError

SOURCE = "stack"
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst")
PARQUET = (".parquet", ".parq", ".pq")
RANGE_BYTES = 32 << 20  # of plain JSONL in one task
_STAMPS = ("ETag", "etag", "blob_id", "mtime", "last_modified", "LastModified", "created")  # as backends name them
_FOOTERS_AT_ONCE = 16  # remote files whose footers are asked for at a time


def is_table(name: str) -> bool:
    """Whether a file of this name is a table of documents."""
    return name.lower().endswith((*PARQUET, *JSONL))


def is_url(location: str) -> bool:
    """Whether a location is a URL (`hf://...`), to be opened by fsspec."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", location, re.I))


class _File(NamedTuple):
    """A file of the source, before it is cut into containers."""

    place: str
    size: int
    stamp: str


def stack(location: str) -> Found:
    """The containers of all tables at `location`. Raises `UserError` when there are none or fsspec cannot open it."""
    found = Found()
    files = _remote_files(location) if is_url(location) else _local_files(location)
    if not files:
        endings = ", ".join((*PARQUET[:1], *JSONL[:3]))
        hint = f"a table ends in one of {endings}"
        raise UserError("holds no Parquet or JSONL file", where=printable(location), hint=hint)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE if is_url(location) else 1) as threads:
        for file, cut in zip(files, threads.map(_cut, files), strict=True):
            if isinstance(cut, str):
                found.skipped.append(Skipped(SOURCE, SOURCE, printable(file.place), cut))
            else:
                found.containers += cut
    return found


def _local_files(location: str) -> list[_File]:
    path = Path(location).expanduser()
    if path.is_dir():
        names = sorted(p for p in path.rglob("*") if is_table(p.name) and p.is_file())
    elif path.exists():
        names = [path]
    else:
        names = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if is_table(p))  # noqa: PTH207 (an absolute pattern)
        if not names:
            raise UserError(
                "no such file or folder, and no pattern that matches a table",
                where=printable(location),
                hint="check the path given as source",
            )
    try:
        return [_File(str(p.resolve()), p.stat().st_size, str(p.stat().st_mtime_ns)) for p in names]
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=printable(location)) from None


def _remote_files(location: str) -> list[_File]:
    fs, path = filesystem(location)
    scheme = location.partition("://")[0]
    try:
        pattern = any(c in path for c in "*?[")
        names = fs.glob(path) if pattern else fs.find(path)
        files = []
        for name in sorted(names):
            if is_table(name):
                about = fs.info(name)
                stamp = next((str(about[key]) for key in _STAMPS if about.get(key)), "")
                place = f"{scheme}://{name.removeprefix(f'{scheme}://')}"
                files.append(_File(place, int(about.get("size") or 0), stamp))
    except Exception as error:  # each backend raises errors of its own libraries
        raise _remote_error(location, error) from None
    return files


def filesystem(location: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it. Raises `UserError` when fsspec or its backend is missing."""
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError:
        raise UserError(
            "needs the package fsspec, which is not installed",
            where=printable(location),
            hint="pip install kringle[remote], or give local files",
        ) from None
    try:
        fs, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise UserError(
            str(error).splitlines()[0], where=printable(location), hint="pip install what fsspec asks for"
        ) from None
    except Exception as error:
        raise _remote_error(location, error) from None
    return fs, path


def _remote_error(location: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"cannot be listed: {reason}", where=printable(location), hint="check the URL and your access")


def open_place(place: str) -> AbstractContextManager[IO[bytes]]:
    """A local path or a URL, opened for reading bytes."""
    if is_url(place):
        fs, path = filesystem(place)
        return cast("AbstractContextManager[IO[bytes]]", fs.open(path, "rb"))
    return Path(place).open("rb")


def _cut(file: _File) -> list[Container] | str:
    """A file's containers, or why it has none."""
    whole = Container(SOURCE, "jsonl", file.place, "", file.size, file.stamp)
    if not file.size:
        return "an empty file"
    if file.place.lower().endswith(PARQUET):
        groups = _row_groups(file)
        if isinstance(groups, str):
            return groups
        return [whole._replace(kind="parquet", part=str(n), size=size) for n, size in enumerate(groups)]
    if file.place.lower().endswith((".jsonl", ".ndjson")):
        starts = range(0, file.size, RANGE_BYTES)
        ends = [min(start + RANGE_BYTES, file.size) for start in starts]
        return [whole._replace(part=f"{a}-{b}", size=b - a) for a, b in zip(starts, ends, strict=True)]
    return [whole]


def _row_groups(file: _File) -> list[int] | str:
    """Compressed bytes of each row group, from the footer; or why there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_place(file.place) as opened, pq.ParquetFile(opened) as parquet:
            groups = [parquet.metadata.row_group(n) for n in range(parquet.num_row_groups)]
            return [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    except FileNotFoundError:
        return "vanished since it was listed"
    except (pa.ArrowException, OSError, UserError) as error:
        return f"no Parquet, cut short or damaged: {str(error).splitlines()[0]}"


def own_name(place: str) -> str:
    """What stands for the repository where a table does not name it: the table's own name without its ending."""
    name = os.path.basename(place)  # noqa: PTH119 (a URL, perhaps)
    return f"{SOURCE}/{next((name[: -len(e)] for e in (*JSONL, *PARQUET) if name.lower().endswith(e)), name)}"
