"""The encoder's oracle: not one id other than the `tokenizers` library's, on all code of this machine and on noise.

    python benchmarks/evidence/encoder.py                      everything: every file of code, ten million strings
    python benchmarks/evidence/encoder.py --megabytes 50 --strings 100000

The tokenizer has 49,152 tokens and is learnt from a part of the code, whatever its language. Strings are random bytes
(read as UTF-8 with U+FFFD for what is none) and random sequences of what pre-tokenisation tells apart. Writes
`benchmarks/results/encoder.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from machine_code import LANGUAGES, Source, sources

from kringle.machine import machine, versions
from kringle.randomness import stream
from kringle.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

RESULTS = Path(__file__).resolve().parent.parent / "results"
BATCH = 20_000
LEARNT = 100_000_000  # bytes of code that the tokenizer is learnt from
ATOMS = [
    *" \t\n\r'\"_=()<>|aäßéñ漢字あ🙂\u00a0\u2003\u3000\u2028٣²Ⅷ½09x",
    "'s", "'ll", "'Re", " the", "return", "    ", "\n\n  ", "\ufffd", "\u0558", "\U0010ffff", *SPECIAL_TOKENS,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, help="as many of code; all by default")
    parser.add_argument("--strings", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    limit = None if arguments.megabytes is None else arguments.megabytes * 1_000_000
    code = first(sources([Path("/")], list(LANGUAGES.values())), limit)
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer([text_of(file) for file in first(code, LEARNT)], 49_152, Path(folder))
        ours = Tokenizer.load(Path(folder))
        backend = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    backend.encode_special_tokens = True
    started = time.monotonic()
    record: dict[str, Any] = {"files": compare(ours, backend, map(text_of, code), 50)}
    record["bytes"] = sum(file.size for file in code)
    print(json.dumps(record), flush=True)
    noise: dict[str, int] = {"texts": 0, "ids": 0, "differing": 0}
    for number in range(-(-arguments.strings // BATCH)):
        part = compare(ours, backend, random_texts(number), BATCH)
        noise = {key: noise[key] + part[key] for key in noise}
    record |= {"strings": noise, "seconds": round(time.monotonic() - started), "vocabulary": ours.vocab_size}
    record |= {"machine": asdict(machine()), "versions": versions()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "encoder.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({key: record[key] for key in ("files", "bytes", "strings", "seconds")}))


def first(code: list[Source], limit: int | None) -> list[Source]:
    """Files from the beginning of `code` up to so many bytes: a random sample, since the order is that of a hash."""
    if limit is None:
        return code
    sizes = np.cumsum([file.size for file in code])
    return code[: int(np.searchsorted(sizes, limit, "right"))]


def text_of(file: Source) -> str:
    return file.read().decode("utf-8", "replace")


def compare(ours: Tokenizer, backend: tokenizers.Tokenizer, texts: Iterable[str], at_once: int) -> dict[str, int]:
    """Texts, ids, and texts whose ids differ."""
    count, total, differing = 0, 0, 0
    rest = iter(texts)
    while batch := list(islice(rest, at_once)):
        expected = backend.encode_batch_fast(batch, add_special_tokens=False)
        count += len(batch)
        for text, ids, theirs in zip(batch, ours.encode_batch(batch), expected, strict=True):
            total += len(ids)
            if ids.tolist() != theirs.ids:
                differing += 1
                print(f"differs: {text[:200]!r}", flush=True)
    return {"texts": count, "ids": total, "differing": differing}


def random_texts(number: int) -> list[str]:
    """Half of them bytes, half of them atoms, of up to 24."""
    chance = stream(0, "encoder-oracle", number)
    lengths = chance.integers(0, 25, BATCH)
    noise = chance.integers(0, 256, int(lengths.sum()), dtype=np.uint8).tobytes()
    picks = chance.integers(0, len(ATOMS), int(lengths.sum())).tolist()
    texts, at = [], 0
    for i, length in enumerate(lengths.tolist()):
        if i % 2:
            texts.append(noise[at : at + length].decode("utf-8", "replace"))
        else:
            texts.append("".join(ATOMS[pick] for pick in picks[at : at + length]))
        at += length
    return texts


if __name__ == "__main__":
    main()
