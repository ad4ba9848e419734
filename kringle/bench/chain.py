"""`kringle bench chain`: from Parquet to the token store with all steps on, MB/s of one core.

The stages as a study runs them, one worker: basic filter, near-duplicates (base step), decontamination, secrets and
personal data found and replaced, the signals (comments, stronger near-duplicates), encoding. The tokenizer is trained
before the clock starts. The peer is the sum of BigCode's functions and Hugging Face's tokenizers on the same files,
1 / (1 / minhash + 1 / comments + 1 / PII + 1 / encoding): `--peer-path bigcode=DIR` for the first two,
`--peer-path bigcode-pii=DIR` for the folder `pii` of bigcode-dataset. A sum that lacks a part is not told.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kringle.bench import Measured, Peers
from kringle.bench.data_peers import HERE, sample
from kringle.bench.minhash import peer_rates
from kringle.data.clean import clean
from kringle.data.reading import blob_id
from kringle.data.signals import annotate
from kringle.data.table import SPLIT, read_table, write_documents, write_rows
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.settings import CleanSettings, NearDedupSettings
from kringle.workspace import ShardStore

SAMPLE_BYTES = 96_000_000
SLOW_BYTES = 1_500_000
VOCABULARY = 8192
STARTER = Path(__file__).resolve().parent.parent / "evaluation" / "suites" / "starter.jsonl"


def _documents(folder: Path, rows: list[tuple[str, str]]) -> int:
    """Write the sample as a document table of several shards; its size."""
    folder.mkdir()
    documents: dict[str, dict[str, Any]] = {}
    for number, (language, text) in enumerate(rows):
        data = text.encode()
        id = blob_id(data)
        place = {"path": f"src/{number}", "repo": f"r{number % 50}", "source": "bench", "revision": ""}
        known = {"licenses": ["MIT"], "stars": None, "copies": []}
        documents[id] = {"id": id, "content": text, "language": language, "size": len(data), **place, **known}
    ordered = [documents[id] for id in sorted(documents)]
    for part in range(0, len(ordered), 400):
        write_documents(folder / f"part-{part:05d}.parquet", ordered[part : part + 400])
    return sum(d["size"] for d in ordered)


def _chain(rows: list[tuple[str, str]]) -> tuple[int, dict[str, float]]:
    """Size of the files in bytes, and each stage's processor time, in workers and here."""
    from kringle.tokens.encode import encode
    from kringle.tokens.tokenizer import train_tokenizer

    seconds: dict[str, float] = {}
    quiet = Reporter(quiet=True)
    settings = CleanSettings(near_dedup=NearDedupSettings(1, 0.85), decontaminate=("starter",), pii=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        documents, survivors = work / "documents", work / "clean" / "survivors.parquet"
        redacted = work / "clean" / "documents"
        size = _documents(documents, rows)
        for name in ("tokenizer", "clean", "annotate", "encode"):
            (work / name).mkdir()
        train_tokenizer((text for _, text in rows[:400]), VOCABULARY, work / "tokenizer")

        def timed(name: str, run: Callable[[Engine, ShardStore], object]) -> None:
            engine = Engine(1)
            started = time.process_time()
            run(engine, ShardStore(work / "shards" / name, hashlib.sha256(name.encode()).hexdigest()))
            seconds[name] = time.process_time() - started + engine.cpu_seconds

        def cleaned(engine: Engine, store: ShardStore) -> None:
            clean(settings, documents, work / "clean", store, engine, quiet, {"starter": STARTER})

        def annotated(engine: Engine, store: ShardStore) -> None:
            stronger = [NearDedupSettings(5, 0.7)]
            write_rows(work / "split.parquet", SPLIT, ((id, "train") for id in ids))
            out, sides = work / "annotate", work / "split.parquet"
            annotate(redacted, survivors, sides, stronger, "corrected", out, store, engine, quiet)

        def encoded(engine: Engine, store: ShardStore) -> None:
            encode(redacted, ids, work / "tokenizer", work / "encode", store, engine, quiet)

        timed("clean", cleaned)
        ids = read_table(survivors, ["id"])["id"].to_pylist()
        timed("annotate", annotated)
        timed("encode", encoded)
    return size, seconds


def measure(peers: Peers) -> Measured:
    """The stages one after the other; a first run on a few files compiles what no process has compiled yet."""
    rows = sample(SAMPLE_BYTES)
    _chain(rows[:: max(1, len(rows) // 50)])
    size, seconds = _chain(rows)
    minhash, absent = peer_rates(peers, ("bigcode",), HERE / "minhash_peer.py", rows, SLOW_BYTES)
    comments, _ = peer_rates(peers, ("bigcode",), HERE / "comments_peer.py", rows, SLOW_BYTES)
    pii, without = peer_rates(peers, ("bigcode-pii",), HERE / "pii_peer.py", rows, SLOW_BYTES)
    encoding, more = peer_rates(peers, ("tokenizers",), HERE / "encode_peer.py", rows, SLOW_BYTES)
    absent += [*without, *more]
    rates = {
        "minhash": minhash.get("bigcode"),
        "comments": comments.get("bigcode"),
        "pii": pii.get("bigcode-pii"),
        "encode": encoding.get("tokenizers"),
    }
    sums = {}
    if all(rates.values()):
        sums["bigcode and tokenizers"] = round(1 / sum(1 / value for value in rates.values() if value), 3)
    total = size / 1e6 / sum(seconds.values())
    data = size / 1e6 / (seconds["clean"] + seconds["annotate"])
    return Measured(
        unit="MB/s per core",
        ours=round(total, 2),
        peers=sums,
        absent=absent,
        details={
            "bytes": size,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "without_encoding": round(data, 2),
            "peer_parts": rates,
        },
        lines=[
            f"{total:9.2f} MB/s  all steps; {data:.1f} without encoding",
            *(f"{value:9.2f} s     {name}" for name, value in seconds.items()),
            *(f"{value:9.3f} MB/s  {name}" for name, value in sums.items()),
            *(f"   absent      {name}" for name in absent),
        ],
    )
