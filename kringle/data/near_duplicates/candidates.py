"""Which documents may be near-duplicates: those that share a band key, directly or through others.

Keys lie on disk, one file a shard, all keys of a band together. As many bands are read at once as memory allows and
sorted one by one; where one is too much, as many of its keys as memory allows (a partition by the key's own bits). So
memory does not grow with the number of bands, and with the number of documents only by the eight bytes of the
union-find.
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
    partitions = max(1, -(-int(eligible.sum()) // ROWS_IN_MEMORY))
    for first in range(0, bands, at_once):
        if partitions > 1:
            for partition in range(partitions):
                _unite(*_partition(keys, starts, eligible, group, first, partition, partitions), parent)
            continue
        for band in np.concatenate([matrix[first : first + at_once] for matrix in keys], axis=1):
            numbers = np.flatnonzero(eligible)
            _unite((band if group is None else band ^ group)[numbers], numbers, parent)
    _flatten(parent)
    return parent


def _partition(
    keys: Sequence[NDArray[np.uint64]],
    starts: NDArray[np.int64],
    eligible: NDArray[np.bool_],
    group: NDArray[np.uint64] | None,
    band: int,
    partition: int,
    partitions: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Those keys of a band, and their documents' numbers, whose own bits put them into one of several partitions; shard
    by shard, so that no more than these is held."""
    chosen, numbers = [], []
    for first, matrix in zip(starts[:-1].tolist(), keys, strict=True):
        own = np.asarray(matrix[band])
        if group is not None:
            own = own ^ group[first : first + len(own)]
        kept = eligible[first : first + len(own)] & ((own >> np.uint64(32)) % np.uint64(partitions) == partition)
        chosen.append(own[kept])
        numbers.append(np.flatnonzero(kept) + first)
    return np.concatenate(chosen), np.concatenate(numbers)


def _unite(keys: NDArray[np.uint64], numbers: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
    """Unite the documents of these `numbers` (M,) that have equal `keys` (M,)."""
    order = np.argsort(keys)  # in whatever order equal ones come, the same documents are united
    _join(keys[order], numbers[order], parent)
