"""`kringle bench encode`: a tokenizer of SantaCoder's size is trained on source code, and the code encoded with it.

The corpus is this Python's own installation. Rates are in processor time of one core, of texts in memory to ids in
memory; the vocabulary has 49,152 tokens where the corpus fills it. Ours is timed twice, with its table of known
pre-tokens empty (`cold`, what is told as ours) and again (`warm`). Peers: `tokenizers` (ids must be the same: a
difference is a fault of the benchmark) and `tiktoken`. Training is timed too, ours beside the library's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kringle.bench import Measured, Peers
from kringle.tokens.tokenizer import TOKENIZER_FILE, Tokenizer, write_tokenizer
from kringle.tokens.words import Counter

CORPUS_BYTES = 24_000_000
PEER_BYTES = 4_000_000  # the peers get the first files only: some are slow
VOCABULARY = 49_152
_SCRIPTS = Path(__file__).parent / "encode_peers"


def measure(peers: Peers) -> Measured:
    """Rates in MB/s a core: encoding is what is compared, training is among the details."""
    texts = corpus(CORPUS_BYTES)
    size = sum(len(text.encode()) for text in texts)
    few = corpus(PEER_BYTES)
    with tempfile.TemporaryDirectory(prefix="kringle-bench-") as folder:
        train(texts[:3], 300, Path(folder))  # compiles, which is not what is timed
        tokenizer, training = train(texts, VOCABULARY, Path(folder))
        rates, ids, tokens = ours(Path(folder), texts, few)
        found: dict[str, Any] = {}
        absent: list[str] = []
        if peers.wanted:
            found, absent = theirs(peers, tokenizer, Path(folder), few)
            if "tokenizers" in found and found["tokenizers"]["ids"] != ids:
                raise AssertionError("ids differ from those of tokenizers")
            training["tokenizers_seconds"] = train_with_library(texts)
    return Measured(
        unit="MB/s a core",
        ours=round(rates["cold"], 2),
        peers={name: round(result["rate"] / 1e6, 3) for name, result in found.items()},
        absent=absent,
        details={
            "bytes": size,
            "tokens": tokens,
            "vocabulary": tokenizer.vocab_size,
            "rates": {name: round(rate, 2) for name, rate in rates.items()},
            "training": training,
            "peers": found,
        },
        lines=[
            f"encode: {rates['cold']:.1f} MB/s a core ({rates['warm']:.1f} when every pre-token is known)",
            *(f"  {name}: {result['rate'] / 1e6:.2f} MB/s" for name, result in found.items()),
            *(f"  {why}" for why in absent),
            f"train: {size / 1e6:.0f} MB in {training['seconds']:.1f} s"
            + (f"; tokenizers {training['tokenizers_seconds']:.1f} s" if "tokenizers_seconds" in training else ""),
        ],
    )


def corpus(limit: int) -> list[str]:
    """Python files of this installation, in the order of their paths' hashes, up to `limit` bytes."""
    paths = sysconfig.get_paths()
    files = {file for key in ("stdlib", "purelib") for file in Path(paths[key]).rglob("*.py")}
    texts, total = [], 0
    for file in sorted(files, key=lambda file: hashlib.sha256(str(file).encode()).digest()):
        try:
            texts.append(file.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError):
            continue  # a test file of the library in another encoding
        total += len(texts[-1].encode())
        if total >= limit:
            break
    return texts


def _joined(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int64)
    return np.frombuffer(b"".join(data), dtype=np.uint8), offsets


def train(texts: list[str], vocabulary: int, folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer of at most this size, and how long it took in processor time."""
    joined = _joined(texts)
    started = time.process_time()
    counter = Counter()
    counter.add(*joined)
    words = counter.words()
    counted = time.process_time()
    tokenizer = write_tokenizer(words, vocabulary, folder)
    ended = time.process_time()
    return tokenizer, {
        "seconds": round(ended - started, 3),
        "counting_seconds": round(counted - started, 3),
        "words": len(words.counts),
    }


def ours(folder: Path, texts: list[str], few: list[str]) -> tuple[dict[str, float], str, int]:
    """Rates with an empty and with a full table; the hash of the ids of the first texts; tokens of all."""
    Tokenizer.load(folder).encode("compile")
    tokenizer = Tokenizer.load(folder)
    joined = _joined(texts)
    rates = {}
    for name in ("cold", "warm"):
        started = time.process_time()
        ids, _ = tokenizer.encode_utf8(*joined)
        rates[name] = len(joined[0]) / (time.process_time() - started) / 1e6
    digest = hashlib.sha256()
    for text in few:
        digest.update(json.dumps(tokenizer.encode(text)).encode())
    return rates, digest.hexdigest(), len(ids)


def theirs(peers: Peers, tokenizer: Tokenizer, folder: Path, few: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What each peer's script measured, and the peers that could not be run."""
    (folder / "texts.json").write_text(json.dumps(few), encoding="utf-8")
    ranks = {token.hex(): id for id, token in enumerate(tokenizer.token_bytes) if token}
    (folder / "ranks.json").write_text(json.dumps(ranks))
    found, absent = {}, []
    for name, file in (("tokenizers", TOKENIZER_FILE), ("tiktoken", "ranks.json")):
        script = _SCRIPTS / f"with_{name}.py"
        result, why = peers.run(name, script, str(folder / file), str(folder / "texts.json"))
        if result is None:
            absent.append(f"{name}: {why}")
        else:
            found[name] = result
    return found, absent


def train_with_library(texts: list[str]) -> float:
    """Processor seconds of the library's own training on the same texts, all its threads together."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    before = os.environ.get("TOKENIZERS_PARALLELISM", "false")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    started = time.process_time()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    )
    os.environ["TOKENIZERS_PARALLELISM"] = before
    return round(time.process_time() - started, 3)
