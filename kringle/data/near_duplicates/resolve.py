"""Who stays of the documents that have candidates: their exact shingle sets, then component by component the verdicts.

Shingle sets are kept by shard. Components, as many as one chunk of shingles has room for, are a task of the engine's
workers, which read from the shards' files what belongs to it. Of a component that is larger than a chunk the shingles
lie in a file; its keys and the table of them are held, one to two kilobytes for each of its documents.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.near_duplicates.inputs import RANKS, Shard, batches, texts
from kringle.data.near_duplicates.method import Method
from kringle.data.near_duplicates.shingles import shingle_sets
from kringle.data.near_duplicates.verify import extremes, verified
from kringle.engine import Engine
from kringle.workspace import ShardStore, Task, fingerprint

CHUNK_SHINGLES = 1 << 23  # shingles of the components that are resolved at once, and held in memory: 64 MB


class Gone(NamedTuple):
    """Documents that are dropped: their `numbers` (M,), and as in `find.Outcome` the witness, similarity and contained
    share of each (M,)."""

    numbers: NDArray[np.int64]
    witness: NDArray[np.int64]
    similarity: NDArray[np.float64]
    contained: NDArray[np.float64]


class _Files(NamedTuple):
    """Folders of a shard's signatures, and of the shingle sets of some of its documents, whose rows are `rows.npy`."""

    signatures: Path
    sets: Path


class Chunk(NamedTuple):
    """Components to be decided on together: the numbers of their documents (M,), component by component, of which each
    begins and ends at one of the `borders` (components + 1,). `first` (shards,) are the numbers of the first documents
    of the shards that any of them lies in, `files` those shards' files."""

    numbers: NDArray[np.int64]
    borders: NDArray[np.int64]
    first: NDArray[np.int64]
    files: Sequence[_Files]
    method: Method
    most: int  # shingles in memory
    spill: Path  # where a file for more of them may lie


def resolve(
    members: NDArray[np.int64],
    borders: NDArray[np.int64],
    shards: Sequence[Shard],
    signed: Sequence[Path],
    starts: NDArray[np.int64],
    method: Method,
    store: ShardStore,
    engine: Engine,
) -> Iterator[Gone]:
    """Decide on the documents that have candidates: their numbers (M,), component by component between the `borders`
    (components + 1,). `signed` are the folders of the shards' signatures, `starts` (shards + 1,) number the documents.
    """
    ordered = np.sort(members)
    cuts = np.searchsorted(ordered, starts)
    tasks: dict[int, Task] = {}
    for i, shard in enumerate(shards):
        if len(rows := ordered[cuts[i] : cuts[i + 1]] - starts[i]):
            name = fingerprint("shingles", shard.fingerprint, shard.columns, method, rows.tolist())
            tasks[i] = Task(shard.path.name, name, (shard, method, rows))
    done = store.map(engine, shingle, list(tasks.values()))
    files = {i: _Files(signed[i], folder) for i, folder in zip(tasks, done, strict=True)}
    lengths = np.concatenate([np.diff(np.load(sets / "places.npy")) for _, sets in files.values()])  # as in `ordered`
    sizes = np.add.reduceat(lengths[np.searchsorted(ordered, members)], borders[:-1])
    chunks = []
    first = 0
    while first < len(sizes):
        last = first + 1
        size = int(sizes[first])
        while last < len(sizes) and size + sizes[last] <= CHUNK_SHINGLES:
            size += int(sizes[last])
            last += 1
        numbers = members[borders[first] : borders[last]]
        within = np.unique(np.searchsorted(starts, numbers, side="right") - 1)
        own = borders[first : last + 1] - borders[first]
        chunks.append(
            Chunk(
                numbers, own, starts[within], [files[i] for i in within.tolist()], method, CHUNK_SHINGLES, store.root
            )
        )  # fmt: skip
        first = last
    yield from engine.map(decide, chunks, names=[f"near-duplicates, chunk {i}" for i in range(len(chunks))])


# -- in a worker -------------------------------------------------------------------------------------------------------


