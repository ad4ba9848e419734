"""OpenAI's single-line infilling tasks with their own line in the gap: every one must pass, each in a full jail.

    make evidence infilling

Writes the counts, and every task that did not pass with its evidence, to benchmarks/results/infilling.json. The file of
tasks must be in one of the places where suites are looked for.
"""

from __future__ import annotations

import time
from collections import Counter

import common

from kringle.engine import default_workers
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite


def main() -> None:
    suite = load_suite("humaneval-infilling")
    completions = [Completion(problem.task_id, problem.canonical_solution) for problem in suite.problems]
    started = time.monotonic()
    verdicts = score(suite, completions, default_workers())
    seconds = time.monotonic() - started
    failed = [verdict for verdict in verdicts if not verdict.passed]
    path = common.write(
        "infilling",
        {
            "tasks": len(verdicts),
            "verdicts": Counter(str(verdict.verdict) for verdict in verdicts),
            "jail": Counter(verdict.jail for verdict in verdicts),
            "not_passed": [
                {"task_id": one.task_id, "verdict": str(one.verdict), "evidence": one.evidence} for one in failed
            ],
            "seconds": round(seconds, 1),
        },
    )
    print(
        f"{len(verdicts) - len(failed)} of {len(verdicts)} tasks pass with their own line, in {seconds:.0f} s: {path}"
    )


if __name__ == "__main__":
    main()
