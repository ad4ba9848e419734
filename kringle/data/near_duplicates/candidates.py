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

ROWS_IN_MEMORY = 1 << 24  # keys sorted at once: 0.9 GB with everything that sorting needs
_PAIRS = 1 << 20  # of documents that are united at once


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
    for start in range(0, len(parent), _PAIRS):
        _roots(parent, np.arange(start, min(start + _PAIRS, len(parent))))
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
    """Unite the documents of these `numbers` (M,) that have equal `keys` (M,), each with the first one of its key.

    `parent` (N,) is a forest in which the root of a tree is its smallest number.
    """
    order = np.argsort(keys)  # in whatever order equal ones come, the same documents are united
    keys = keys[order]
    equal = keys[1:] == keys[:-1]  # each with the one before it
    del keys
    later = np.flatnonzero(equal) + 1
    first = later[~equal[later - 2] | (later == 1)] - 1  # of those that are equal
    for start in range(0, len(later), _PAIRS):
        some = later[start : start + _PAIRS]
        leader = first[np.searchsorted(first, some) - 1]
        _join(numbers[order[leader]], numbers[order[some]], parent)


def _join(a: NDArray[np.int64], b: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
    """Unite the trees that the numbers `a` (M,) and `b` (M,) are in, pair by pair.

    All pairs at once: of several roots that a root should hang on it takes the smallest, and what that leaves apart
    comes again.
    """
    while len(a):
        a, b = _roots(parent, a), _roots(parent, b)
        apart = a != b
        low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
        np.minimum.at(parent, high, low)
        _shorten(parent, high)
        a, b = low, high


def _roots(parent: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The roots (M,) of the trees that these numbers (M,) are in, on which they hang afterwards."""
    found = parent[numbers]
    while len(below := np.flatnonzero(parent[found] != found)):
        found[below] = parent[found[below]]
    parent[numbers] = found
    return found


def _shorten(parent: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
    """Hang numbers (M,) on the roots of their trees, if those between are among them: every step halves the way."""
    while len(numbers):
        above = parent[parent[numbers]]
        numbers, above = numbers[lower := above != parent[numbers]], above[lower]
        parent[numbers] = above
