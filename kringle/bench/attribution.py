"""`kringle bench attribution`: building the attribution index, its size, and looking completions up in it.

The corpus is the Python of this environment (standard library and site-packages), up to 24 MB. Planted copies are
stretches of 50 to 400 characters of it between words that are nowhere; a look-up is of a completion of 1,200
characters, half of it copied. No peer that can be installed does this: BigCode's search of SantaCoder's data ranks
whole files by n-grams on a server.
"""

from __future__ import annotations

import random
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kringle.attribution.building import build
from kringle.attribution.index import AttributionIndex
from kringle.bench import Measured, Peers
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import train_tokenizer

CORPUS_BYTES = 24_000_000
VOCABULARY = 4096
PLANTED = 10_000
LOOK_UPS = 500


def measure(peers: Peers) -> Measured:
    texts = list(_texts())
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(texts[::8], VOCABULARY, Path(folder, "tokenizer"))
        tokens = (
            np.array(ids) for i in range(0, len(texts), 256) for ids in tokenizer.encode_batch(texts[i : i + 256])
        )
        documents = (
            (str(i), "python", len(t.encode()), ids) for i, (t, ids) in enumerate(zip(texts, tokens, strict=True))
        )
        store = TokenStore.write(
            Path(folder, "store"), documents, vocab_size=tokenizer.specials.end_of_text, tokenizer=tokenizer.checksum
        )
        row = {"repo": "bench", "path": "x.py", "language": "python", "licenses": ["MIT"], "revision": ""}
        rows = [{"number": i, "id": str(i), **row} for i in range(len(texts))]
        build(store, tokenizer, rows, Path(folder, "warm"))  # compiles the kernels, as these look-ups do
        sum(1 for _ in _look_ups(AttributionIndex(Path(folder, "warm"), store, tokenizer), texts))
        started = time.process_time()
        built = build(store, tokenizer, rows, Path(folder, "index"))
        seconds = time.process_time() - started
        index = AttributionIndex(Path(folder, "index"), store, tokenizer)
        found = _planted_found(index, texts)
        milliseconds = sorted(_look_ups(index, texts))
    rate = size / 1e6 / seconds
    share = built["index_bytes"] / size
    details = {
        "corpus_bytes": size,
        "index_share_of_corpus": round(share, 4),
        "planted": PLANTED,
        "planted_found": found,
        "look_up_ms_median": round(milliseconds[len(milliseconds) // 2], 3),
        "look_up_ms_p99": round(milliseconds[int(len(milliseconds) * 0.99)], 3),
        "look_up_ms_max": round(milliseconds[-1], 3),
    }
    lines = [
        f"built {size / 1e6:.0f} MB at {rate:.1f} MB/s a core; the index is {share:.1%} of that",
        f"found {found:,} of {PLANTED:,} planted copies of 50 to 400 characters",
        f"looked completions up in {details['look_up_ms_median']} ms (median), {details['look_up_ms_p99']} ms (p99)"
        f", {details['look_up_ms_max']} ms at most",
    ]
    absent = ["no peer that can be installed does this"] if peers.wanted else []
    return Measured("MB/s per core", round(rate, 2), absent=absent, details=details, lines=lines)


def _texts() -> Iterator[str]:
    total = 0
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for file in sorted(Path(folder).rglob("*.py")):
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue  # test files with other encodings on purpose
            if total + len(text) > CORPUS_BYTES:
                return
            total += len(text)
            yield text


def _piece(draw: random.Random, texts: list[str], shortest: int, longest: int) -> str:
    while True:
        text = draw.choice(texts)
        if len(text) >= longest:
            start = draw.randrange(len(text) - longest + 1)
            return text[start : start + draw.randint(shortest, longest)]


def _planted_found(index: AttributionIndex, texts: list[str]) -> int:
    draw, found = random.Random(0), 0
    for _ in range(PLANTED):
        piece = _piece(draw, texts, 50, 400)
        copies = index.find(f"ÿzq{piece}ÿqz")
        covered = {i for copy in copies if copy.kind == "exact" for i in range(copy.start, copy.end)}
        found += covered >= set(range(3, 3 + len(piece)))
    return found


def _look_ups(index: AttributionIndex, texts: list[str]) -> Iterator[float]:
    draw = random.Random(1)
    for _ in range(LOOK_UPS):
        words = " ".join(
            draw.choice(["alpha", "beta", "gamma", "delta", "return", "if", "x", "y", "z", "=", "+", "(", ")"])
            for _ in range(110)
        )
        text = words[:300] + _piece(draw, texts, 600, 600) + words[300:600]
        started = time.perf_counter()
        index.find(text)
        yield 1000 * (time.perf_counter() - started)
