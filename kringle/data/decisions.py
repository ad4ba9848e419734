"""A stage's decisions: a folder of Parquet files with the columns of `DECISION`, one after the other.

Those that a shard has taken stay in its file, which gets a second name here; only what is decided over all shards is
written anew with every run. So what a corpus grows by is what its decisions cost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from kringle.data.table import DECISION, CorruptTable, TableWriter, iter_row_groups, link

FOLDER = "decisions"


class DecisionFiles:
    """Makes the decisions of a stage that writes into `out`, file by file, in the order in which they are to be read.

    What a killed run left of them is removed.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._count = 0

    def link(self, file: Path) -> None:
        """Take a shard's finished file as it is."""
        link(file, self._next())

    def write(self, tables: Iterable[pa.Table]) -> None:
        """Add a file with the rows of these tables."""
        with TableWriter(self._next(), DECISION) as writer:
            writer.write_tables(tables)

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"part-{self._count - 1:05d}.parquet"


def decision_files(stage: Path) -> list[Path]:
    """The files of a stage's decisions, in their order; `CorruptTable` when there are none."""
    files = sorted((stage / FOLDER).glob("part-*.parquet"))
    if not files:
        raise CorruptTable(str(stage / FOLDER), "holds no decisions")
    return files


def iter_decisions(stage: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """A stage's decisions, or some of their columns, a row group at a time. `CorruptTable` names an unreadable file."""
    for file in decision_files(stage):
        yield from iter_row_groups(file, columns)


def read_decisions(stage: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A stage's decisions as one table, or some of their columns."""
    schema = pa.schema([DECISION.field(name) for name in columns or DECISION.names])
    return pa.concat_tables([schema.empty_table(), *iter_decisions(stage, columns)])
