"""Exact duplicates across shards beside a dictionary that holds everything, with partitions of a few rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data import merge, spill
from kringle.data.licenses import license_label
from kringle.data.merge import Merge
from kringle.data.table import DECISION, CorruptTable, TableWriter, read_table, write_documents
from kringle.data.tally import COLUMNS, Tally
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task

# Two of these agree in the 64 bits by which suspects are found.
IDS = ["0" * 40, "0" * 39 + "1", "8" * 40, "f" * 40, "7" * 40, "3" * 40]
DOCUMENTS = st.builds(
    dict,
    id=st.sampled_from(IDS),
    repo=st.sampled_from(["a", "a/b", "c"]),
    path=st.sampled_from(["x", "b/x", "y"]),
    source=st.sampled_from(["folder", "git"]),
    revision=st.sampled_from(["", "1"]),
    licenses=st.sampled_from([[], ["MIT"], ["MIT", "GPL-2.0-only OR MIT"]]),
    language=st.sampled_from(["python", "java"]),
    stars=st.sampled_from([None, 0, 7]),
)


def document(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "content": row["id"], "size": int(row["id"][0], 16) + 1, "copies": []}


def place(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in merge.PLACE}


def expected(shards: list[list[dict[str, Any]]]) -> tuple[list[list[dict[str, Any]]], list[tuple[Any, ...]]]:
    """Parts and decisions, by a look at everything at once."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in (row for shard in shards for row in shard):
        groups.setdefault(row["id"], []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: (row["repo"], row["path"], row["source"], row["revision"]))
    parts = []
    decisions = []
    for shard in shards:
        part = []
        for row in shard:
            first, *others = groups[row["id"]]
            witness: str | None = f"the same as {first['repo']}/{first['path']}"
            if row is first:
                part.append({**row, "content_id": row["id"], "copies": [place(other) for other in others]})
                count = len(others)
                witness = f"has {'one more copy' if count == 1 else f'{count} more copies'}" if others else None
            threshold = "one file per content"
            count = float(1 + len(others))
            at = (row["id"], row["repo"], row["path"], "exact-duplicate")
            decisions.append((*at, count, threshold, row is first, witness))
        if part:
            parts.append(part)
    return parts, decisions


def merged(folder: Path, shards: list[list[dict[str, Any]]]) -> tuple[list[list[dict[str, Any]]], pa.Table, Merge]:
    """Parts, decisions and the merge, made from shards on disk."""
    folders = [folder / f"shard{number}" for number in range(len(shards))]
    for place, shard in zip(folders, shards, strict=True):
        place.mkdir()
        write_documents(place / "documents.parquet", shard)
    for name in ("out", "scratch"):
        (folder / name).mkdir()
    found = Merge(folders, [len(shard) for shard in shards], folder / "scratch")
    tasks = [Task(place.name, place.name, None) for place in folders]
    found.write_parts(tasks, folder / "out", ShardStore(folder / "store", ""), InThisProcess(), Reporter(quiet=True))
    with TableWriter(folder / "decisions.parquet", DECISION) as writer:
        for table in found.decisions():
            writer.write_table(table)
    parts: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "out").iterdir()):
        parts[path.name] = read_table(path).to_pylist()
    assert list(parts) == [f"part-{number:05d}.parquet" for number in range(len(parts))]
    return list(parts.values()), read_table(folder / "decisions.parquet"), found


class InThisProcess(Engine):
    """Shards one after the other: the examples are many and small."""

    def map(self, function: Any, payloads: Any, **_: Any) -> Any:
        return map(function, payloads)


@settings(max_examples=60, deadline=None)
@given(shards=st.lists(st.lists(DOCUMENTS, max_size=6), min_size=1, max_size=4), rows=st.sampled_from([1, 3, 1 << 18]))
def test_every_content_is_kept_once_in_the_first_of_its_places(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[dict[str, Any]]], rows: int
) -> None:
    documents = [[document(row) for row in shard] for shard in shards]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "ROWS", rows)
        patch.setattr(merge, "_AT_ONCE", rows)
        parts, decisions, found = merged(tmp_path_factory.mktemp("merge"), documents)
        repositories = found.kept.repositories()
    told, verdicts = expected(documents)
    assert parts == told
    assert [tuple(row.values()) for row in decisions.to_pylist()] == verdicts
    kept = [row for part in told for row in part]
    assert (found.kept.files, found.kept.bytes) == (len(kept), sum(row["size"] for row in kept))
    assert found.lost[0] == sum(len(shard) for shard in shards) - len(kept)
    assert repositories == len({row["repo"] for row in kept})


@settings(max_examples=40, deadline=None)
@given(st.lists(DOCUMENTS, max_size=20), st.integers(1, 5))
def test_counts_do_not_depend_on_how_documents_come(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("tally")
    documents = [document(row) for row in rows]
    write_documents(folder / "documents.parquet", documents)
    table = read_table(folder / "documents.parquet", list(COLUMNS))
    tally = Tally(len(rows), folder)
    for start in range(0, len(rows), cut):
        tally.add(table.slice(start, cut))
    for shares, name_of in (
        (tally.sources(), lambda row: row["source"]),
        (tally.languages(), lambda row: row["language"]),
        (tally.licenses(), lambda row: license_label(row["licenses"])),
    ):
        files = Counter(name_of(row) for row in documents)
        sizes = {name: sum(row["size"] for row in documents if name_of(row) == name) for name in files}
        assert shares == [
            {"name": name, "files": files[name], "bytes": sizes[name]}
            for name in sorted(files, key=lambda name: (-sizes[name], name))
        ]
    assert tally.stars_known == sum(row["stars"] is not None for row in documents)
    assert tally.repositories() == len({row["repo"] for row in documents})
    assert not tally.beyond_permissive()["MIT"]
    assert tally.beyond_permissive().total() == sum(row["licenses"] == [] for row in documents)


def test_a_shard_that_holds_more_than_it_says_is_named(tmp_path: Path) -> None:
    (tmp_path / "shard").mkdir()
    rows = [{"repo": "r", "path": str(i), "source": "s", "revision": "", "licenses": []} for i in range(2)]
    rows = [{**row, "id": id, "language": "python", "stars": None} for row, id in zip(rows, IDS, strict=False)]
    write_documents(tmp_path / "shard" / "documents.parquet", [document(row) for row in rows])
    with pytest.raises(CorruptTable, match="holds 2 documents, and its summary tells of 1"):
        Merge([tmp_path / "shard"], [1], tmp_path)
