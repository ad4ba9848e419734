"""A token store as Megatron-LM's indexed data set: `PREFIX.bin` and `PREFIX.idx`, which its loaders map into memory.

One document is one sequence with end-of-text after it; documents keep the store's order, an empty one is left out, as
Megatron's own preprocessing does. Format: `megatron/data/indexed_dataset.py`, class MMapIndexedDataset, version 1:

    9 bytes "MMIDIDX\\0\\0"; uint64 version; uint8 type of the tokens; uint64 sequences; uint64 documents + 1;
    int32 length of each sequence in tokens; int64 its start in bytes;
    int64 first sequence of each document, and the end

All numbers are little-endian. Does not cover: reading such files, other versions.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from kringle.errors import UserError
from kringle.tokens.store import TokenStore

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
TYPE_CODES = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}  # the two that Megatron chooses between
SIXTEEN_BITS_BELOW = 65_500  # vocabulary rows; above, Megatron writes 32 bits (its best_fitting_dtype)


def write_megatron(
    store: TokenStore, documents: np.ndarray, end_of_text: int, vocab_size: int, prefix: Path
) -> tuple[Path, Path, int]:
    """Write these documents (numbers in the store) as `prefix.bin` and `prefix.idx`; both paths and the tokens written.

    Each file appears when it is whole. Memory holds lengths, never the tokens.
    """
    dtype = np.dtype("<u2") if vocab_size < SIXTEEN_BITS_BELOW else np.dtype("<i4")
    lengths = np.diff(store.offsets)[documents]
    kept = documents[lengths > 0]
    sizes = lengths[lengths > 0] + 1
    if len(sizes) and sizes.max() > np.iinfo(np.int32).max:
        raise UserError(f"a document has {sizes.max()} tokens, Megatron's index ends at 2^31", where=str(store.folder))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = [prefix.with_name(prefix.name + ending) for ending in (".bin", ".idx")]
    partial = [name.with_name(f".{name.name}.{os.getpid()}.partial") for name in names]
    end = np.array([end_of_text], dtype)
    try:
        with partial[0].open("wb") as file:
            for number in kept.tolist():
                file.write(np.concatenate((store.document(number), end), dtype=dtype, casting="unsafe").data)
        starts = np.zeros(len(sizes), np.int64)
        np.cumsum(sizes[:-1] * dtype.itemsize, out=starts[1:])
        with partial[1].open("wb") as file:
            file.write(MAGIC + struct.pack("<QBQQ", VERSION, TYPE_CODES[dtype], len(sizes), len(sizes) + 1))
            file.write(sizes.astype("<i4").tobytes() + starts.astype("<i8").tobytes())
            file.write(np.arange(len(sizes) + 1, dtype="<i8").tobytes())
        for written, name in zip(partial, names, strict=True):
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(name)
    finally:
        for written in partial:
            written.unlink(missing_ok=True)
    return names[0], names[1], int(sizes.sum())
