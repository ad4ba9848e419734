"""The long proof of the comment-to-code ratio: the fast scanners beside ast + tokenize and pygments on this machine.

    python benchmarks/evidence/comments.py [--files N] [--roots DIR ...]

Takes every file of at most 1 MB (The Stack's limit) in the three languages, or N of each: half an hour of one core for
1.4 GB. Writes benchmarks/results/comments_agreement.json: how many files took the exact way because the scanner was
unsure, and of the others how many have the same keep-or-drop decision (0.01 < ratio < 0.80) and the very same ratio,
those that parse and those that do not.
"""

from __future__ import annotations

import argparse
import ast
import json
import warnings
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from machine_code import THREE, sources

from kringle.data.comments import exact_comment_ratio, measure_comments
from kringle.machine import machine, versions

LARGEST = 1_000_000
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
    parser.add_argument("--files", type=int, help="as many of each language; all by default")
    parser.add_argument("--roots", type=Path, nargs="+", default=[Path("/")])
    given = parser.parse_args()
    code = [file for file in sources(given.roots, THREE) if 0 < file.size <= LARGEST]
    rows = {}
    for language in THREE:
        counts: Counter[str] = Counter()
        for file in islice((file for file in code if file.language == language), given.files):
            text = file.read().decode("utf-8", "ignore")
            if not text:
                continue
            ours = measure_comments(text, language)
            counts["files"] += 1
            counts["bytes"] += file.size
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
    record = {"languages": rows, "machine": asdict(machine()), "versions": versions()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
