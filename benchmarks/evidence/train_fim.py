"""SantaCoder's batches against the oracle: the same distribution of cuts, formats, lengths and truncations.

    python benchmarks/evidence/train_fim.py                   100,000 windows of 257 tokens; some minutes of a core
    python benchmarks/evidence/train_fim.py --windows 5000 --context 2048

Text is Python's own library, tokenized with 2,048 tokens learnt from it. Ours are the windows that the trainer gets;
the oracle (tests/fim_oracle.py, written from the description alone) takes the same windows with a generator of its own,
drawn from in order. Two-sample tests at 0.1%: Kolmogorov-Smirnov for the places of both cuts and for lengths, normal
approximation for counts. Every 50th window is also given to the oracle with our draws, and must come out the same.
Writes benchmarks/results/train_fim.json; exit code 1 if a test fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fim_oracle import Outcome, procedure  # noqa: E402
from fim_oracle_support import Given, OurCodec, Stateful  # noqa: E402

from kringle.machine import machine, versions  # noqa: E402
from kringle.settings import FimSettings  # noqa: E402
from kringle.tokens.store import TokenStore  # noqa: E402
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer  # noqa: E402
from kringle.training.windows import WindowBatches, segments  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "train_fim.json"
KOLMOGOROV = 1.95  # of the two-sample test at 0.1%
NORMAL = 3.29


def corpus(folder: Path, size: int) -> tuple[TokenStore, Tokenizer]:
    """A store of about `size` bytes of Python's own library."""
    texts: dict[str, str] = {}
    total = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        texts[str(path)] = text
        total += len(text)
        if total > size:
            break
    tokenizer = train_tokenizer(iter(texts.values()), 2048, folder / "tokenizer")
    encoded = tokenizer.encode_batch(list(texts.values()))
    documents = ((name, "python", len(text), ids) for (name, text), ids in zip(texts.items(), encoded, strict=True))
    return TokenStore.write(folder / "store", documents, vocab_size=2048, tokenizer=tokenizer.checksum), tokenizer


def same(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Kolmogorov-Smirnov's distance between two samples, and the limit at 0.1%."""
    x, y = np.sort(np.asarray(a, float)), np.sort(np.asarray(b, float))
    grid = np.concatenate((x, y))
    gap = np.abs(np.searchsorted(x, grid, "right") / len(x) - np.searchsorted(y, grid, "right") / len(y)).max()
    return {"distance": float(gap), "limit": KOLMOGOROV * float(np.sqrt(1 / len(x) + 1 / len(y)))}


def counted(a: int, b: int) -> dict[str, float]:
    return {"ours": a, "oracle": b, "distance": abs(a - b), "limit": NORMAL * float(np.sqrt(a + b)) + 1}


def compare(ours: list[Outcome], theirs: list[Outcome], size: int) -> dict[str, dict[str, float]]:
    def of(pick: Any) -> dict[str, float]:
        return same([x for o in ours for x in pick(o)], [x for o in theirs for x in pick(o)])

    def count(pick: Any) -> dict[str, float]:
        return counted(sum(pick(o) for o in ours), sum(pick(o) for o in theirs))

    return {
        "first cut": of(lambda o: [c[0] / c[2] for c in o.cuts if c[2]]),
        "second cut": of(lambda o: [c[1] / c[2] for c in o.cuts if c[2]]),
        "middle": of(lambda o: [(c[1] - c[0]) / c[2] for c in o.cuts if c[2]]),
        "length before cutting or filling": of(lambda o: [o.before]),
        "SPM": count(lambda o: o.spm),
        "PSM": count(lambda o: o.psm),
        "bare": count(lambda o: o.bare),
        "windows that lose tokens": count(lambda o: o.before > size),
        "windows that are filled": count(lambda o: o.before < size),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--bytes", type=int, default=12_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, tokenizer = corpus(Path(folder), asked.bytes)
        source = WindowBatches(
            store, range(len(store)), tokenizer, context=asked.context, batch_tokens=asked.context,
            fim=FimSettings(), seed=0, steps=asked.windows,
        )  # fmt: skip
        codec, state = OurCodec(tokenizer), np.random.RandomState(1234)
        ours: list[Outcome] = []
        theirs: list[Outcome] = []
        checked = 0
        for step in range(asked.windows):
            number = int(source._order[step])
            window, _ = source.window(number)
            listed = window.tolist()
            draws = source.draws(number, len(segments(window, codec.specials[0])))
            outcome = procedure(listed, codec, lambda i, d=draws: Given(d[i]))  # type: ignore[misc]
            if step % 50 == 0:
                batch = source.batch(step)
                if [*batch.tokens[0].tolist(), int(batch.targets[0, -1])] != outcome.tokens:
                    raise SystemExit(f"window {number} differs from the oracle's")
                checked += 1
            ours.append(outcome)
            theirs.append(procedure(listed, codec, lambda i: Stateful(state, 0.5, 0.5)))
    found = compare(ours, theirs, asked.context + 1)
    passed = all(row["distance"] <= row["limit"] for row in found.values())
    said = {
        "windows": asked.windows,
        "context": asked.context,
        "identical_given_the_same_draws": checked,
        "passed": passed,
        "tests": found,
        "machine": asdict(machine()),
        "versions": versions(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")
    print(json.dumps(said["tests"], indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
