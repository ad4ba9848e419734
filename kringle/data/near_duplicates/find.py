"""Near-duplicates of a corpus in shards, step by step: signatures, candidates, exact sets of the candidates, survivors.

The first and third step read text, run in the engine's workers, and are kept by shard, so a changed shard costs its own
signatures and no others. The rest works on 8-byte keys. Text is never held: a worker's memory is a row group, this
process' a few dozen bytes a document and one chunk of components. Of a component that is larger than a chunk the
shingles lie in a file; its keys and the table of them are held, one to two kilobytes for each of its documents.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.near_duplicates.candidates import components
from kringle.data.near_duplicates.inputs import RANKS, Shard, batches, ranks, texts
from kringle.data.near_duplicates.method import Method
from kringle.data.near_duplicates.shingles import shingle_sets
from kringle.data.near_duplicates.verify import extremes, verified
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint

CHUNK_SHINGLES = 1 << 23  # shingles of the components that are resolved at once, and held in memory: 64 MB


class Outcome(NamedTuple):
    """Of N documents in the shards' order: `kept` (N,); `witness` (N,) the document that one which was dropped gave way
    to, -1 where there is none; `similarity` (N,) their exact Jaccard similarity, NaN where it was not asked for;
    `contained` (N,) the share of its shingles that the witness has; `component` (N,) the smallest number of those that
    it is connected with; `tokens` (N,)."""

    kept: NDArray[np.bool_]
    witness: NDArray[np.int64]
    similarity: NDArray[np.float64]
    contained: NDArray[np.float64]
    component: NDArray[np.int64]
    tokens: NDArray[np.int64]


def find(
    shards: Sequence[Shard],
    method: Method,
    store: ShardStore,
    engine: Engine,
    progress: Reporter,
    *,
    considered: NDArray[np.bool_] | None = None,
    group: NDArray[np.uint64] | None = None,
) -> Outcome:
    """Decide which documents of the shards stay. Those not `considered` (N,) take no part: they stay, and are nobody's
    witness. Documents of different `group` (N,) are never compared."""
    sizes = sum(shard.path.stat().st_size for shard in shards)
    tasks = [
        Task(s.path.name, fingerprint("signatures", s.fingerprint, s.columns, method), (s, method)) for s in shards
    ]
    with progress.task(f"near-duplicates {method.name}", sizes / 1e6, unit="MB") as counter:
        folders = store.map(engine, sign, tasks, on_done=lambda i: counter.advance(shards[i].path.stat().st_size / 1e6))
    counted = [np.load(folder / "tokens.npy") for folder in folders]
    starts = np.concatenate([[0], np.cumsum([len(own) for own in counted])]).astype(np.int64)
    tokens = np.concatenate([np.zeros(0, np.int64), *counted])
    total = int(starts[-1])
    considered = np.ones(total, dtype=np.bool_) if considered is None else considered
    eligible = considered if method.rule == "verified" else considered & (tokens >= method.shortest)
    keys = [np.load(folder / "keys.npy", mmap_mode="r") for folder in folders]
    root = components(keys, starts, eligible, group)
    out = Outcome(
        kept=np.ones(total, dtype=np.bool_),
        witness=np.full(total, -1, dtype=np.int64),
        similarity=np.full(total, np.nan),
        contained=np.full(total, np.nan),
        component=root,
        tokens=tokens,
    )
    if method.rule == "components":
        out.kept[considered & (tokens < method.shortest)] = False
        later = root < np.arange(total)
        out.kept[later] = False
        out.witness[later] = root[later]
        return out
    members = np.flatnonzero(np.bincount(root, minlength=total)[root] > 1)
    members = members[np.argsort(root[members], kind="stable")]
    if len(members):
        _resolve(members, shards, folders, keys, starts, method, store, engine, out)
    return out


def sign(payload: tuple[Shard, Method], folder: Path) -> dict[str, Any]:
    """One shard, in a worker: `keys.npy` (bands, rows), `tokens.npy` (rows,), `ranks.npy` (RANKS, rows)."""
    shard, method = payload
    keys, tokens, ranked = [], [], []
    names = list(dict.fromkeys([shard.columns.content, *shard.columns.metadata]))
    for table in batches(shard, names):
        content = texts(table[shard.columns.content], str(shard.path))
        signatures = method.signatures(*content)
        keys.append(signatures.keys)
        tokens.append(signatures.tokens)
        ranked.append(ranks(table, shard.columns, content))
    np.save(folder / "keys.npy", np.concatenate([np.zeros((method.bands.bands, 0), np.uint64), *keys], axis=1))
    np.save(folder / "tokens.npy", np.concatenate([np.zeros(0, np.int64), *tokens]))
    np.save(folder / "ranks.npy", np.concatenate([np.zeros((RANKS, 0), np.uint64), *ranked], axis=1))
    return {"documents": int(sum(map(len, tokens)))}


def shingle(payload: tuple[Shard, Method, NDArray[np.int64]], folder: Path) -> dict[str, Any]:
    """One shard, in a worker: the exact shingle sets of some of its rows, `sets.npy` and `places.npy` (rows + 1,)."""
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


class _Members:
    """Keys, ranks and shingle sets of the documents that have candidates, read from the shards' files as needed.

    `folder` is where sets too large for memory go.
    """

    def __init__(
        self,
        signed: Sequence[Path],
        keys: Sequence[NDArray[np.uint64]],
        spilled: Sequence[Path | None],
        starts: NDArray[np.int64],
        rows: Sequence[NDArray[np.int64]],
        folder: Path,
    ) -> None:
        self._starts, self._rows, self._folder = starts, rows, folder
        self._keys = keys
        self._ranks = [np.load(folder / "ranks.npy", mmap_mode="r") for folder in signed]
        self._sets = [None if f is None else np.load(f / "sets.npy", mmap_mode="r") for f in spilled]
        self._places = [None if f is None else np.load(f / "places.npy") for f in spilled]

    def _home(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """(shard, positions among `numbers`, rows in the shard)"""
        shard = np.searchsorted(self._starts, numbers, side="right") - 1
        for s in np.unique(shard):
            positions = np.flatnonzero(shard == s)
            yield int(s), positions, numbers[positions] - self._starts[s]

    def keys(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(M, bands)"""
        out = np.empty((len(numbers), self._keys[0].shape[0]), dtype=np.uint64)
        for shard, positions, rows in self._home(numbers):
            out[positions] = self._keys[shard][:, rows].T
        return out

    def ranks(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(RANKS, M)"""
        out = np.empty((RANKS, len(numbers)), dtype=np.uint64)
        for shard, positions, rows in self._home(numbers):
            out[:, positions] = self._ranks[shard][:, rows]
        return out

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of shingles (M,)"""
        out = np.empty(len(numbers), dtype=np.int64)
        for shard, positions, rows in self._home(numbers):
            at = np.searchsorted(self._rows[shard], rows)
            places = self._places[shard]
            assert places is not None
            out[positions] = places[at + 1] - places[at]
        return out

    def sets(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Shingles end to end, and where each document's begin (M + 1,)"""
        places = np.concatenate([[0], np.cumsum(self.lengths(numbers))]).astype(np.int64)
        out = _room(int(places[-1]), self._folder)
        for shard, positions, rows in self._home(numbers):
            source, at = self._places[shard], np.searchsorted(self._rows[shard], rows)
            sets = self._sets[shard]
            assert source is not None
            assert sets is not None
            for position, place in zip(positions.tolist(), at.tolist(), strict=True):
                out[places[position] : places[position + 1]] = sets[source[place] : source[place + 1]]
        return out, places


def _room(shingles: int, folder: Path) -> NDArray[np.uint64]:
    """An array for so many shingles (`shingles`,), its contents undefined. One that is larger than a chunk is a file
    without a name, whose pages the system can write out and drop. Raises OSError where the disk is too full."""
    if shingles <= CHUNK_SHINGLES:
        return np.empty(shingles, dtype=np.uint64)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none; there a full disk is a bus error
            os.posix_fallocate(file.fileno(), 0, 8 * shingles)
        return np.asarray(np.memmap(file, np.uint64, "r+", shape=(shingles,)))


def _resolve(
    members: NDArray[np.int64],
    shards: Sequence[Shard],
    signed: Sequence[Path],
    keys: Sequence[NDArray[np.uint64]],
    starts: NDArray[np.int64],
    method: Method,
    store: ShardStore,
    engine: Engine,
    out: Outcome,
) -> None:
    """Decide on the documents that have candidates, component by component, into `out`."""
    ordered = np.sort(members)
    cuts = np.searchsorted(ordered, starts)
    rows = [ordered[cuts[i] : cuts[i + 1]] - starts[i] for i in range(len(shards))]
    tasks = {
        i: Task(
            shards[i].path.name,
            fingerprint("shingles", shards[i].fingerprint, shards[i].columns, method, rows[i].tolist()),
            (shards[i], method, rows[i]),
        )
        for i in range(len(shards))
        if len(rows[i])
    }
    done = dict(zip(tasks, store.map(engine, shingle, list(tasks.values())), strict=True))
    source = _Members(signed, keys, [done.get(i) for i in range(len(shards))], starts, rows, store.root)
    roots = out.component[members]
    begins = np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1]]))
    borders = np.append(begins, len(members))
    lengths = np.add.reduceat(source.lengths(members), begins)
    first = 0
    while first < len(begins):
        last = first + 1
        size = int(lengths[first])
        while last < len(begins) and size + lengths[last] <= CHUNK_SHINGLES:
            size += int(lengths[last])
            last += 1
        chunk = members[borders[first] : borders[last]]
        local = borders[first : last + 1] - borders[first]
        _decide(chunk, local, source, method, out)
        first = last


