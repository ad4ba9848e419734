"""Rows of The Stack's tables as documents: one row group of Parquet, one range of JSONL, each column under its names.

The text is required. Any other column that is missing, or of a type that cannot be what it says, counts as unknown,
and one line says so for each container; a row without text, or a line that is no JSON, is one line of its own kind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

from kringle.data.languages import language_of_name, language_of_title
from kringle.data.license_metadata import from_value
from kringle.data.licenses import UNRECOGNISED
from kringle.data.reading import blob_id
from kringle.data.sources.candidates import printable
from kringle.data.sources.containers import Broken, Container, Found, Member, Passed, Uncounted, Wanted
from kringle.data.sources.stack import open_place, own_name
from kringle.data.stars import whole_count

MAX_LINE_BYTES = 64 << 20  # a longer line of JSONL is passed over: no text of at most max_file_bytes needs it
_BLOCK = 1 << 20
ROWS_AT_ONCE = 256  # of a row group that are turned into Python objects together

# The names of each column, the first that is there is taken: The Stack v1, v2, StarCoder's data, this project's tables.
NAMES: Mapping[str, Sequence[str]] = {
    "content": ("content", "text"),
    "path": ("max_stars_repo_path", "path", "file_path"),
    "repo": ("max_stars_repo_name", "repo_name", "repo", "repository_name"),
    "language": ("lang", "language", "programming_language"),
    "extension": ("ext", "extension"),
    "licenses": ("max_stars_repo_licenses", "detected_licenses", "licenses", "license", "gha_license_id"),
    "stars": ("max_stars_count", "star_events_count", "stars", "gha_stargazers_count"),
    "revision": ("max_stars_repo_head_hexsha", "revision_id", "revision"),
}
REQUIRED = "content"


class _Row(NamedTuple):
    """A row as the table has it, by our names; None where it says nothing."""

    content: Any = None
    path: Any = None
    repo: Any = None
    language: Any = None
    extension: Any = None
    licenses: Any = None
    stars: Any = None
    revision: Any = None


def read_rows(container: Container, wanted: Wanted) -> Iterator[Found]:
    """The documents of one container in the wanted languages, and what was passed over, with reasons."""
    rows = _parquet(container) if container.kind == "parquet" else _jsonl(container)
    for number, row in rows_or_faults(rows, container):
        if isinstance(row, Broken):
            yield row
        else:
            yield _document(row, number, container, wanted)


def rows_or_faults(
    rows: Iterator[tuple[int, _Row | Broken]], container: Container
) -> Iterator[tuple[int, _Row | Broken]]:
    """The rows until the container breaks, then the one line about it."""
    import pyarrow as pa
    import zstandard

    count = 0
    try:
        for count, row in rows:
            yield count, row
    except FileNotFoundError:
        yield count, Broken(container.name, "vanished since it was listed")
    except (pa.ArrowException, OSError, EOFError, zstandard.ZstdError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        kept = f"; the {count:,} rows before are kept" if count else ""
        yield count, Broken(container.name, f"cut short or damaged ({text}){kept}")


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _parquet(container: Container) -> Iterator[tuple[int, _Row | Broken]]:
    import pyarrow.parquet as pq

    with open_place(container.place) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        columns, faults = _columns({field.name: str(field.type) for field in schema}, container)
        yield from ((0, fault) for fault in faults)
        if REQUIRED not in columns or int(container.part) >= file.num_row_groups:
            return
        batches = file.iter_batches(
            ROWS_AT_ONCE, row_groups=[int(container.part)], columns=sorted(set(columns.values())), use_threads=False
        )
        number = 0
        for batch in batches:
            values = {ours: batch.column(theirs).to_pylist() for ours, theirs in columns.items()}
            for row in range(batch.num_rows):
                number += 1
                yield number, _Row(**{ours: column[row] for ours, column in values.items()})


def _columns(types: Mapping[str, str], container: Container) -> tuple[dict[str, str], list[Broken]]:
    """Our names and the table's, for the columns that are there with a usable type; and a line on each that is not."""
    found: dict[str, str] = {}
    faults: list[Broken] = []
    for ours, names in NAMES.items():
        theirs = next((name for name in names if name in types), None)
        if theirs is None:
            continue
        if not _usable(ours, types[theirs]):
            lost = "nothing of it is read" if ours == REQUIRED else "it counts as unknown"
            faults.append(Broken(container.name, f"the column {theirs} has the type {types[theirs]}, so {lost}"))
        else:
            found[ours] = theirs
    if REQUIRED not in found and not any(NAMES[REQUIRED][0] in f.reason for f in faults):
        hint = " (tables of The Stack v2 hold ids alone; their texts are fetched apart)" if "blob_id" in types else ""
        have = ", ".join(list(types)[:8])
        faults.append(Broken(container.name, f"lacks the column content{hint}; it has {have}"))
    elif REQUIRED in found and "language" not in found and not {"extension", "path"} & found.keys():
        faults.append(Broken(container.name, "lacks a column with the language, the extension or the path"))
    return found, faults


