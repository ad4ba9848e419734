"""A seed table: where in a collection of documents a text's seeds occur. Built in memory, read memory-mapped.

    starts.npy      (D + 1,) int64: document d has the samples starts[d] to starts[d + 1] - 1, at every STEP-th byte
    directory.npy   (B + 1,) uint32: bucket b, the first bits of a seed's hash, has the entries directory[b] and on
    entries.npy     (S,) uint32: samples, bucket by bucket
    tags.npy        (S, 2) uint8: left and right tag of each
    heavy.npy       (H, 2) int64: the buckets with more than `HEAVY` entries, ascending, and where each begins in
    backward.npy    (E,) uint32: their entries, sorted by the seed and the bytes before it, the nearest first

The entries of a heavy bucket are sorted by the bytes from the seed's first on, so that a look-up can bisect both ways.
About 6.3 bytes a sample, with 16 to 32 samples a bucket; 20 while it is built. Samples of which there are many
with the same surroundings are left out (`kringle.attribution.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.attribution import kernels
from kringle.attribution.kernels import BEFORE, HEAVY, SEED, SHORTEST, STEP, Bytes
from kringle.errors import UserError

PER_BUCKET = 16  # at least
MOST_SAMPLES = 1 << 32  # entries are numbers of 32 bits: 150 GB of text


def samples_in(size: int) -> int:
    """How many seeds a text of `size` bytes is sampled at."""
    return 0 if size < SEED else (size - SEED) // STEP + 1


class SeedTable(NamedTuple):
    """A table opened for reading, as kernels take it."""

    starts: NDArray[np.int64]
    directory: NDArray[np.uint32]
    entries: NDArray[np.uint32]
    tags: NDArray[np.uint8]
    heavy: NDArray[np.int64]
    backward: NDArray[np.uint32]

    @classmethod
    def open(cls, folder: Path) -> SeedTable:
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls._fields))

    @classmethod
    def build(cls, folder: Path, sizes: NDArray[np.int64], text: Callable[[int], Bytes]) -> None:
        """Write the table of texts of `sizes` bytes; `text(d)` gives number d, good until it is called again."""
        folder.mkdir(parents=True, exist_ok=True)
        counts = np.array([samples_in(int(size)) for size in sizes], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(starts[-1])
        if total >= MOST_SAMPLES:
            what = f"{int(sizes.sum()):,} bytes are more than one attribution index holds ({MOST_SAMPLES * STEP:,})"
            raise UserError(what, hint="build one index for each part of the corpus")
        bits = max(1, (total // PER_BUCKET).bit_length() - 1)
        buckets, around = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.uint64)
        tags = np.empty((total, 2), dtype=np.uint8)
        for document in range(len(sizes)):
            here = slice(int(starts[document]), int(starts[document + 1]))
            kernels.sample(text(document), 64 - bits, buckets[here], tags[here], around[here])
        directory = np.zeros((1 << bits) + 1, dtype=np.int64)
        entries = np.empty(total, dtype=np.uint32)
        kernels.sort(buckets, directory, entries)
        del buckets
        entries = entries[: kernels.thin(directory, entries, around)]
        del around
        tags = tags[entries]
        heavy, backward = _sort_heavy(text, starts, directory, entries, tags)
        arrays: tuple[NDArray[Any], ...] = (starts, directory.astype(np.uint32), entries, tags, heavy, backward)
        for name, array in zip(cls._fields, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    @property
    def shift(self) -> int:
        """By how many bits a seed's hash is shifted to give its bucket."""
        return 64 - ((len(self.directory) - 1).bit_length() - 1)


def _sort_heavy(
    text: Callable[[int], Bytes],
    starts: NDArray[np.int64],
    directory: NDArray[np.int64],
    entries: NDArray[np.uint32],
    tags: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Sort the entries of heavy buckets, with their tags, in place; returns `heavy` and `backward`."""
    sizes = np.diff(directory)
    buckets = np.flatnonzero(sizes > HEAVY)
    ends = np.cumsum(sizes[buckets])
    heavy = np.stack([buckets, ends - sizes[buckets]], axis=1)
    total = int(ends[-1]) if len(ends) else 0
    # What is row r of the contexts stands at entries[where[r]].
    where = np.arange(total) + np.repeat(directory[buckets] - heavy[:, 1], sizes[buckets])
    context = np.empty((total, SHORTEST + BEFORE), dtype=np.int16)
    samples = entries[where].astype(np.int64)
    order = np.argsort(samples)
    samples = samples[order]
    borders = np.searchsorted(samples, starts)
    for document in np.flatnonzero(np.diff(borders)).tolist():
        here = slice(int(borders[document]), int(borders[document + 1]))
        kernels.contexts(text(document), (samples[here] - starts[document]) * STEP, order[here], context)
    backward = np.empty(total, dtype=np.uint32)
    for bucket, begin in heavy.tolist():
        place, end = int(directory[bucket]), begin + int(sizes[bucket])
        rows = np.arange(begin, end)
        kernels.sort_contexts(context, rows, False)
        entries[place : place + end - begin] = entries[place + rows - begin]
        tags[place : place + end - begin] = tags[place + rows - begin]
        sorted_context = context[rows]
        rows = np.arange(end - begin)
        kernels.sort_contexts(sorted_context, rows, True)
        backward[begin:end] = place + rows
    return heavy, backward
