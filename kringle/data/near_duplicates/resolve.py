"""Who stays of the documents that have candidates: their exact shingle sets, then component by component the verdicts.

Shingle sets are kept by shard. Components, as many as one chunk of shingles has room for, are a task of the engine's
workers, which read from the shards' files what belongs to it. Of a component that is larger than a chunk the shingles
lie in a file; its keys and the table of them are held, one to two kilobytes for each of its documents.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
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


class Chunk(NamedTuple):
    """Components to be decided on together: the numbers of their documents (M,), component by component, of which each
    begins and ends at one of the `borders` (components + 1,). `shard` (M,) is the place in `signed` and `spilled` of
    the folders that have a document's signatures and its shingles, `row` (M,) its row among those signatures, `begin`
    (M,) and `length` (M,) where its shingles are among those."""

    numbers: NDArray[np.int64]
    borders: NDArray[np.int64]
    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    signed: Sequence[Path]
    spilled: Sequence[Path]
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
    spilled = dict(zip(tasks, store.map(engine, shingle, list(tasks.values())), strict=True))
    places = [np.load(folder / "places.npy") for folder in spilled.values()]  # of a shard's members, row by row
    at = np.searchsorted(ordered, members)
    begin, length = (
        np.concatenate([own[:-1] for own in places])[at],
        np.concatenate([np.diff(own) for own in places])[at],
    )
    del ordered, places, at
    home = np.searchsorted(starts, members, side="right") - 1
    row = members - starts[home]
    chunks = []
    for first, last in pairwise(_cuts(np.add.reduceat(length, borders[:-1]))):
        own = slice(borders[first], borders[last])
        homes, shard_of = np.unique(home[own], return_inverse=True)
        chunks.append(
            Chunk(
                numbers=members[own],
                borders=borders[first : last + 1] - borders[first],
                shard=shard_of,
                row=row[own],
                begin=begin[own],
                length=length[own],
                signed=[signed[i] for i in homes.tolist()],
                spilled=[spilled[i] for i in homes.tolist()],
                method=method,
                most=CHUNK_SHINGLES,
                spill=store.root,
            )
        )
    yield from engine.map(decide, chunks, names=[f"near-duplicates, chunk {i}" for i in range(len(chunks))])


def _cuts(sizes: NDArray[np.int64]) -> list[int]:
    """Where to cut components of these sizes in shingles (C,) into chunks: 0, ..., C. A chunk has no more than
    `CHUNK_SHINGLES`, or is a single component."""
    cuts, size = [0], 0
    for component, own in enumerate(sizes.tolist()):
        if component > cuts[-1] and size + own > CHUNK_SHINGLES:
            cuts.append(component)
            size = 0
        size += own
    return [*cuts, len(sizes)]


# -- in a worker -------------------------------------------------------------------------------------------------------


def shingle(payload: tuple[Shard, Method, NDArray[np.int64]], folder: Path) -> dict[str, Any]:
    """One shard: the exact shingle sets of some of its rows, `sets.npy` and `places.npy` (rows + 1,)."""
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
    return {"documents": len(rows)}


def _of_shards(shard: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each shard, and which of the documents (M,) are its own, of those whose shards these are (M,)."""
    order = np.argsort(shard, kind="stable")
    cuts = np.searchsorted(shard[order], np.arange(int(shard.max()) + 2)) if len(shard) else np.zeros(1, np.int64)
    for number, (first, last) in enumerate(pairwise(cuts.tolist())):
        yield number, order[first:last]


def _matrix(chunk: Chunk, name: str, rows: int) -> NDArray[np.uint64]:
    """The documents' columns (rows, M) of the shards' matrices of this name."""
    out = np.empty((rows, len(chunk.numbers)), dtype=np.uint64)
    for shard, own in _of_shards(chunk.shard):
        out[:, own] = np.load(chunk.signed[shard] / name, mmap_mode="r")[:, chunk.row[own]]
    return out


def _sets(chunk: Chunk) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The documents' shingles end to end, and where each one's begin (M + 1,)."""
    places = np.concatenate([[0], np.cumsum(chunk.length)]).astype(np.int64)
    out = _room(int(places[-1]), chunk.most, chunk.spill)
    for shard, own in _of_shards(chunk.shard):
        sets = np.load(chunk.spilled[shard] / "sets.npy", mmap_mode="r")
        for i, begin, length in zip(own.tolist(), chunk.begin[own].tolist(), chunk.length[own].tolist(), strict=True):
            out[places[i] : places[i] + length] = sets[begin : begin + length]
    return out, places


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
    method, borders = chunk.method, chunk.borders
    if method.rule == "verified":  # the best of each component first
        component = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
        best = np.lexsort((chunk.numbers, *_matrix(chunk, "ranks.npy", RANKS)[::-1], component))
        fields = ("numbers", "shard", "row", "begin", "length")
        chunk = chunk._replace(**{name: getattr(chunk, name)[best] for name in fields})
    numbers = chunk.numbers
    sets, places = _sets(chunk)
    keys = np.ascontiguousarray(_matrix(chunk, "keys.npy", method.bands.bands).T)
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
