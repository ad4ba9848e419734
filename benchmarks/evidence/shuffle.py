"""A simulation of the shuffle of near-duplicate removal, to learn what a large corpus asks of disk, network and memory.

    python benchmarks/evidence/shuffle.py                          2 million documents, 25 bands, 64 partitions
    python benchmarks/evidence/shuffle.py --documents 8000000

Every document sends a record (band key of 8 bytes, document number of 8 bytes) per band to the partition that its key
names; a partition is sorted, and documents with equal keys become edges to the first of them. Clusters of duplicates
have sizes as heavy-tailed as a template's copies (a power law), and one key is shared by one document in a thousand, as
a licence's text is. What comes out: records a second, bytes on disk, the most memory, and how uneven the partitions
are. Signatures are not computed: `kringle bench minhash` measures those. Writes `benchmarks/results/shuffle.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kringle.engine import peak_memory
from kringle.machine import machine, versions
from kringle.randomness import stream

RESULTS = Path(__file__).resolve().parent.parent / "results"
RECORD = np.dtype([("key", "<u8"), ("document", "<u8")])
BATCH = 100_000
DUPLICATES = 0.386  # of all files are near-duplicates: The Stack v1.0 (arXiv 2211.15533)
ALONE = 0.9  # share of its bands that a duplicate has in common with its cluster
TEMPLATE = 0.001  # of the documents share one key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--bands", type=int, default=25)
    parser.add_argument("--partitions", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kringle-shuffle-") as folder:
        record = simulate(Path(folder), arguments.documents, arguments.bands, arguments.partitions)
    record |= {"machine": asdict(machine()), "versions": versions()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "shuffle.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key not in ("machine", "versions")}))


def simulate(folder: Path, documents: int, bands: int, partitions: int) -> dict[str, Any]:
    """Both sides of the shuffle, timed in processor time."""
    started = time.process_time()
    sizes = np.zeros(partitions, dtype=np.int64)
    spent_drawing = 0.0
    files = [(folder / f"{p:04d}").open("wb") for p in range(partitions)]
    for first in range(0, documents, BATCH):
        before = time.process_time()
        batch = draw(first, min(BATCH, documents - first), bands)
        spent_drawing += time.process_time() - before
        place = (batch["key"] >> np.uint64(32)).astype(np.int64) % partitions
        order = np.argsort(place, kind="stable")
        counts = np.bincount(place, minlength=partitions)
        sizes += counts
        for file, piece in zip(files, np.split(batch[order], np.cumsum(counts)[:-1]), strict=True):
            file.write(piece.tobytes())
    for file in files:
        file.close()
    mapped = time.process_time()
    edges = largest = 0
    for p in range(partitions):
        records = np.fromfile(folder / f"{p:04d}", dtype=RECORD)
        order = np.lexsort((records["document"], records["key"]))
        keys = records["key"][order]
        same = keys[1:] == keys[:-1]
        edges += int(same.sum())
        borders = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        largest = max(largest, int(np.diff(borders).max(initial=0)))
    reduced = time.process_time()
    total = int(sizes.sum())
    writing = mapped - started - spent_drawing
    return {
        "documents": documents,
        "records": total,
        "bytes": total * RECORD.itemsize,
        "partitions": partitions,
        "write_seconds": round(writing, 2),
        "sort_seconds": round(reduced - mapped, 2),
        "records_per_second": round(total / (writing + reduced - mapped)),
        "edges_per_document": round(edges / documents, 3),
        "largest_bucket": largest,
        "largest_partition_over_mean": round(float(sizes.max() / sizes.mean()), 3),
        "peak_memory": peak_memory(),
    }


def draw(first: int, count: int, bands: int) -> np.ndarray:
    """Records of the documents `first` to `first + count`."""
    chance = stream(0, "shuffle", first)
    keys = chance.integers(0, 1 << 63, (count, bands), dtype=np.uint64)
    copies = np.flatnonzero(chance.random(count) < DUPLICATES)
    cluster = np.floor(chance.pareto(1.1, len(copies)) * 1000).astype(np.uint64)  # the same few numbers again and again
    shared = (cluster[:, None] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.arange(bands, dtype=np.uint64)
    common = chance.random((len(copies), bands)) < ALONE
    keys[copies] = np.where(common, shared * np.uint64(0xBF58476D1CE4E5B9), keys[copies])
    keys[chance.random(count) < TEMPLATE, 0] = 1
    batch = np.empty(count * bands, dtype=RECORD)
    batch["key"] = keys.ravel()
    batch["document"] = np.repeat(np.arange(first, first + count, dtype=np.uint64), bands)
    return batch


if __name__ == "__main__":
    main()
