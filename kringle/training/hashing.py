"""Counter-based random numbers for whole arrays: a function of (seed, purpose, columns of keys), never of order.

`kringle.randomness` hashes one key at a time, in Python; an epoch has one key per piece, up to hundreds of millions.
Here seed and purpose go through the same BLAKE2b hash, and each column of 64-bit keys is then absorbed by the finaliser
of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), a bijection that changes half of the output bits for each input bit.
Not for cryptography.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from kringle.randomness import torch_seed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _finalise(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return np.asarray(x ^ (x >> np.uint64(31)))


def hashes(seed: int, purpose: str, *columns: np.ndarray | int) -> np.ndarray:
    """One uniform 64-bit number per row of the columns (broadcast against each other), uint64."""
    state = np.array([torch_seed(seed, purpose)], dtype=np.uint64)
    for column in columns:
        state = _finalise(state ^ _finalise(np.atleast_1d(column).astype(np.uint64) + _GOLDEN))
    return state


def uniforms(seed: int, purpose: str, *columns: np.ndarray | int) -> np.ndarray:
    """One number in [0, 1) per row, float64: the upper 53 bits of `hashes`."""
    return (hashes(seed, purpose, *columns) >> np.uint64(11)) * 2.0**-53


def document_keys(ids: Sequence[str]) -> np.ndarray:
    """A 64-bit key (D,) for each document id."""
    digests = b"".join(hashlib.blake2b(id.encode("utf-8"), digest_size=8).digest() for id in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
