"""The document table's parts and the decisions on exact duplicates, from the shards of all tasks.

Of several files with the same bytes the one with the smallest (repo, path) is the document, wherever it lies and
however the corpus is cut into shards; the others stay in its column `copies`. Shards are gone through one by one
(`kringle.data.duplicates` says what is where). One from which nothing is missing becomes a part as it is, by a hard
link; any other is written once and kept in the shard store, so an addition costs the parts that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.duplicates import VERDICT, Duplicates, between
from kringle.data.table import COPY, DECISION, DOCUMENT, TableWriter, iter_row_groups, link, shard_fingerprint
from kringle.data.tally import COLUMNS, Tally
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint

STEP = "exact-duplicate"
ONE_COPY = "one file per content"
PLACE = [field.name for field in COPY]
_AT_ONCE = 20_000  # documents whose metadata is looked at together: 5 MB of it


class Merge:
    """The documents of all tasks, of which each has a folder and a count of them, with exact duplicates told apart.

    `scratch` is a folder for files; whoever gave it removes it. `kept` and `lost` (files, bytes) are counted while
    `decisions` are gone through.
    """

    def __init__(self, folders: Sequence[Path], counts: Sequence[int], scratch: Path) -> None:
        self._files = [folder / "documents.parquet" for folder in folders]
        self._counts, self._scratch = counts, scratch
        self._duplicates = Duplicates(self._files, counts, scratch)
        self.kept, self.lost = Tally(sum(counts), scratch), (0, 0)

    def decisions(self) -> Iterator[pa.Table]:
        """One decision a file, in the order of the shards: whether it stands for its content, or which one does.

        Counts `kept` and `lost` on the way.
        """
        for table, verdicts in self._stretches():
            kept = _mask(table.num_rows, verdicts)
            gone = table["size"].to_numpy()[~kept]
            self.lost = self.lost[0] + len(gone), self.lost[1] + int(gone.sum())
            self.kept.add(table.filter(pa.array(kept)) if len(gone) else table)
            yield _decisions(table, kept, verdicts)

    def write_parts(
        self, tasks: Sequence[Task], out: Path, shards: ShardStore, engine: Engine, progress: Reporter
    ) -> None:
        """Write the survivors to `out/part-*.parquet`, one part per task that has any."""
        jobs: list[Task] = []
        parts: list[Path | int] = []  # a shard to be linked as it is, or the number of a job
        for file, count, task, verdicts in zip(self._files, self._counts, tasks, self._duplicates, strict=True):
            if not verdicts.num_rows and count:
                parts.append(file)
            elif _mask(count, verdicts).any():
                # By what the shard holds, not by its task, of which an opt-out of a document is no part.
                digest = fingerprint("part", shard_fingerprint(file), verdicts.drop_columns("twin").to_pylist())
                parts.append(len(jobs))
                place = self._scratch / f"part-{len(jobs)}"
                with pa.ipc.new_file(str(place), verdicts.schema) as writer:
                    writer.write_table(verdicts)
                jobs.append(Task(task.name, digest, (file, place)))
        with progress.task("exact duplicates", len(jobs), unit="shards") as counter:
            folders = shards.map(engine, write_part, jobs, on_done=lambda _: counter.advance())
        for number, part in enumerate(parts):
            place = part if isinstance(part, Path) else folders[part] / "documents.parquet"
            link(place, out / f"part-{number:05d}.parquet")

    def _stretches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """The metadata of all documents, some `_AT_ONCE` of them at a time, with the verdicts on them."""
        tables: list[pa.Table] = []
        found: list[pa.Table] = []
        rows = 0
        for file, verdicts in zip(self._files, self._duplicates, strict=True):
            start = 0
            for group in iter_row_groups(file, ["id", "path", *COLUMNS]):
                end = start + group.num_rows
                tables.append(group)
                if verdicts.num_rows:
                    found.append(between(verdicts, start, end, rows))
                start, rows = end, rows + group.num_rows
                if rows >= _AT_ONCE:
                    yield pa.concat_tables(tables), pa.concat_tables([VERDICT.empty_table(), *found])
                    tables, found, rows = [], [], 0
        if tables:
            yield pa.concat_tables(tables), pa.concat_tables([VERDICT.empty_table(), *found])


def _mask(rows: int, verdicts: pa.Table) -> NDArray[np.bool_]:
    """Which of these rows (rows,) are kept."""
    kept = np.ones(rows, dtype=np.bool_)
    kept[verdicts["row"].to_numpy()] = verdicts["kept"].to_numpy()
    return kept


def _decisions(table: pa.Table, kept: NDArray[np.bool_], verdicts: pa.Table) -> pa.Table:
    rows = table.num_rows
    files = np.ones(rows, dtype=np.float64)
    witnesses: list[str | None] = [None] * rows
    for row, standing, copies, twin in zip(
        *(verdicts[name].to_pylist() for name in ("row", "kept", "copies", "twin")), strict=True
    ):
        files[row] += copies
        more = "has one more copy" if copies == 1 else f"has {copies:,} more copies"
        witnesses[row] = more if standing else f"the same as {twin}"
    columns = {
        "id": table["id"],
        "repo": table["repo"],
        "path": table["path"],
        "step": pa.repeat(pa.scalar(STEP), rows),
        "value": pa.array(files),
        "threshold": pa.repeat(pa.scalar(ONE_COPY), rows),
        "kept": pa.array(kept),
        "witness": pa.array(witnesses, pa.string()),
    }
    return pa.table(columns, schema=DECISION)


def write_part(payload: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    """One part, in a worker: a shard's rows without those that stand for nothing, the others with their copies."""
    file, place = payload
    with pa.OSFile(str(place)) as opened:
        verdicts = pa.ipc.open_file(opened).read_all()
    gone = verdicts.filter(pc.invert(verdicts["kept"]))["row"].to_numpy()
    standing = verdicts.filter(verdicts["kept"])
    copies = dict(zip(standing["row"].to_pylist(), standing["places"].to_pylist(), strict=True))
    start = written = 0
    with TableWriter(folder / "documents.parquet", DOCUMENT) as writer:
        for group in iter_row_groups(file):
            rows = np.arange(start, start + group.num_rows)
            start += group.num_rows
            kept = ~np.isin(rows, gone)
            chosen = rows[kept]
            column = pa.array([copies.get(row, []) for row in chosen.tolist()], DOCUMENT.field("copies").type)
            index = group.schema.get_field_index("copies")
            writer.write_table(group.filter(pa.array(kept)).set_column(index, DOCUMENT.field("copies"), column))
            written += len(chosen)
    return {"documents": written}
