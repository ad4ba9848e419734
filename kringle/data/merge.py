"""Exact duplicates across the shards of all tasks, and the document table's parts.

Of several files with the same bytes the one with the smallest (repo, path) is the document, wherever it lies and
however the corpus is cut into shards; the others stay in its column `copies`. Only metadata is held in memory. A shard
from which nothing is missing becomes a part as it is, by a hard link; any other is written once and kept in the shard
store, so an addition costs the parts that it touches.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kringle.data.table import COPY, DECISION, DOCUMENT, TableWriter, iter_row_groups, read_table
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint

STEP = "exact-duplicate"
ONE_COPY = "one file per content"
_ORDER = ("id", "repo", "path", "source", "revision")
_COLUMNS = ["id", "repo", "path", "source", "revision", "language", "size", "stars", "licenses"]
PLACE = [field.name for field in COPY]


class Merge:
    """The documents of all tasks with exact duplicates told apart."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.files = [folder / "documents.parquet" for folder in folders]
        tables = [read_table(file, _COLUMNS) for file in self.files]
        self.counts = [table.num_rows for table in tables]
        self.table = pa.concat_tables(tables).combine_chunks() if tables else DOCUMENT.empty_table().select(_COLUMNS)
        rows = self.table.num_rows
        # Stable, so of two rows that are equal in all of these the one of the earlier task comes first.
        order = pc.sort_indices(self.table, sort_keys=[(name, "ascending") for name in _ORDER]).to_numpy()
        ids = self.table["id"].take(pa.array(order))
        first = np.ones(rows, dtype=bool)
        if rows > 1:
            first[1:] = pc.not_equal(ids.slice(1), ids.slice(0, rows - 1)).to_numpy()
        group = np.cumsum(first) - 1
        survivors = order[first]
        self.kept = np.zeros(rows, dtype=bool)
        self.kept[survivors] = True
        self.survivor = np.empty(rows, dtype=np.int64)  # of each row: the row that stands for its content
        self.survivor[order] = survivors[group] if rows else survivors
        self.copies = np.bincount(self.survivor, minlength=rows)[self.survivor] - 1 if rows else self.survivor
        self._copies_of: dict[int, list[int]] = {}
        for row in order[~first].tolist():
            self._copies_of.setdefault(int(self.survivor[row]), []).append(row)

    def write_decisions(self, writer: TableWriter) -> None:
        """One decision a file: whether it stands for its content, and which one does if not."""
        table, rows = self.table, self.table.num_rows
        places = pc.binary_join_element_wise(table["repo"], table["path"], "/")
        twins = pc.binary_join_element_wise("the same as ", places.take(pa.array(self.survivor)), "")
        more = pa.array(
            [None if n == 0 else "has one more copy" if n == 1 else f"has {n:,} more copies" for n in self.copies],
            pa.string(),
        )
        kept = pa.array(self.kept)
        columns = {
            "id": table["id"],
            "repo": table["repo"],
            "path": table["path"],
            "step": pa.array([STEP] * rows, pa.string()),
            "value": pa.array((self.copies + 1).astype(np.float64)),
            "threshold": pa.array([ONE_COPY] * rows, pa.string()),
            "kept": kept,
            "witness": pc.if_else(kept, more, twins.combine_chunks() if isinstance(twins, pa.ChunkedArray) else twins),
        }
        writer.write_table(pa.table(columns).select(DECISION.names).cast(DECISION))

    def write_parts(
        self, tasks: Sequence[Task], out: Path, shards: ShardStore, engine: Engine, progress: Reporter
    ) -> int:
        """Write the survivors to `out/part-*.parquet`, one part per task that has any; returns how many."""
        places = self.table.select(PLACE)
        jobs: list[Task] = []
        parts: list[Path | int] = []  # a shard to be linked as it is, or the number of a job
        start = 0
        for file, count, task in zip(self.files, self.counts, tasks, strict=True):
            mask = self.kept[start : start + count]
            copies = {
                row - start: places.take(self._copies_of[row]).to_pylist()
                for row in (start + np.flatnonzero(mask)).tolist()
                if row in self._copies_of
            }
            start += count
            if not mask.any():
                continue
            if mask.all() and not copies:
                parts.append(file)
                continue
            gone = np.flatnonzero(~mask).tolist()
            digest = fingerprint("part", task.fingerprint, gone, sorted(copies.items()))
            parts.append(len(jobs))
            jobs.append(Task(task.name, digest, (file, mask, copies)))
        with progress.task("exact duplicates", len(jobs), unit="shards") as counter:
            folders = shards.map(engine, write_part, jobs, on_done=lambda _: counter.advance())
        for number, part in enumerate(parts):
            place = part if isinstance(part, Path) else folders[part] / "documents.parquet"
            link(place, out / f"part-{number:05d}.parquet")
        return len(parts)


def write_part(payload: tuple[Path, np.ndarray, dict[int, list[dict[str, Any]]]], folder: Path) -> dict[str, Any]:
    """One part, in a worker: the shard's rows for which the mask holds, with their copies."""
    file, mask, copies = payload
    start = 0
    with TableWriter(folder / "documents.parquet", DOCUMENT) as writer:
        for group in iter_row_groups(file):
            rows = np.arange(start, start + group.num_rows)
            start += group.num_rows
            chosen = rows[mask[rows]]
            column = pa.array([copies.get(row, []) for row in chosen.tolist()], DOCUMENT.field("copies").type)
            index = group.schema.get_field_index("copies")
            writer.write_table(group.filter(pa.array(mask[rows])).set_column(index, DOCUMENT.field("copies"), column))
    return {"documents": int(mask.sum())}


def link(file: Path, name: Path) -> None:
    """Give a finished file a second name; a copy where the file system has no hard links."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(file, name)
