"""The long proof of the comment-to-code ratio: the fast scanners beside ast + tokenize and pygments on this machine.

    python benchmarks/evidence/comments.py [--files 2000] [--roots DIR ...] [--seed 0]

Draws that many files of each language, or all there are; writes benchmarks/results/comments_agreement.json: how many
files took the exact way because the scanner was unsure, and of the others how many have the same keep-or-drop decision
(0.01 < ratio < 0.80) and the very same ratio, those that parse and those that do not.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from near_duplicates import LANGUAGES, files

from kringle.data.comments import exact_comment_ratio, measure_comments
from kringle.machine import machine, versions

RESULT = Path(__file__).resolve().parent.parent / "results" / "comments_agreement.json"


def parses(text: str, language: str) -> bool:
    """Whether a text is Python 3; of the other languages pygments takes everything."""
    if language != "python":
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--roots", type=Path, nargs="+", default=[Path("/usr"), Path("/opt")])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found: dict[str, list[str]] = {language: [] for language in LANGUAGES.values()}
    seen: set[int] = set()
    for language, _, data in files(given.roots):
        if hash(data) not in seen and 0 < len(data) < 1_000_000:
            seen.add(hash(data))
            found[language].append(data.decode("utf-8", "ignore"))
    rows = {}
    for language, texts in found.items():
        chosen = random.Random(given.seed).sample(texts, min(given.files, len(texts)))
        counts: Counter[str] = Counter()
        for text in filter(None, chosen):
            ours = measure_comments(text, language)
            counts["files"] += 1
            if not ours.fast:
                counts["unsure"] += 1
                continue
            exact = exact_comment_ratio(text, language)
            kind = "parseable" if parses(text, language) else "not_parseable"
            counts[kind] += 1
            counts[f"{kind}_same_decision"] += (0.01 < exact < 0.80) == (0.01 < ours.ratio < 0.80)
            counts[f"{kind}_same_ratio"] += exact == ours.ratio
        rows[language] = dict(counts)
        print(language, rows[language], flush=True)
    record = {"languages": rows, "seed": given.seed, "machine": asdict(machine()), "versions": versions()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
