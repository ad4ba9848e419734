"""Verdicts on completions in memory: identical programs once, every core busy, the doubtful ones alone at the end.

The result depends on the completions and the suite only: not on the number of workers, nor on which of them got which
program, nor on the load of the machine (times and memory aside). `verdict_file.py` does the same for files of any size.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Protocol

from kringle.errors import UserError
from kringle.evaluation.jail.levels import level_for_scoring
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.pool import Job, judge_all, judge_alone
from kringle.evaluation.suites import Completion, Suite

_log = logging.getLogger(__name__)


class ProgressTask(Protocol):
    """What is told about work under way."""

    def advance(self, amount: int) -> object: ...


class Progress(Protocol):
    """Where progress is shown."""

    def task(self, title: str, total: int, unit: str = ...) -> AbstractContextManager[ProgressTask]: ...


def score(
    suite: Suite,
    completions: Sequence[Completion],
    workers: int,
    unsafe: bool = False,
    progress: Progress | None = None,
) -> list[Verdict]:
    """One verdict for each completion, in their order. Infrastructure verdicts are logged as errors.

    Raises UserError for a completion of a problem that the suite does not have, and where no jail can be had and
    `unsafe` is not set.
    """
    level = level_for_scoring(unsafe)
    for completion in completions:
        if completion.task_id not in suite.by_id:
            raise UserError(f"{completion.task_id!r} is no problem of {suite.name}")
    distinct = list(dict.fromkeys(completions))
    copies = Counter(completions)
    verdicts: dict[Completion, Verdict] = {}
    doubtful: list[int] = []
    shown = progress.task(f"score {suite.name}", len(completions), unit="programs") if progress else nullcontext(None)
    with shown as task:

        def note(number: int, verdict: Verdict) -> None:
            verdicts[distinct[number]] = verdict
            if task is not None:
                task.advance(copies[distinct[number]])

        with closing(
            judge_all(
                (_job(suite, number, one) for number, one in enumerate(distinct)),
                min(workers, len(distinct)),
                suite.limits,
                level,
            )
        ) as results:
            for job, verdict in results:
                number = int.from_bytes(job.key, "big")
                if verdict is None:
                    doubtful.append(number)
                else:
                    note(number, verdict)
        for job, verdict in judge_alone(
            (_job(suite, number, distinct[number]) for number in sorted(doubtful)), suite.limits, level
        ):
            assert verdict is not None, "a run alone always has a verdict"
            note(int.from_bytes(job.key, "big"), verdict)
    faults = [verdict for verdict in verdicts.values() if verdict.verdict is Kind.INFRASTRUCTURE]
    for fault in faults:
        _log.error("%s was not judged, the jail failed: %s", fault.task_id, fault.evidence)
    return [verdicts[completion] for completion in completions]


def _job(suite: Suite, number: int, completion: Completion) -> Job:
    problem = suite.by_id[completion.task_id]
    program = problem.whole(completion.text) if completion.whole else problem.program(completion.text)
    return Job(number.to_bytes(8, "big"), problem, program)
