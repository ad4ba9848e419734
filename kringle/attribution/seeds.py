"""A seed table: where in a collection of documents a text's seeds occur. Built in two passes, read memory-mapped.

    starts.npy      (D + 1,) int64: document d has the samples starts[d] to starts[d + 1] - 1, at every STEP-th byte
    directory.npy   (B + 1,) uint32: bucket b, the first bits of a seed's hash, has the entries directory[b] and on
    entries.npy     (S,) uint32: samples, bucket by bucket
    tags.npy        (S, 2) uint8: left and right tag of each
    heavy.npy       (H, 2) int64: the buckets with more than `HEAVY` entries, ascending, and where each begins in
    backward.npy    (E,) uint32: their entries, sorted by the seed and the bytes before it, the nearest first

The entries of a heavy bucket are sorted by the bytes from the seed's first on, so that a look-up can bisect both ways.
About 6.3 bytes a sample, with 16 to 32 samples a bucket, and 8 more while it is built. Samples of which there are many
with the same surroundings are left out (`kringle.attribution.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.attribution import kernels
from kringle.attribution.kernels import HEAVY, SEED, SHORTEST, STEP, Bytes
from kringle.errors import UserError

PER_BUCKET = 16  # at least
MOST_SAMPLES = 1 << 32  # entries are numbers of 32 bits: 150 GB of text


def samples_in(size: int) -> int:
    """How many seeds a text of `size` bytes is sampled at."""
    return 0 if size < SEED else (size - SEED) // STEP + 1


@dataclass(frozen=True)
class SeedTable:
    """A table opened for reading."""

    starts: NDArray[np.int64]
    directory: NDArray[np.uint32]
    entries: NDArray[np.uint32]
    tags: NDArray[np.uint8]
    heavy: NDArray[np.int64]
    backward: NDArray[np.uint32]

    @classmethod
    def open(cls, folder: Path) -> SeedTable:
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls.__annotations__))

    @classmethod
    def build(cls, folder: Path, sizes: NDArray[np.int64], texts: Callable[[], Iterable[Bytes]]) -> None:
        """Write the table of texts of `sizes` bytes; `texts()` yields them, in order, each time it is called."""
        folder.mkdir(parents=True, exist_ok=True)
        counts = np.array([samples_in(int(size)) for size in sizes], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(starts[-1])
        if total >= MOST_SAMPLES:
            what = f"{int(sizes.sum()):,} bytes are more than one attribution index holds ({MOST_SAMPLES * STEP:,})"
            raise UserError(what, hint="build one index for each part of the corpus")
        bits = max(1, (total // PER_BUCKET).bit_length() - 1)
        fill = np.zeros((1 << bits) + 1, dtype=np.int64)
        for _, _, hashes in _seeds(texts()):
            kernels.count((hashes >> np.uint64(64 - bits)).astype(np.uint32), fill[1:])
        directory = np.cumsum(fill)
        entries, tags = np.empty(total, dtype=np.uint32), np.empty((total, 2), dtype=np.uint8)
        surroundings = np.empty(total, dtype=np.uint64)
        cursor = directory[:-1].copy()
        for first, text, hashes in _seeds(texts()):
            buckets = (hashes >> np.uint64(64 - bits)).astype(np.uint32)
            left, right = np.empty(len(hashes), np.uint8), np.empty(len(hashes), np.uint8)
            around = np.empty(len(hashes), np.uint64)
            kernels.sides(text, left, right, around)
            kernels.scatter(buckets, left, right, around, first, cursor, entries, tags, surroundings)
        kept = kernels.thin(directory, entries, tags, surroundings)
        entries, tags = entries[:kept], tags[:kept]
        heavy, backward = _sort_heavy(texts(), starts, directory, entries, tags)
        arrays: tuple[NDArray[Any], ...] = (starts, directory.astype(np.uint32), entries, tags, heavy, backward)
        for name, array in zip(cls.__annotations__, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    @property
    def shift(self) -> int:
        """By how many bits a seed's hash is shifted to give its bucket."""
        return 64 - ((len(self.directory) - 1).bit_length() - 1)


def _sort_heavy(
    texts: Iterable[Bytes],
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
    context = np.empty((total, 2 * SHORTEST - SEED), dtype=np.int16)
    samples = entries[where].astype(np.int64)
    order = np.argsort(samples)
    samples = samples[order]
    borders = np.searchsorted(samples, starts)
    for document, text in enumerate(texts):
        first, last = borders[document], borders[document + 1]
        if first < last:
            kernels.contexts(text, (samples[first:last] - starts[document]) * STEP, order[first:last], context)
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


def _seeds(texts: Iterable[Bytes]) -> Iterator[tuple[int, Bytes, NDArray[np.uint64]]]:
    """(number of the first sample, text, hashes of its seeds) for every text."""
    first = 0
    for text in texts:
        hashes = np.empty(samples_in(len(text)), np.uint64)
        first += kernels.seed_hashes(text, hashes)
        yield first - len(hashes), text, hashes
