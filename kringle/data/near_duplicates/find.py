"""Near-duplicates of a corpus in shards, step by step: signatures, candidates, exact sets of the candidates, survivors.

The first and third step read text and are kept by shard, so a changed shard costs its own signatures and no others
(the third and fourth are in `resolve`). All but the second run in the engine's workers. Text is never held: a worker's
memory is a row group or a chunk of components, this process' a few dozen bytes a document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.near_duplicates.candidates import components
from kringle.data.near_duplicates.inputs import RANKS, Shard, batches, ranks, texts
from kringle.data.near_duplicates.method import Method
from kringle.data.near_duplicates.resolve import resolve
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint


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
        roots = out.component[members]
        borders = np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1], [True]]))
        for gone in resolve(members, borders, shards, folders, starts, method, store, engine):
            out.kept[gone.numbers] = False
            out.witness[gone.numbers] = gone.witness
            out.similarity[gone.numbers] = gone.similarity
            out.contained[gone.numbers] = gone.contained
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
