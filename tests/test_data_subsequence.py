from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data import table
from kringle.data.subsequence import chosen_of, chosen_rows, mark_of
from kringle.data.table import CorruptTable, TableWriter, read_table, write_rows

IDS = pa.schema([pa.field("id", pa.string())])


def id_of(number: int) -> str:
    return f"{number * 7919 % 100_003:040x}"  # in no order of its own


def write_parts(folder: Path, sizes: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    first = 0
    for number, size in enumerate(sizes):
        write_rows(folder / f"part-{number:05d}.parquet", IDS, [(id_of(i),) for i in range(first, first + size)])
        first += size


def tables(numbers: list[int], rows: int) -> list[pa.Table]:
    cut = [numbers[first : first + rows] for first in range(0, len(numbers), rows)]
    return [pa.table([[id_of(i) for i in part]], schema=IDS) for part in cut]


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.sets(st.integers(0, 29)), st.integers(1, 9))
def test_each_shard_gets_the_rows_that_are_named(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], numbers: set[int], rows: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "documents"
    write_parts(folder, sizes)
    wanted = sorted(number for number in numbers if number < sum(sizes))
    starts = np.cumsum([0, *sizes])
    chosen = list(chosen_rows(folder, tables(wanted, rows), IDS))
    assert [one.part.name for one in chosen] == [f"part-{number:05d}.parquet" for number in range(len(sizes))]
    assert [int(start + row) for one, start in zip(chosen, starts, strict=False) for row in one.rows] == wanted
    for one in chosen:
        assert read_table(one.part, ["id"]).take(one.rows) == one.own


@pytest.mark.parametrize("numbers", [[3, 2], [0, 5, 4, 9], [9, 0], [1, 99], [99], [0, 1, 2, 2]])
def test_another_order_and_unknown_ids_are_told(tmp_path: Path, numbers: list[int]) -> None:
    write_parts(tmp_path / "documents", [4, 6])
    write_rows(tmp_path / "chosen.parquet", IDS, [(id_of(number),) for number in numbers])
    with pytest.raises(CorruptTable, match=r"order"):
        list(chosen_of(tmp_path / "documents", tmp_path / "chosen.parquet", IDS))


def test_a_mark_is_of_the_shard_and_of_the_rows(tmp_path: Path) -> None:
    write_parts(tmp_path / "documents", [4, 4])
    first, second = sorted((tmp_path / "documents").iterdir())
    marks = {mark_of(part, np.array(rows)) for part in (first, second) for rows in ([0, 1], [0, 2], [1], [0, 1, 2])}
    assert len(marks) == 8
    assert mark_of(first, np.array([1, 2])) == mark_of(first, np.array([1, 2], dtype=np.int32))


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_tables_are_written_in_the_groups_in_which_rows_are(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [(id_of(number),) for number in range(sum(sizes))]
    cuts = list(accumulate(sizes, initial=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ROW_GROUP_ROWS", group)
        assert write_rows(folder / "rows.parquet", IDS, rows) == len(rows)
        with TableWriter(folder / "tables.parquet", IDS) as writer:
            parts = (pa.table([[row[0] for row in rows[a:b]]], schema=IDS) for a, b in pairwise(cuts))
            assert writer.write_tables(parts) == len(rows)
    assert (folder / "rows.parquet").read_bytes() == (folder / "tables.parquet").read_bytes()
