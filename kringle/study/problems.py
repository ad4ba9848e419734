"""Every problem under every arm: how many of its samples passed, and one completion of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kringle.evaluation.kept import read_lines
from kringle.study.judgements import Measurements
from kringle.study.plan import Run
from kringle.study.results import ProblemResult

KEPT = 1200  # characters of a completion that are kept: enough for a function, not for a runaway


def problem_map(runs: Sequence[Run], measured: Mapping[str, Measurements]) -> tuple[ProblemResult, ...]:
    """By suite, problem and arm, in the order of suites, problems and runs; an arm's first seed stands for it.

    The completions are the first that passed and the first that did not; a fault of the jail is neither.
    """
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.arm.control is None:
            firsts.setdefault(run.arm.name, run)
    found: dict[tuple[str, str], list[ProblemResult]] = {}
    for name, run in firsts.items():
        for suite, verdicts in measured[run.name].verdicts.items():
            samples = list(read_lines(run.evaluate.folder / f"samples-{suite}.jsonl"))
            by_problem: dict[str, list[tuple[bool, str]]] = {}
            for row, sample in zip(verdicts, samples, strict=True):
                outcomes = by_problem.setdefault(row["task_id"], [])
                if row["verdict"] != "infrastructure":
                    outcomes.append((bool(row["passed"]), sample["completion"][:KEPT]))
            for problem, outcomes in by_problem.items():
                found.setdefault((suite, problem), []).append(
                    ProblemResult(
                        suite=suite,
                        problem=problem,
                        arm=name,
                        passed=sum(passed for passed, _ in outcomes),
                        samples=len(outcomes),
                        passing=next((text for passed, text in outcomes if passed), None),
                        failing=next((text for passed, text in outcomes if not passed), None),
                    )
                )
    return tuple(cell for cells in found.values() for cell in cells)