def shingle(payload: tuple[Shard, Method, NDArray[np.int64]], folder: Path) -> dict[str, Any]:
    """One shard: the exact shingle sets of some of its rows, `sets.npy`, `places.npy` (rows + 1,) and `rows.npy`."""
    shard, method, rows = payload
    sets: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int64]] = []
    first = 0
    for table in batches(shard, [shard.columns.content]):
        low, high = np.searchsorted(rows, [first, first + table.num_rows])
        if low < high:
            data, offsets = texts(table[shard.columns.content], str(shard.path))
            real = method.rule == "verified"
            shortest = method.shortest if real else 0
            chosen = rows[low:high] - first
            found, places = shingle_sets(data, offsets, chosen, method.ngram, shortest, method.word, real)
            sets.append(found)
            lengths.append(np.diff(places))
        first += table.num_rows
    np.save(folder / "sets.npy", np.concatenate([np.zeros(0, np.uint64), *sets]))
    np.save(folder / "places.npy", np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]))]))
    np.save(folder / "rows.npy", rows)
    return {"documents": len(rows)}


class _Members:
    """Keys, ranks and shingle sets of a chunk's documents, read from the shards' files as they are asked for."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._rows = [np.load(file.sets / "rows.npy") for file in chunk.files]

    def _home(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """(shard, positions among `numbers`, rows in the shard)"""
        shard = np.searchsorted(self._chunk.first, numbers, side="right") - 1
        for s in np.unique(shard):
            positions = np.flatnonzero(shard == s)
            yield int(s), positions, numbers[positions] - self._chunk.first[s]

    def _matrix(self, numbers: NDArray[np.int64], name: str, rows: int) -> NDArray[np.uint64]:
        """Columns (rows, M) of the shards' matrices of this name"""
        out = np.empty((rows, len(numbers)), dtype=np.uint64)
        for shard, positions, own in self._home(numbers):
            out[:, positions] = np.load(self._chunk.files[shard].signatures / name, mmap_mode="r")[:, own]
        return out

    def keys(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(M, bands)"""
        return np.ascontiguousarray(self._matrix(numbers, "keys.npy", self._chunk.method.bands.bands).T)

    def ranks(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(RANKS, M)"""
        return self._matrix(numbers, "ranks.npy", RANKS)

    def sets(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Shingles end to end, and where each document's begin (M + 1,)"""
        homes = [
            (shard, positions, np.searchsorted(self._rows[shard], own), self._places(shard))
            for shard, positions, own in self._home(numbers)
        ]
        lengths = np.empty(len(numbers), dtype=np.int64)
        for _, positions, at, source in homes:
            lengths[positions] = source[at + 1] - source[at]
        places = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        out = _room(int(places[-1]), self._chunk.most, self._chunk.spill)
        for shard, positions, at, source in homes:
            sets = np.load(self._chunk.files[shard].sets / "sets.npy", mmap_mode="r")
            for position, place in zip(positions.tolist(), at.tolist(), strict=True):
                out[places[position] : places[position + 1]] = sets[source[place] : source[place + 1]]
        return out, places

    def _places(self, shard: int) -> NDArray[np.int64]:
        places: NDArray[np.int64] = np.load(self._chunk.files[shard].sets / "places.npy")
        return places


def _room(shingles: int, most: int, folder: Path) -> NDArray[np.uint64]:
    """An array for so many shingles (`shingles`,), its contents undefined. One that is larger than `most` is a file
    without a name, whose pages the system can write out and drop. Raises OSError where the disk is too full."""
    if shingles <= most:
        return np.empty(shingles, dtype=np.uint64)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none; there a full disk is a bus error
            os.posix_fallocate(file.fileno(), 0, 8 * shingles)
        return np.asarray(np.memmap(file, np.uint64, "r+", shape=(shingles,)))


def decide(chunk: Chunk) -> Gone:
    """Which documents of a chunk are dropped."""
    numbers, borders, method, source = chunk.numbers, chunk.borders, chunk.method, _Members(chunk)
    if method.rule == "verified":
        component = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
        numbers = numbers[np.lexsort((numbers, *source.ranks(numbers)[::-1], component))]
    sets, places = source.sets(numbers)
    keys = source.keys(numbers)
    witness = np.full(len(numbers), -1, dtype=np.int64)
    similarity = np.full(len(numbers), np.nan)
    contained = np.full(len(numbers), np.nan)
    if method.rule == "verified":
        verified(sets, places, keys, borders, method.threshold, witness, similarity, contained)
    else:
        for i in range(len(borders) - 1):
            part = slice(borders[i], borders[i + 1])
            found, value = extremes(sets, places[borders[i] : borders[i + 1] + 1], keys[part], method.threshold)
            witness[part] = np.where(found >= 0, found + borders[i], -1)
            similarity[part] = value
    dropped = witness >= 0
    return Gone(numbers[dropped], numbers[witness[dropped]], similarity[dropped], contained[dropped])
