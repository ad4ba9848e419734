"""Near-deduplication as SantaCoder did it, written plainly and apart from the product: sets, loops, hashlib.

Both settings, from a description of the original alone. Nothing here is imported from Kringle.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Sequence

import numpy as np

SPLIT = re.compile("[^A-Za-z_0-9]")
PRIME = (1 << 61) - 1
PERMUTATIONS = 256
SHORTEST = 10  # tokens


@functools.cache
def permutations(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The parameters a in [1, p) and b in [0, p), drawn alternately as datasketch drew them before its version 2."""
    generator = np.random.RandomState(seed)
    pairs = [
        (generator.randint(1, PRIME, dtype=np.uint64), generator.randint(0, PRIME, dtype=np.uint64))
        for _ in range(PERMUTATIONS)
    ]
    return np.array([a for a, _ in pairs], np.uint64), np.array([b for _, b in pairs], np.uint64)


def signature(shingles: set[str], seed: int) -> np.ndarray:
    """256 minima of 32 bits; products wrap at 64 bits, as NumPy's do."""
    a, b = permutations(seed)
    hashes = np.array([struct.unpack("<I", hashlib.sha1(s.encode()).digest()[:4])[0] for s in shingles], np.uint64)
    values = ((hashes[:, None] * a[None, :] + b[None, :]) % np.uint64(PRIME)) & np.uint64(0xFFFFFFFF)
    return values.min(axis=0)


def five_grams(text: str) -> set[str]:
    fields = SPLIT.split(text)  # empty ones stay
    return {" ".join(fields[i : i + 5]) for i in range(len(fields) - 4)}


def tokens(text: str) -> list[str]:
    return [t for t in SPLIT.split(text) if t]


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """Bands and rows with the smallest sum of the false-positive and false-negative areas, by the midpoint rule."""
    s = (np.arange(4000) + 0.5) / 4000
    below = s < threshold
    best = (np.inf, 0, 0)
    for b in range(1, PERMUTATIONS + 1):
        for r in range(1, PERMUTATIONS // b + 1):
            collides = 1 - (1 - s**r) ** b
            error = (collides * below).sum() + ((1 - collides) * ~below).sum()
            if error < best[0]:
                best = (error, b, r)
    return best[1], best[2]


def buckets(signatures: Sequence[np.ndarray], bands: int, rows: int) -> list[list[bytes]]:
    return [[s[i * rows : (i + 1) * rows].tobytes() for i in range(bands)] for s in signatures]


def stronger(texts: Sequence[str]) -> list[bool]:
    """5-grams, threshold 0.7: which texts are kept. Short ones go; of a connected component the first one stays."""
    chosen = [i for i, text in enumerate(texts) if len(tokens(text)) >= SHORTEST]
    keys = buckets([signature(five_grams(texts[i]), 42) for i in chosen], 25, 10)
    neighbours: dict[int, set[int]] = {i: set() for i in chosen}
    for band in range(25):
        table: dict[bytes, list[int]] = {}
        for i, key in zip(chosen, keys, strict=True):
            table.setdefault(key[band], []).append(i)
        for members in table.values():
            for member in members[1:]:
                neighbours[members[0]].add(member)
                neighbours[member].add(members[0])
    kept = [False] * len(texts)
    seen: set[int] = set()
    for i in chosen:  # ascending, so the first that is seen of a component is its lowest
        if i in seen:
            continue
        kept[i] = True
        stack = [i]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(neighbours[node] - seen)
    return kept


def base(texts: Sequence[str], threshold: float = 0.85) -> list[bool]:
    """Single tokens, threshold 0.85: which texts are kept. Short ones stay. Candidates are looked at in their order."""
    sets = [set(tokens(text)) for text in texts]
    index: list[dict[bytes, list[int]]] = [{} for _ in range(13)]
    clusters: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        if len(tokens(text)) < SHORTEST:
            continue
        (keys,) = buckets([signature(sets[i], 1)], 13, 19)
        close = sorted({j for table, key in zip(index, keys, strict=True) for j in table.get(key, [])})
        for table, key in zip(index, keys, strict=True):
            table.setdefault(key, []).append(i)
        if close:
            first_base = next((j for j in close if j in clusters), close[0])
            clusters.setdefault(first_base, []).append(i)
    involved: set[int] = set()
    extremes: set[int] = set()
    for first, others in clusters.items():
        kept: list[int] = []
        for element in [first, *others]:
            involved.add(element)
            similar = (len(sets[element] & sets[k]) / len(sets[element] | sets[k]) for k in kept)
            if not any(value >= threshold for value in similar):
                kept.append(element)
        extremes.update(kept)
    return [i not in involved or i in extremes for i in range(len(texts))]
