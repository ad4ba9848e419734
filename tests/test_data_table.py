from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data import table
from kringle.data.table import DECISION, CorruptTable, Decision, iter_documents, read_table, write_documents, write_rows
from kringle.engine import Engine
from kringle.errors import ShardError


def document(number: int, content: str = "x = 1\n") -> dict[str, Any]:
    return {
        "id": f"{number:040x}",
        "content": content,
        "path": f"f{number}.py",
        "repo": "r",
        "language": "python",
        "size": len(content.encode()),
        "licenses": ("MIT", "BSD-3-Clause"),
        "stars": None,
        "source": "folder",
        "revision": "",
        "copies": [{"source": "git", "repo": "s", "path": "g.py", "revision": "abc", "licenses": []}],
    }


def test_documents_come_back_as_written(tmp_path: Path) -> None:
    contents = ["\ufeffprint()\r\n", "é\u2028\x0c𝄞\n" * 3, "<|endoftext|>", "\x01"]
    write_documents(tmp_path / "part-00000.parquet", (document(i, c) for i, c in enumerate(contents)))
    read = list(iter_documents(tmp_path))
    assert [d["content"] for d in read] == contents
    assert read[0]["licenses"] == ["MIT", "BSD-3-Clause"]
    assert read[0]["copies"][0]["repo"] == "s"
    assert read[0]["stars"] is None
    assert list(iter_documents(tmp_path, ["path"]))[1] == {"path": "f1.py"}


def test_row_groups_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP_BYTES", 1000)
    write_documents(tmp_path / "part-00000.parquet", (document(i, "y" * 400) for i in range(10)))
    metadata = pq.ParquetFile(tmp_path / "part-00000.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 3, 3, 1]
    assert len(list(iter_documents(tmp_path))) == 10


def test_shards_are_read_in_order_and_their_absence_is_an_error(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_documents(tmp_path / f"part-{number:05d}.parquet", [document(number)])
    assert [d["path"] for d in iter_documents(tmp_path)] == ["f0.py", "f1.py", "f2.py"]
    with pytest.raises(CorruptTable, match=r"holds no part-"):
        list(iter_documents(tmp_path / "missing"))


@pytest.mark.parametrize("cut", [0, 3, 100, -200, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "part-00000.parquet"
    write_documents(path, (document(i, f"{i} " * 5000) for i in range(50)))
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    with pytest.raises(CorruptTable, match=r"part-00000\.parquet"):
        list(iter_documents(tmp_path))


def test_a_flipped_bit_never_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_documents(path, (document(i, f"{i * 7919} " * 500) for i in range(200)))
    whole, data = read_table(path), path.read_bytes()
    noticed = 0
    for place in range(4, len(data), len(data) // 150):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            read = read_table(path, whole.schema.names)
        except CorruptTable:
            noticed += 1
        else:
            assert read.equals(whole)
    assert noticed > 75


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_documents(tmp_path / "part-00000.parquet", [document(0)])
    with pytest.raises(CorruptTable, match=r"part-00000\.parquet.* lacks the column hexsha"):
        list(iter_documents(tmp_path, ["content", "hexsha"]))


def _read_all(path: Path) -> int:
    return read_table(path).num_rows


def test_a_damaged_shard_is_named_from_a_worker_too(tmp_path: Path) -> None:
    path = tmp_path / "part-00007.parquet"
    path.write_bytes(b"PAR1 nothing else")
    with pytest.raises(ShardError, match=r"part-00007\.parquet"):
        list(Engine(1).map(_read_all, [path], names=["seven"]))
    error = pickle.loads(pickle.dumps(CorruptTable("a.parquet", "is cut short")))
    assert isinstance(error, CorruptTable)
    assert "a.parquet" in str(error)


def test_decisions_and_empty_tables(tmp_path: Path) -> None:
    rows = [
        Decision(None, "r", "a.py", "size", 3.0, "1 to 5 bytes", True),
        Decision("0" * 40, "r", "a.py", "read", None, "UTF-8 text", False, "binary"),
    ]
    assert write_rows(tmp_path / "decisions.parquet", DECISION, rows) == 2
    assert read_table(tmp_path / "decisions.parquet")["witness"].to_pylist() == [None, "binary"]
    assert write_rows(tmp_path / "none.parquet", DECISION, []) == 0
    assert read_table(tmp_path / "none.parquet", ["step"]).schema.names == ["step"]
    assert read_table(tmp_path / "none.parquet").num_rows == 0


def test_the_fingerprint_of_a_shard_follows_its_rows(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"part-0000{i}.parquet" for i in range(3))
    write_documents(a, [document(1), document(2)])
    write_documents(b, [document(1), document(2)])
    write_documents(c, [document(1), document(3)])
    assert table.shard_fingerprint(a) == table.shard_fingerprint(b) != table.shard_fingerprint(c)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 9), max_size=8), rows=st.integers(1, 7))
def test_row_groups_are_full_whatever_the_tables(counts: list[int], rows: int) -> None:
    numbers = iter(range(1000))
    tables = [pa.table({"n": pa.array([next(numbers) for _ in range(count)], pa.int64())}) for count in counts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ROW_GROUP_ROWS", rows)
        groups = list(table.in_row_groups(tables))
    assert [n for group in groups for n in group["n"].to_pylist()] == list(range(sum(counts)))
    assert all(group.num_rows == rows for group in groups[:-1])
    assert all(0 < group.num_rows <= rows and group["n"].num_chunks == 1 for group in groups)
