"""Who stays of documents that share bands: exact comparisons, and nothing goes without a witness that stays.

Documents are taken the best first. One is dropped when the exact Jaccard similarity of its set of shingles with that of
a document that has been kept, and with which it shares a band, reaches the threshold. So no chain of resemblances
can drop what resembles no kept document, and the outcome depends on the documents alone, not on their order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.near_duplicates.shingles import GOLDEN, common, mix


@unlocked
def verified(
    sets: NDArray[np.uint64],
    places: NDArray[np.int64],
    keys: NDArray[np.uint64],
    borders: NDArray[np.int64],
    threshold: float,
    witness: NDArray[np.int64],
    similarity: NDArray[np.float64],
    contained: NDArray[np.float64],
) -> None:
    """Decide on M documents, which lie component by component (borders), the best of each first.

    sets[places[i] : places[i + 1]] are the sorted shingles of document i, `keys` (M, bands) its keys. Writes, for each
    that is dropped, the kept document most like it (the better of equals), their similarity, and the share of its own
    shingles that the other has; -1 and NaN for one that stays.
    """
    bands = keys.shape[1]
    for component in range(len(borders) - 1):
        first, last = borders[component], borders[component + 1]
        size = 4
        while size < 2 * (last - first) * bands:
            size *= 2
        mask = np.uint64(size - 1)
        slot_keys = np.empty(size, dtype=np.uint64)
        heads = np.full(size, -1, dtype=np.int64)  # of a list of entries: the kept documents with this key
        members = np.empty((last - first) * bands, dtype=np.int64)
        following = np.empty((last - first) * bands, dtype=np.int64)
        entries = 0
        compared = np.full(last - first, -1, dtype=np.int64)
        slots = np.empty(bands, dtype=np.int64)
        for i in range(first, last):
            mine = sets[places[i] : places[i + 1]]
            witness[i], similarity[i], contained[i] = -1, np.nan, np.nan
            best = 0.0
            for band in range(bands):
                key = mix(keys[i, band] + np.uint64(band) * GOLDEN)
                slot = np.int64(key & mask)
                while heads[slot] >= 0 and slot_keys[slot] != key:
                    slot = (slot + 1) & (size - 1)
                slots[band] = slot
                entry = heads[slot]
                while entry >= 0:
                    other = members[entry]
                    entry = following[entry]
                    if compared[other - first] == i:
                        continue
                    compared[other - first] = i
                    theirs = sets[places[other] : places[other + 1]]
                    smaller, larger = min(len(mine), len(theirs)), max(len(mine), len(theirs))
                    if smaller < threshold * larger:
                        continue  # not even a subset of that size would be similar enough
                    least = int(threshold * (len(mine) + len(theirs)) / (1 + threshold))
                    shared = common(mine, theirs, least)
                    value = shared / (len(mine) + len(theirs) - shared)
                    if value >= threshold and (value > best or (value == best and other < witness[i])):
                        best = value
                        witness[i], similarity[i], contained[i] = other, value, shared / len(mine)
            if witness[i] >= 0:
                continue
            for band in range(bands):
                key = mix(keys[i, band] + np.uint64(band) * GOLDEN)
                slot = slots[band]
                # Two bands of one document may have met the same free slot: look again from there.
                while heads[slot] >= 0 and slot_keys[slot] != key:
                    slot = (slot + 1) & (size - 1)
                slot_keys[slot] = key
                members[entries], following[entries] = i, heads[slot]
                heads[slot] = entries
                entries += 1


def extremes(
    sets: NDArray[np.uint64], places: NDArray[np.int64], keys: NDArray[np.uint64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """BigCode's base step on the M documents of one component, in the order of the corpus.

    A document that shares a band with earlier ones joins the cluster of the first of them that has one, or else starts
    one with the first of them. In each cluster, in order, one is dropped when its exact similarity with one that stays
    reaches the threshold; one that stays in any cluster stays. The original looked at candidates in the order of a
    Python set, which differs from run to run; here it is the order of the corpus. Returns witness and similarity.
    """
    count, bands = keys.shape
    first_of: list[dict[int, int]] = [{} for _ in range(bands)]  # key -> first document with it
    base_of: list[dict[int, int]] = [{} for _ in range(bands)]  # key -> first document with it that has a cluster
    clusters: dict[int, list[int]] = {}
    rows = keys.tolist()
    for i in range(count):
        row = rows[i]
        bases = [table[key] for table, key in zip(base_of, row, strict=True) if key in table]
        close = [table[key] for table, key in zip(first_of, row, strict=True) if key in table]
        if bases:
            clusters[min(bases)].append(i)
        elif close:
            base = min(close)
            clusters[base] = [i]
            for table, key in zip(base_of, rows[base], strict=True):
                table[key] = min(base, table.get(key, base))
        for table, key in zip(first_of, row, strict=True):
            table.setdefault(key, i)
    witness = np.full(count, -1, dtype=np.int64)
    similarity = np.full(count, np.nan)
    stays = set()
    for base, others in sorted(clusters.items()):
        kept: list[int] = []
        for i in [base, *others]:
            mine = sets[places[i] : places[i + 1]]
            for other in kept:
                theirs = sets[places[other] : places[other + 1]]
                shared = common(mine, theirs, 0)
                value = shared / (len(mine) + len(theirs) - shared)
                if value >= threshold:
                    if witness[i] < 0:
                        witness[i], similarity[i] = other, value
                    break
            else:
                kept.append(i)
        stays.update(kept)
    for i in stays:
        witness[i], similarity[i] = -1, np.nan
    return witness, similarity
