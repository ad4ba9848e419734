"""Example completions for the report: a few held-out lines as every arm filled them in, and one program of each kind.

Chosen by rule, not by taste: the lines are the first of the evaluation's own order for which the base was right, and
the first for which it was wrong; the programs are the first that passed and the first that failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kringle.evaluation.kept import read_lines
from kringle.evaluation.suites import load_suite
from kringle.study.judgements import Measurements
from kringle.study.plan import Run
from kringle.study.results import Example

LINES_EACH = 2  # infilling tasks that the base got right, and as many that it got wrong
CONTEXT_LINES = 8  # shown before and after the hidden line


def examples(runs: Sequence[Run], measured: Mapping[str, Measurements], benchmarks: Path | None) -> tuple[Example, ...]:
    """For every arm's first seed: the same infilling tasks, then its own first passing and failing program."""
    firsts: dict[str, Run] = {}
    for run in runs:
        firsts.setdefault(run.arm.name, run)
    if not firsts:
        return ()
    base = next(iter(firsts.values()))
    tasks = _tasks(measured[base.name].lines)
    shown = [_infilling(name, measured[run.name].lines[number]) for number in tasks for name, run in firsts.items()]
    for name, run in firsts.items():
        for suite in measured[run.name].verdicts:
            shown += _programs(name, run, suite, measured[run.name].verdicts[suite], benchmarks)
    return tuple(shown)


def _tasks(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    right = [i for i, row in enumerate(rows) if row["exact"]][:LINES_EACH]
    wrong = [i for i, row in enumerate(rows) if not row["exact"]][:LINES_EACH]
    return right + wrong


def _infilling(arm: str, row: Mapping[str, Any]) -> Example:
    before = row["prefix"].split("\n")[-CONTEXT_LINES - 1 :]
    after = row["suffix"].split("\n")[: CONTEXT_LINES + 1]
    return Example(
        kind="infilling",
        arm=arm,
        language=row["language"],
        where=f"{row['repo']}/{row['path']}, line {row['line']}",
        prefix="\n".join(before),
        completion=row["completion"],
        suffix="\n".join(after),
        expected=row["expected"],
        correct=bool(row["exact"]),
    )


def _programs(
    arm: str, run: Run, suite_name: str, verdicts: Sequence[Mapping[str, Any]], benchmarks: Path | None
) -> list[Example]:
    """The first program that passed and the first that failed; one that was not judged did neither."""
    suite = load_suite(suite_name, benchmarks)
    samples = list(read_lines(run.evaluate.folder / f"samples-{suite_name}.jsonl"))
    found = []
    for passed in (True, False):
        number = next(
            (i for i, row in enumerate(verdicts) if row["passed"] is passed and row["verdict"] != "infrastructure"),
            None,
        )
        if number is None:
            continue
        problem = suite.by_id[samples[number]["task_id"]]
        found.append(
            Example(
                kind="starter" if suite_name == "starter" else "left-to-right",
                arm=arm,
                language=suite.language,
                where=f"{problem.task_id} {problem.entry_point}",
                prefix=problem.prompt.strip() if suite.protocol.strip_prompt else problem.prompt,
                completion=samples[number]["completion"],
                suffix="",
                expected=None,
                correct=passed,
                remark=f"{verdicts[number]['verdict']}: {verdicts[number]['evidence']}".rstrip(": "),
            )
        )
    return found
