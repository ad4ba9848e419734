"""`kringle bench minhash`: MinHash signatures, MB/s of one core, with SantaCoder's settings and with `corrected`.

Peers get the same files and SantaCoder's settings as far as they have them: 256 permutations of 5-grams with empty
fields (datatrove cuts words its own way). Slow ones get a part of the sample. `bigcode` is a checkout of
bigcode-analysis (December 2022) or bigcode-dataset; the others are listed in `benchmarks/peers/minhash.txt`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from kringle.bench import Measured, Peers
from kringle.bench.data_peers import HERE, sample, write_sample
from kringle.data.near_duplicates.inputs import texts
from kringle.data.near_duplicates.method import Method

SAMPLE_BYTES = 24_000_000
SLOW_BYTES = 1_500_000
PEERS = ("bigcode", "datasketch", "rensa", "datatrove", "text-dedup")
SETTINGS = {
    "faithful, 5-grams (SantaCoder's stronger step)": Method.of(5, 0.7, "faithful"),
    "faithful, single tokens (its base step)": Method.of(1, 0.85, "faithful"),
    "corrected, 5-grams": Method.of(5, 0.7, "corrected"),
    "corrected, single words": Method.of(1, 0.85, "corrected"),
}


def peer_rates(
    peers: Peers, names: tuple[str, ...], script: Path, rows: list[tuple[str, str]], limit: int
) -> tuple[dict[str, float], list[str]]:
    """MB/s of each peer that is there, and the absent with the reason."""
    rates: dict[str, float] = {}
    absent: list[str] = []
    if not peers.wanted:
        return rates, absent
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.jsonl"
        write_sample(path, rows, limit)
        for name in names:
            checkout = peers.paths.get(name)
            if name.startswith("bigcode") and checkout is None:
                absent.append(f"{name} (give its checkout with --peer-path {name}=DIR)")
                continue
            # a checkout has no interpreter of its own: it runs in the environment of a peer that has what it needs
            own = checkout is not None and (checkout / "bin/python").exists()
            runner = "env" if "env" in peers.paths and not own else name
            told, why = peers.run(runner, script, name, str(path), *([str(checkout)] if checkout else []))
            if told is None:
                absent.append(f"{name} ({why})")
            else:
                rates[name] = round(told["rate"], 3)
    return rates, absent


def rate(sign: Callable[[], object], size: int) -> float:
    """MB/s of one core by processor time, after a first call that compiles; the best of three."""
    sign()
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        sign()
        best = max(best, size / 1e6 / (time.process_time() - started))
    return best


def measure(peers: Peers) -> Measured:
    """All four settings of ours, and the peers."""
    rows = sample(SAMPLE_BYTES)
    data, offsets = texts(pa.chunked_array([pa.array([text for _, text in rows], pa.large_string())]), "sample")
    ours = {
        name: rate(lambda method=method: method.signatures(data, offsets), len(data))  # type: ignore[misc]
        for name, method in SETTINGS.items()
    }
    rates, absent = peer_rates(peers, PEERS, HERE / "minhash_peer.py", rows, SLOW_BYTES)
    first = next(iter(ours))
    return Measured(
        unit="MB/s per core",
        ours=round(ours[first], 2),
        peers=rates,
        absent=absent,
        details={
            "settings": {name: round(value, 2) for name, value in ours.items()},
            "files": len(rows),
            "bytes": len(data),
            "bytes_of_peers": SLOW_BYTES,
        },
        lines=[
            *(f"{value:9.1f} MB/s  {name}" for name, value in ours.items()),
            *(f"{value:9.2f} MB/s  {name}" for name, value in rates.items()),
            *(f"   absent      {name}" for name in absent),
        ],
    )
