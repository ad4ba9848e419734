"""A seed table: where in a collection of documents a text's seeds occur. Built in two passes, read memory-mapped.

    starts.npy      (D + 1,) int64: document d has the samples starts[d] to starts[d + 1] - 1, at every STEP-th byte
    directory.npy   (B + 1,) uint32: bucket b, the first bits of a seed's hash, has the entries directory[b] and on
    entries.npy     (S,) uint32: samples, bucket by bucket
    tags.npy        (S, 2) uint8: left and right tag of each

About 6.5 bytes a sample, with 8 to 16 samples a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.attribution import kernels
from kringle.attribution.kernels import SEED, STEP, Bytes
from kringle.errors import UserError

PER_BUCKET = 8  # at least
MOST_SAMPLES = 1 << 32  # entries are numbers of 32 bits: 150 GB of text
_BATCH = 1 << 20  # candidates that a look-up has room for at first


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
        for _, buckets, *_ in _sampled(texts(), bits):
            kernels.count(buckets, fill[1:])
        directory = np.cumsum(fill)
        entries, tags = np.empty(total, dtype=np.uint32), np.empty((total, 2), dtype=np.uint8)
        cursor = directory[:-1].copy()
        directory = directory.astype(np.uint32)
        for first, buckets, left, right in _sampled(texts(), bits):
            kernels.scatter(buckets, left, right, first, cursor, entries, tags)
        arrays: tuple[NDArray[Any], ...] = (starts, directory, entries, tags)
        for name, array in zip(cls.__annotations__, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    def candidates(self, text: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where stretches of `text` may occur: offsets in it (C,), documents (C,), byte offsets of the seed in them."""
        bits = (len(self.directory) - 1).bit_length() - 1
        room = _BATCH
        while True:
            offsets, samples = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
            count = kernels.look_up(text, 64 - bits, self.directory, self.entries, self.tags, offsets, samples)
            if count <= room:
                break
            room = count
        offsets, samples = offsets[:count], samples[:count]
        documents = np.searchsorted(self.starts, samples, side="right") - 1
        return offsets, documents, (samples - self.starts[documents]) * STEP


def _sampled(texts: Iterable[Bytes], bits: int) -> Iterator[tuple[int, NDArray[np.uint32], Bytes, Bytes]]:
    """(number of the first sample, buckets, left tags, right tags) of stretches of samples, many texts at a time."""
    first = count = 0
    room = 1 << 16
    hashes, left, right = np.empty(room, np.uint64), np.empty(room, np.uint8), np.empty(room, np.uint8)
    for text in texts:
        wanted = samples_in(len(text))
        if count + wanted > room:
            if count:
                yield first, (hashes[:count] >> np.uint64(64 - bits)).astype(np.uint32), left[:count], right[:count]
                first, count = first + count, 0
            if wanted > room:
                room = wanted
                hashes, left, right = np.empty(room, np.uint64), np.empty(room, np.uint8), np.empty(room, np.uint8)
        count += kernels.sample(text, STEP, hashes[count:], left[count:], right[count:])
    if count:
        yield first, (hashes[:count] >> np.uint64(64 - bits)).astype(np.uint32), left[:count], right[:count]
