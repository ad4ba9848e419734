"""ColumnCache that are read again: under any name of a file, never after it has changed, within bounds."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data import table
from kringle.data.columns import ColumnCache, Footer, Stamp, stamp_of
from kringle.data.table import DOCUMENT, SURVIVOR, CorruptTable, iter_row_groups, read_table, write_rows

ROWS = [[f"{i:040x}", "r", f"f{i}.py", "python", i] for i in range(5)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are opened, in a process that has read nothing so far."""
    found: list[Path] = []
    real = pq.ParquetFile

    def counted(path: Path, **named: Any) -> Any:
        found.append(path)
        return real(path, **named)

    monkeypatch.setattr(table, "_columns", ColumnCache())
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", counted)
    return found


def test_a_second_name_of_a_file_needs_no_second_look(tmp_path: Path, opened: list[Path]) -> None:
    write_rows(tmp_path / "a.parquet", SURVIVOR, ROWS)
    os.link(tmp_path / "a.parquet", tmp_path / "b.parquet")
    first = read_table(tmp_path / "a.parquet", ["size", "id"])
    assert read_table(tmp_path / "b.parquet", ["id"]).equals(first.select(["id"]))
    assert opened == [tmp_path / "a.parquet"]
    assert read_table(tmp_path / "b.parquet", ["path", "id"])["path"].to_pylist() == [row[2] for row in ROWS]
    assert opened == [tmp_path / "a.parquet", tmp_path / "b.parquet"]  # for one column


@pytest.mark.parametrize("columns", [None, ["id"], ["size", "id"], []])
def test_what_is_remembered_is_what_a_file_says(tmp_path: Path, columns: list[str] | None) -> None:
    write_rows(tmp_path / "a.parquet", SURVIVOR, ROWS)
    plain = pq.ParquetFile(tmp_path / "a.parquet").read_row_group(0, columns=columns)
    for _ in range(2):
        (group,) = iter_row_groups(tmp_path / "a.parquet", columns)
        assert group.equals(plain, check_metadata=True)
        assert group.num_rows == plain.num_rows


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for rows in (ROWS, ROWS[:2], ROWS[::-1]):
        path.unlink(missing_ok=True)
        write_rows(path, SURVIVOR, rows)
        assert read_table(path, ["size"])["size"].to_pylist() == [row[4] for row in rows]
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(CorruptTable):
        read_table(path, ["size"])


def test_columns_of_two_files_never_lie_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP_ROWS", 2)
    path, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_rows(path, SURVIVOR, ROWS)
    write_rows(other, SURVIVOR, ROWS[::-1])
    next(iter_row_groups(path, ["size"]))  # of the first group alone
    groups = iter_row_groups(path, ["size"])
    assert next(groups)["size"].to_pylist() == [0, 1]
    other.replace(path)
    with pytest.raises(CorruptTable, match="was replaced while it was read"):
        next(groups)
    assert read_table(path, ["id", "size"])["size"].to_pylist() == [row[4] for row in ROWS[::-1]]


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_rows(path, SURVIVOR, ROWS)
    read_table(path, ["id"])
    path.unlink()
    with pytest.raises(CorruptTable, match=r"a\.parquet"):
        read_table(path, ["id"])


def test_texts_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_columns", columns := ColumnCache())
    path = tmp_path / "a.parquet"
    row = dict.fromkeys(DOCUMENT.names, "") | {"size": 1, "stars": 1, "licenses": [], "copies": []}
    write_rows(path, DOCUMENT, [list(row.values())])

    def held() -> list[str]:
        return [name for name in DOCUMENT.names if columns.column(stamp_of(path), 0, name) is not None]

    read_table(path, ["id", "content"])
    read_table(path)
    list(iter_row_groups(path, ["path"], keep=False))
    assert held() == []
    read_table(path, ["id"])
    assert held() == ["id"]


STAMP = Stamp(1, 2, 3, 4)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=60))
@settings(deadline=None)
def test_never_more_than_the_limit_is_held(asked: list[tuple[int, int]]) -> None:
    columns = ColumnCache(limit=10_000)
    sizes: dict[int, int] = {}
    for group, length in asked:
        column = pa.chunked_array([pa.array(range(length), pa.int64())])
        if columns.column(STAMP, group, "x") is None:
            columns.keep(STAMP, group, "x", column)
            sizes[group] = column.get_total_buffer_size()
        there = [group for group in sizes if columns.column(STAMP, group, "x") is not None]
        assert sum(sizes[group] for group in there) <= 10_000


def test_what_was_asked_for_last_stays() -> None:
    column = pa.chunked_array([pa.array(range(100), pa.int64())])  # 800 bytes
    columns = ColumnCache(limit=4_000)
    for group in range(5):
        columns.keep(STAMP, group, "x", column)
    assert columns.column(STAMP, 0, "x") is not None
    columns.keep(STAMP, 5, "x", column)
    assert [group for group in range(6) if columns.column(STAMP, group, "x") is not None] == [0, 2, 3, 4, 5]


def test_a_fingerprint_is_worked_out_once_for_all_names_of_a_file(tmp_path: Path, opened: list[Path]) -> None:
    write_rows(tmp_path / "a.parquet", SURVIVOR, ROWS)
    os.link(tmp_path / "a.parquet", tmp_path / "b.parquet")
    first = table.shard_fingerprint(tmp_path / "a.parquet")
    read_table(tmp_path / "b.parquet", ["id"])
    opened.clear()
    assert table.shard_fingerprint(tmp_path / "b.parquet") == first
    assert not opened
    write_rows(tmp_path / "c.parquet", SURVIVOR, ROWS[::-1])
    assert table.shard_fingerprint(tmp_path / "c.parquet") != first


def test_shards_share_a_schema() -> None:
    columns = ColumnCache()
    for inode in range(2):
        same = pa.schema([pa.field("id", pa.string())])
        columns.keep_footer(STAMP._replace(inode=inode), Footer(same, (inode,)))
    first, second = (columns.footer(STAMP._replace(inode=inode)) for inode in range(2))
    assert first is not None
    assert second is not None
    assert first.schema is second.schema
    assert (first.rows, second.rows) == ((0,), (1,))


def test_threads_may_share_it() -> None:
    columns = ColumnCache(limit=3_000)
    column = pa.chunked_array([pa.array(range(50), pa.int64())])
    faults: list[Exception] = []

    def work(seed: int) -> None:
        try:
            for i in range(3_000):
                group = (i * 7 + seed) % 13
                if columns.column(STAMP, group, "x") is None:
                    columns.keep(STAMP, group, "x", column)
                columns.keep_footer(STAMP._replace(inode=i), Footer(SURVIVOR, (1,)))
        except Exception as error:
            faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not faults