def _decide(
    chunk: NDArray[np.int64], borders: NDArray[np.int64], source: _Members, method: Method, out: Outcome
) -> None:
    component = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
    if method.rule == "verified":
        ranked = source.ranks(chunk)
        chunk = chunk[np.lexsort((chunk, *ranked[::-1], component))]
    sets, places = source.sets(chunk)
    keys = source.keys(chunk)
    witness = np.full(len(chunk), -1, dtype=np.int64)
    similarity = np.full(len(chunk), np.nan)
    contained = np.full(len(chunk), np.nan)
    if method.rule == "verified":
        verified(sets, places, keys, borders, method.threshold, witness, similarity, contained)
    else:
        for i in range(len(borders) - 1):
            part = slice(borders[i], borders[i + 1])
            found, value = extremes(sets, places[borders[i] : borders[i + 1] + 1], keys[part], method.threshold)
            witness[part] = np.where(found >= 0, found + borders[i], -1)
            similarity[part] = value
    dropped = witness >= 0
    out.kept[chunk[dropped]] = False
    out.witness[chunk[dropped]] = chunk[witness[dropped]]
    out.similarity[chunk[dropped]] = similarity[dropped]
    out.contained[chunk[dropped]] = contained[dropped]


# -- what a report shows -----------------------------------------------------------------------------------------------


