"""Exact duplicates among the documents of many shards, found with a bounded amount of memory.

Ids are partitioned by their leading digits into files, twice: first their leading 64 bits alone, of which a sort says
who may have a twin; then, for those few, what decides between twins. Verdicts come back shard by shard. Memory holds a
byte for each document, and one partition (`kringle.data.spill`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.spill import Spill, partitions_for
from kringle.data.table import COPY, DOCUMENT, CorruptTable, iter_row_groups

_ORDER = ("id", "repo", "path", "source", "revision")
_PLACE = [field.name for field in COPY]
_KEY = pa.schema([pa.field("key", pa.uint64()), pa.field("row", pa.int64())])
_CANDIDATE = pa.schema(
    [pa.field("row", pa.int64()), *(DOCUMENT.field(name) for name in dict.fromkeys((*_ORDER, *_PLACE)))]
)
VERDICT = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("kept", pa.bool_()),  # whether it stands for its content
        pa.field("copies", pa.int64()),  # how many other files have the same bytes
        pa.field("twin", pa.string()),  # of one that is not kept: "repo/path" of the one that stands for it
        DOCUMENT.field("copies").with_name("places"),  # of one that is kept: where the others lie
    ]
)


class Duplicates:
    """The documents of several shards with exact duplicates told apart.

    Of those with equal ids the one with the smallest (repo, path, source, revision) stands for all, the earliest of
    several that are equal in these too. `counts` are the documents of each shard. `scratch` is a folder for files;
    whoever gave it removes it.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], scratch: Path) -> None:
        self._scratch, self._counts = scratch, counts
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.rows = int(self._starts[-1])
        suspects = _suspects(_keys(files, counts, scratch), self.rows)
        self._verdicts = Spill(scratch, "verdicts", VERDICT, partitions_for(self.rows))
        if suspects.any():
            candidates = self._candidates(files, suspects)
            for number in range(candidates.count):
                verdicts = _judged(candidates.read(number))
                self._verdicts.write(verdicts, self._block(verdicts["row"].to_numpy()))
        self._verdicts.close()

    def __iter__(self) -> Iterator[pa.Table]:
        """For each shard, as `VERDICT`, what was found of those that have duplicates; rows are the shard's, rising."""
        loaded, block = -1, VERDICT.empty_table()
        for start, end in zip(self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True):
            found = [VERDICT.empty_table()]
            blocks = self._block(np.array([start, max(start, end - 1)])).tolist()
            for number in range(blocks[0], blocks[1] + 1):
                if number != loaded:
                    loaded, block = number, self._verdicts.read(number).sort_by("row").combine_chunks()
                if block.num_rows:
                    found.append(between(block, start, end, 0))
            yield found[-1] if len(found) < 3 else pa.concat_tables(found)

    def _block(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which part of all rows each of these lies in: verdicts are kept by these."""
        return rows * self._verdicts.count // max(1, self.rows)

    def _candidates(self, files: Sequence[Path], suspects: NDArray[np.bool_]) -> Spill:
        """What decides between twins, of the rows that may have one."""
        spill = Spill(self._scratch, "candidates", _CANDIDATE, partitions_for(self.rows))
        for file, start, count in zip(files, self._starts[:-1].tolist(), self._counts, strict=True):
            if not suspects[start : start + count].any():
                continue
            for group in iter_row_groups(file, _CANDIDATE.names[1:]):
                rows = start + np.flatnonzero(suspects[start : start + group.num_rows])
                chosen = group.take(rows - start).select(_CANDIDATE.names[1:])
                start += group.num_rows
                partitions = _partition(_leading(chosen["id"]), spill.count)
                spill.write(chosen.add_column(0, _CANDIDATE.field("row"), pa.array(rows)), partitions)
        spill.close()
        return spill


def between(verdicts: pa.Table, start: int, end: int, at: int) -> pa.Table:
    """The verdicts on rows from `start` on and before `end`, of verdicts with rising rows, as if `start` were `at`."""
    first, last = np.searchsorted(verdicts["row"].to_numpy(), [start, end])
    if first == last:  # as of most shards
        return VERDICT.empty_table()
    found = verdicts.slice(first, last - first)
    return found.set_column(0, VERDICT.field("row"), pc.add(found["row"], at - start))


def _leading(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The leading 64 bits of ids, which are SHA-1 in hexadecimal."""
    digests = np.frombuffer(bytes.fromhex("".join(ids.to_pylist())), dtype=np.uint8).reshape(-1, 20)
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)


