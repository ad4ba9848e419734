"""Which documents may be near-duplicates: those that share a band key, directly or through others.

Keys lie on disk, one file a shard, all keys of a band together. As many bands are read as memory allows, one at least,
and sorted one by one, of that only as many keys as memory allows (a partition by the key's own bits). So memory does
not grow with the number of bands, and with the number of documents by the eight bytes of a band's keys and as many of
the union-find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kringle.data.compiled import compiled

ROWS_IN_MEMORY = 1 << 24  # keys sorted at once: about 400 MB with everything that sorting needs


@compiled
def _find(parent: NDArray[np.int64], x: int) -> int:
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@compiled
def _join(keys: NDArray[np.uint64], numbers: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
    """Unite neighbours with equal keys; the root of a tree is its smallest number."""
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            a, b = _find(parent, numbers[i]), _find(parent, numbers[i - 1])
            if a != b:
                parent[max(a, b)] = min(a, b)


@compiled
def _flatten(parent: NDArray[np.int64]) -> None:
    for x in range(len(parent)):
        parent[x] = parent[parent[x]]  # roots are smaller than what hangs on them, so this one is done already


def components(
    keys: Sequence[NDArray[np.uint64]],
    starts: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    group: NDArray[np.uint64] | None,
) -> NDArray[np.int64]:
    """The smallest number of each document's component (N,), over all bands of the shards' keys (bands, rows), which
    may be mapped files.

    `starts` (shards + 1,) numbers the documents; those not `eligible` (N,) stay alone. Documents of different `group`
    (N,) never meet.
    """
    parent = np.arange(starts[-1], dtype=np.int64)
    bands = keys[0].shape[0] if keys else 0
    at_once = max(1, ROWS_IN_MEMORY // max(1, int(starts[-1])))  # a few small reads of each shard, not one a band
    for first in range(0, bands, at_once):
        for band in np.concatenate([matrix[first : first + at_once] for matrix in keys], axis=1):
            _unite(band if group is None else band ^ group, eligible, parent)
    _flatten(parent)
    return parent


def _unite(keys: NDArray[np.uint64], eligible: NDArray[np.bool_], parent: NDArray[np.int64]) -> None:
    """Unite the `eligible` documents with equal keys (N,) of one band."""
    partitions = max(1, -(-int(eligible.sum()) // ROWS_IN_MEMORY))
    for partition in range(partitions):
        chosen = eligible
        if partitions > 1:
            chosen = eligible & ((keys >> np.uint64(32)) % np.uint64(partitions) == partition)
        numbers = np.flatnonzero(chosen)
        own = keys[numbers]
        order = np.argsort(own)  # in whatever order equal ones come, the same documents are united
        _join(own[order], numbers[order], parent)
