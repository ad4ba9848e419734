"""Near-deduplicate any folder of Parquet or JSON Lines files: survivors as they were, a decision for every document.

Files stream through a row group (or 32 MB of lines) at a time, in as many processes as there are cores. A killed run
continues from the files it had read. The CLI's `kringle dedup`; the rules are those of `kringle.data.near_duplicates`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kringle.code_version import code_fingerprint
from kringle.data.near_duplicates.find import Outcome, figures, find
from kringle.data.near_duplicates.inputs import KNOWN, Columns, Shard, batches, lines, texts
from kringle.data.near_duplicates.method import Fidelity, Method
from kringle.data.table import TableWriter
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.workspace import ShardStore, fingerprint, publish_folder

PARQUET = (".parquet",)
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")

DECIDED = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),  # of the file, from 0; empty lines do not count
        pa.field("id", pa.string()),  # where the input has one, as all names below
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("tokens", pa.int64()),
        pa.field("kept", pa.bool_()),
        pa.field("similarity", pa.float64()),  # exact Jaccard similarity with the witness
        pa.field("contained", pa.float64()),  # share of its shingles that the witness has
        pa.field("witness_file", pa.string()),
        pa.field("witness_row", pa.int64()),
        pa.field("witness_id", pa.string()),
        pa.field("witness_repo", pa.string()),
        pa.field("witness_path", pa.string()),
    ]
)


def dedup(
    inputs: Sequence[Path],
    out: Path,
    *,
    ngram: int = 5,
    threshold: float = 0.7,
    fidelity: Fidelity = "corrected",
    content: str | None = None,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Write the survivors of the files and folders `inputs` into `out/data`, file by file, and `out/decisions.parquet`.

    `content` names the column of texts where it has none of the usual names. Returns counts, and `survivors`, a sum of
    hashes of what stays that is equal for equal sets of texts. Raises `UserError` for an input that cannot be read and
    for an `out` that has something in it.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"must be above 0 and at most 1, got {threshold:g}", where="--threshold")
    if ngram < 1:
        raise UserError(f"must be at least 1, got {ngram}", where="--ngram")
    method = Method.of(ngram, threshold, fidelity)
    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("already has something in it", where=str(out), hint="choose a new folder for --out")
    files = _files(inputs, out)
    shards = [_shard(file.path, content) for file in files]
    partial = out.with_name(f".{out.name}.partial")
    engine, progress = Engine(workers), progress or Reporter()
    try:
        shutil.rmtree(partial / "data", ignore_errors=True)  # of a killed run, perhaps with other inputs
        (partial / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(out)) from None
    store = ShardStore(partial / "shards", code_fingerprint(["data.dedup"]))
    outcome = find(shards, method, store, engine, progress)
    starts = np.concatenate([[0], np.cumsum([shard.rows for shard in shards])])
    if starts[-1] != len(outcome.kept):
        raise UserError("a file changed while it was read", where=str(out), hint="run again")
    tasks = [
        (shard, file.name, partial / "data" / file.name, outcome.kept[starts[i] : starts[i + 1]])
        for i, (file, shard) in enumerate(zip(files, shards, strict=True))
    ]
    sizes: list[NDArray[np.int64]] = []
    total = 0
    with progress.task("write", len(tasks), unit="files") as counter:
        for lengths, sum_of_hashes in engine.map(write_survivors, tasks, names=[file.name for file in files]):
            sizes.append(lengths)
            total = (total + sum_of_hashes) % (1 << 64)
            counter.advance()
    _write_decisions(partial / "decisions.parquet", files, shards, starts, outcome)
    everything = np.concatenate([np.zeros(0, np.int64), *sizes])
    told = figures(method, outcome, everything, np.ones(len(everything), dtype=np.bool_))
    shutil.rmtree(partial / "shards")
    if out.exists():
        out.rmdir()
    publish_folder(partial, out)
    return {
        "out": str(out),
        "files": len(files),
        "documents": len(everything),
        "kept": int(outcome.kept.sum()),
        "bytes": int(everything.sum()),
        "bytes_kept": int(everything[outcome.kept].sum()),
        "survivors": f"{total:016x}",
        "figures": told,
    }


class _File(NamedTuple):
    """An input file and its name below the input it was found in."""

    path: Path
    name: str


def _files(inputs: Sequence[Path], out: Path) -> list[_File]:
    found: list[_File] = []
    for given in inputs:
        root = given.expanduser()
        if not root.exists():
            raise UserError("does not exist", where=str(given))
        if root.is_file():
            if not root.name.lower().endswith((*PARQUET, *LINES)):
                raise UserError(
                    "is neither Parquet nor JSON Lines", where=str(given), hint=f"known: {', '.join(LINES)}"
                )
            found.append(_File(root, root.name))
            continue
        if out.is_relative_to(root.absolute()):
            raise UserError("lies inside the input", where=str(out), hint="choose an --out outside of it")
        inside = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(root)
            for name in names
            if name.lower().endswith((*PARQUET, *LINES)) and not name.startswith(".")
        )
        if not inside:
            raise UserError("holds no .parquet and no .jsonl file", where=str(given))
        found += [_File(path, str(path.relative_to(root))) for path in inside]
    names = [file.name for file in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two inputs have a file {twice}", where="INPUT", hint="give them one by one, or rename")
    return found


def _shard(path: Path, content: str | None) -> Shard:
    """The file with the columns that it has."""
    stat = path.stat()
    mark = fingerprint(str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if path.name.lower().endswith(PARQUET):
        try:
            with pq.ParquetFile(path) as file:
                names, rows = file.schema_arrow.names, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot be read as Parquet: {str(error).splitlines()[0]}", where=str(path)) from None
        return Shard(path, "parquet", _columns(names, content, path), rows, mark)
    names, rows = [], 0
    for row in lines(path):
        if not rows:
            names = list(row)
        rows += 1
    return Shard(path, "jsonl", _columns(names, content, path) if rows else Columns("content"), rows, mark)


def _columns(names: Sequence[str], content: str | None, path: Path) -> Columns:
    if content is not None and content not in names:
        raise UserError(f"has no column '{content}'", where=str(path), hint=f"it has {', '.join(names)}")
    chosen = {field: next((name for name in known if name in names), None) for field, known in KNOWN.items()}
    text = content or chosen.pop("content")
    chosen.pop("content", None)
    if text is None:
        raise UserError(
            f"has no column {' or '.join(KNOWN['content'])}",
            where=str(path),
            hint=f"name the column of texts with --content; it has {', '.join(names) or 'none'}",
        )
    return Columns(text, **chosen)


def write_survivors(task: tuple[Shard, str, Path, NDArray[np.bool_]]) -> tuple[NDArray[np.int64], int]:
    """One file, in a worker: its kept rows, unchanged, to the target. Sizes of all texts, and the sum of the hashes of
    the kept ones (modulo 2^64)."""
    from kringle.data.near_duplicates.inputs import hash64

    shard, _, target, kept = task
    target.parent.mkdir(parents=True, exist_ok=True)
    sizes: list[NDArray[np.int64]] = []
    total = 0

    def measure(table: pa.Table) -> None:
        nonlocal total
        first = sum(map(len, sizes))
        data, offsets = texts(table[shard.columns.content], str(shard.path))
        sizes.append(np.diff(offsets))
        for i in np.flatnonzero(kept[first : first + table.num_rows]).tolist():
            total += hash64(data[offsets[i] : offsets[i + 1]].tobytes())

    if shard.format == "parquet":
        with pq.ParquetFile(shard.path) as file:
            schema = file.schema_arrow
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            first = 0
            for table in batches(shard, schema.names):
                measure(table.select([shard.columns.content]))
                chosen = table.filter(pa.array(kept[first : first + table.num_rows]))
                first += table.num_rows
                if chosen.num_rows:
                    writer.write_table(chosen)
    else:
        for table in batches(shard, [shard.columns.content]):
            measure(table)
        with _compressed(target) as sink:
            for line, keep in zip(lines(shard.path, raw=True), kept.tolist(), strict=True):
                if keep:
                    sink.write(line if line.endswith(b"\n") else line + b"\n")
    return np.concatenate([np.zeros(0, np.int64), *sizes]), total % (1 << 64)


def _compressed(path: Path) -> Any:
    """A file to write bytes to, compressed as its name says."""
    if path.name.endswith(".gz"):
        import gzip

        return gzip.GzipFile(path, "wb", mtime=0)
    if path.name.endswith(".zst"):
        import zstandard

        return zstandard.open(path, "wb")
    return path.open("wb")


def _places(shard: Shard) -> Iterator[tuple[str | None, str | None, str | None]]:
    """(id, repo, path) of each row, as far as the file has them."""
    columns = [shard.columns.id, shard.columns.repo, shard.columns.path]
    names = [name for name in columns if name is not None]
    if not names:
        yield from [(None, None, None)] * shard.rows
        return
    for table in batches(shard, names):
        lists = [table[name].to_pylist() if name is not None else [None] * table.num_rows for name in columns]
        for row in zip(*lists, strict=True):
            yield tuple(None if value is None else str(value) for value in row)  # type: ignore[misc]


def _write_decisions(
    path: Path, files: Sequence[_File], shards: Sequence[Shard], starts: NDArray[np.int64], outcome: Outcome
) -> None:
    witnesses = np.unique(outcome.witness[outcome.witness >= 0])
    known: dict[int, tuple[str | None, str | None, str | None]] = {}
    for i, shard in enumerate(shards):
        own = set(witnesses[np.searchsorted(witnesses, starts[i]) : np.searchsorted(witnesses, starts[i + 1])].tolist())
        if own:
            numbered = enumerate(_places(shard), start=int(starts[i]))
            known.update((number, place) for number, place in numbered if number in own)

    def rows() -> Iterator[tuple[Any, ...]]:
        for i, (file, shard) in enumerate(zip(files, shards, strict=True)):
            for row, place in enumerate(_places(shard)):
                number = int(starts[i]) + row
                other = int(outcome.witness[number])
                home = int(np.searchsorted(starts, other, side="right")) - 1
                values = [float(outcome.similarity[number]), float(outcome.contained[number])]
                yield (
                    file.name,
                    row,
                    *place,
                    int(outcome.tokens[number]),
                    bool(outcome.kept[number]),
                    *(None if np.isnan(value) else value for value in values),
                    files[home].name if other >= 0 else None,
                    other - int(starts[home]) if other >= 0 else None,
                    *(known[other] if other >= 0 else (None, None, None)),
                )

    with TableWriter(path, DECIDED) as writer:
        writer.write_rows(rows())