def figures(
    method: Method, outcome: Outcome, sizes: NDArray[np.int64], considered: NDArray[np.bool_]
) -> dict[str, Any]:
    """Data of the charts: the collision curve, sizes of clusters (a survivor and what gave way to it), and bytes kept.

    `bytes_kept` at a threshold counts what has no kept document that similar among those which this run compared. It
    is exact at the run's own threshold; a run at a higher one may keep a little less, since what stays there can be a
    witness too.
    """
    witnesses = outcome.witness[outcome.witness >= 0]
    clusters = Counter((np.bincount(witnesses)[np.unique(witnesses)] + 1).tolist() if len(witnesses) else [])
    record: dict[str, Any] = {
        "method": method.name,
        "rule": method.rule,
        "ngram": method.ngram,
        "threshold": method.threshold,
        "bands": method.bands.bands,
        "rows": method.bands.rows,
        "collision_curve": [[round(s, 4), round(p, 6)] for s, p in method.bands.curve()],
        "cluster_sizes": [[size, clusters[size]] for size in sorted(clusters)],
        "documents": int(considered.sum()),
        "dropped": int((considered & ~outcome.kept).sum()),
        "bytes": int(sizes[considered].sum()),
        "bytes_dropped": int(sizes[considered & ~outcome.kept].sum()),
    }
    if method.rule == "verified":
        steps = np.unique(np.round(np.append(np.arange(method.threshold, 1.0, 0.05), 1.0), 4))
        gone = np.nan_to_num(outcome.similarity, nan=-1.0)
        record["bytes_kept"] = [[float(t), int(sizes[considered & (gone < t)].sum())] for t in steps]
    return record