def _usable(ours: str, type_name: str) -> bool:
    text = (
        "string",
        "large_string",
        "string_view",
        "binary",
        "large_binary",
        "binary_view",
        "dictionary<values=string",
    )
    if ours == "licenses":
        return type_name.startswith((*text, "list<", "large_list<", "null"))
    if ours == "stars":
        return type_name.startswith(("int", "uint", "float", "double", "halffloat", "string", "null"))
    return type_name.startswith(text if ours == REQUIRED else (*text, "null"))


# -- JSONL -------------------------------------------------------------------------------------------------------------


def _jsonl(container: Container) -> Iterator[tuple[int, _Row | Broken]]:
    told: set[str] = set()
    for number, line in enumerate(_lines(container), 1):
        row = _parse(line)
        if isinstance(row, str):
            if row not in told:  # a file in another format would say it of every line
                told.add(row)
                yield (
                    number,
                    Broken(container.name, f"line {number:,}{_counted(container)} {row}; such lines are passed over"),
                )
        else:
            yield number, row


def _counted(container: Container) -> str:
    return " of this part" if container.part else ""


def _parse(line: bytes | None) -> _Row | str:
    if line is None:
        return f"is longer than {MAX_LINE_BYTES >> 20} MiB"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return "is no JSON"
    if not isinstance(values, dict):
        return "is no JSON object"
    row = _Row(**{ours: next((values[n] for n in names if n in values), None) for ours, names in NAMES.items()})
    if row.content is None:
        return "lacks the key content"
    return row if isinstance(row.content, str) else f"has a content of the type {type(row.content).__name__}"


def _lines(container: Container) -> Iterator[bytes | None]:
    """Lines that begin in the container's range; None for one that is too long."""
    start, _, end = container.part.partition("-")
    with open_place(container.place) as opened:
        name = container.place.lower()
        if name.endswith(".gz"):
            import gzip

            yield from (line for _, line in _cut_lines(cast("IO[bytes]", gzip.GzipFile(fileobj=opened)), 0, None))
        elif name.endswith(".zst"):
            import zstandard

            reader = zstandard.ZstdDecompressor().stream_reader(opened, read_across_frames=True)
            yield from (line for _, line in _cut_lines(cast("IO[bytes]", io.BufferedReader(reader, _BLOCK)), 0, None))
        else:
            first, last = int(start or 0), int(end) if end else None
            opened.seek(max(0, first - 1))
            if first:
                _skip_line(opened)  # it began in the range before
            yield from (line for _, line in _cut_lines(opened, opened.tell(), last))


def _cut_lines(file: IO[bytes], at: int, end: int | None) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line) of lines that begin before `end`; empty ones are passed over."""
    while end is None or at < end:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        start, at = at, at + len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            at += _skip_line(file)
            yield start, None
        elif line.strip():
            yield start, line


def _skip_line(file: IO[bytes]) -> int:
    """Read to the end of the line, a block at a time; returns how many bytes."""
    skipped = 0
    while True:
        block = file.readline(_BLOCK)
        skipped += len(block)
        if not block or block.endswith(b"\n"):
            return skipped


# -- a row as a document -----------------------------------------------------------------------------------------------


def _document(row: _Row, number: int, container: Container, wanted: Wanted) -> Found:
    repo = printable(_text(row.repo)) or printable(own_name(container.place))
    language = _language(row)
    extension = _text(row.extension).lstrip(".") or PurePosixPath(_text(row.path)).suffix.lstrip(".")
    if language is None or language not in wanted.languages:
        return Uncounted(language, f".{extension.lower()}" if extension else "no extension")
    data = _bytes(row.content)
    path = printable(_text(row.path))
    if data is None:
        shown = path or f"row {number:,} of part {container.part or 'whole'}"
        why = "no text" if row.content is None else f"its text has the type {type(row.content).__name__}"
        return Passed("read", repo, shown, 0, "UTF-8 text", why, why)
    path = path or f"{blob_id(data)}{f'.{extension}' if extension else ''}"
    if not 0 < len(data) <= wanted.max_file_bytes:
        limit = f"1 to {wanted.max_file_bytes:,} bytes"
        return Passed("size", repo, path, len(data), limit, "too large" if data else "empty", None, len(data))
    revision = printable(_text(row.revision))
    return Member(repo, path, language, data, _licenses(row.licenses), whole_count(row.stars), revision)


def _language(row: _Row) -> str | None:
    """By the table's own word where it has one, else by extension."""
    if isinstance(row.language, str) and row.language.strip():
        return language_of_title(row.language)
    extension = _text(row.extension)
    return language_of_name(f"x.{extension.lstrip('.')}" if extension else f"x/{PurePosixPath(_text(row.path)).name}")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return value.strip() if isinstance(value, str) else ""


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    # A lone surrogate has no UTF-8 form; written as it is, it makes the text one that `decode` turns down.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else None


def _licenses(value: Any) -> tuple[str, ...]:
    """Licences that all apply, as SPDX; a name that is none of ours is kept as an unrecognised one."""
    names = value if isinstance(value, list) else [value]
    found: dict[str, None] = {}
    for name in names:
        if text := _text(name):
            for expression in from_value(text) or (UNRECOGNISED,):
                found[expression] = None
    return tuple(found)