def _partition(keys: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """Partitions by leading digits: equal shares of all keys, in their order."""
    return ((keys >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def _keys(files: Sequence[Path], counts: Sequence[int], scratch: Path) -> Spill:
    """The leading bits of all ids, with their rows."""
    spill = Spill(scratch, "keys", _KEY, partitions_for(sum(counts)))
    start = end = 0
    for file, count in zip(files, counts, strict=True):
        end += count
        for group in iter_row_groups(file, ["id"]):
            keys, rows = _leading(group["id"]), np.arange(start, start + group.num_rows)
            spill.write(pa.table({"key": keys, "row": rows}, schema=_KEY), _partition(keys, spill.count))
            start += group.num_rows
        if start != end:
            raise CorruptTable(
                str(file), f"holds {start - end + count:,} documents, and its summary tells of {count:,}"
            )
    spill.close()
    return spill


def _suspects(keys: Spill, rows: int) -> NDArray[np.bool_]:
    """Rows (rows,) whose key another row has too."""
    suspects = np.zeros(rows, dtype=np.bool_)
    for number in range(keys.count):
        table = keys.read(number)
        found = table["key"].to_numpy()
        order = np.argsort(found)
        equal = np.diff(found[order]) == 0
        twin = np.zeros(len(order), dtype=np.bool_)
        twin[1:] |= equal
        twin[:-1] |= equal
        suspects[table["row"].to_numpy()[order[twin]]] = True
    return suspects


def _judged(candidates: pa.Table) -> pa.Table:
    """Verdicts on candidates, among which are all those with the same id; none on one that has no twin after all."""
    candidates = candidates.combine_chunks()
    order = pc.sort_indices(candidates, sort_keys=[(name, "ascending") for name in _ORDER])  # stable: rows come rising
    table = candidates.take(order)
    first = np.ones(table.num_rows, dtype=np.bool_)
    if table.num_rows > 1:
        first[1:] = pc.not_equal(table["id"].slice(1), table["id"].slice(0, table.num_rows - 1)).to_numpy()
    size = np.diff(np.append(np.flatnonzero(first), table.num_rows))
    several = np.repeat(size > 1, size)
    kept, gone = table.filter(pa.array(first & several)), table.filter(pa.array(~first))
    others = size[size > 1] - 1
    names = pc.binary_join_element_wise(kept["repo"], kept["path"], "/").take(np.repeat(np.arange(len(others)), others))
    places = pa.StructArray.from_arrays(
        [gone[name].combine_chunks() for name in _PLACE], fields=[COPY.field(name) for name in _PLACE]
    )
    offsets = pa.array(np.append(0, np.cumsum(others)), pa.int32())
    type = VERDICT.field("places").type
    standing = {
        "row": kept["row"],
        "kept": pa.array(np.ones(len(others), dtype=np.bool_)),
        "copies": pa.array(others, pa.int64()),
        "twin": pa.nulls(len(others), pa.string()),
        "places": pa.ListArray.from_arrays(offsets, places, type=type),
    }
    others_of = {
        "row": gone["row"],
        "kept": pa.array(np.zeros(gone.num_rows, dtype=np.bool_)),
        "copies": pa.array(np.repeat(others, others), pa.int64()),
        "twin": names,
        "places": pa.nulls(gone.num_rows, type),
    }
    return pa.concat_tables([pa.table(columns, schema=VERDICT) for columns in (standing, others_of)])
