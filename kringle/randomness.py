"""Every random draw in Kringle is a function of (seed, purpose, key), never of order, worker count or batch size.

A stateful generator that is shared between draws makes results depend on who drew before: the fault that made
SantaCoder's fill-in-the-middle splits change with the number of loader workers and with every resume. Here each draw
gets a stream of its own, a Philox generator (a counter-based generator: Salmon et al., SC 2011) whose 128-bit key is
the BLAKE2b hash of what the draw is *for*.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np


def _digest(seed: int, purpose: str, key: tuple[str | int | bytes, ...], size: int) -> bytes:
    """Hash of a draw's identity; lengths are hashed too, so ("ab", "c") and ("a", "bc") differ."""
    return hashlib.blake2b(b"".join([_purpose(seed, purpose), *map(_counted, key)]), digest_size=size).digest()


@functools.lru_cache(maxsize=256, typed=True)  # a few purposes, millions of keys
def _purpose(seed: int, purpose: str) -> bytes:
    return _counted(seed) + _counted(purpose)


def _counted(part: str | int | bytes) -> bytes:
    if type(part) is str:  # nearly always
        raw = part.encode("utf-8", "surrogateescape")
        return b"s" + len(raw).to_bytes(8, "little") + raw
    raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
    kind = b"b" if isinstance(part, bytes) else b"i" if isinstance(part, int) else b"s"
    return kind + len(raw).to_bytes(8, "little") + raw


def stream(seed: int, purpose: str, *key: str | int | bytes) -> np.random.Generator:
    """A random stream of its own for one draw: `stream(seed, "fim", document_id, segment)`."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose, key, 16), "little")))


def uniform(seed: int, purpose: str, *key: str | int | bytes) -> float:
    """One number in [0, 1) for one key; cheaper than a whole `stream` where a single draw is needed."""
    return int.from_bytes(_digest(seed, purpose, key, 8), "little") / 2.0**64


def torch_seed(seed: int, purpose: str, *key: str | int | bytes) -> int:
    """A 63-bit seed for a `torch.Generator` that draws one tensor."""
    return int.from_bytes(_digest(seed, purpose, key, 8), "little") >> 1
