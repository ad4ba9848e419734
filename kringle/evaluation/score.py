"""Verdicts on completions: identical programs once, every core busy, the doubtful ones alone at the end.

The result depends on the completions and the suite only: not on the number of workers, nor on which of them got which
program, nor on the load of the machine (times and memory aside).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Protocol

from kringle.errors import UserError
from kringle.evaluation.jail.levels import Level, level_for_scoring
from kringle.evaluation.jail.runner import open_runner
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.suites import Completion, Suite

_log = logging.getLogger(__name__)


class ProgressTask(Protocol):
    """What is told about work under way."""

    def advance(self, amount: int) -> object: ...


class Progress(Protocol):
    """Where progress is shown."""

    def task(self, title: str, total: int, unit: str = ...) -> AbstractContextManager[ProgressTask]: ...


class _Work(queue.SimpleQueue[int | None]):
    """Numbers of programs still to be judged, then one None for each worker."""


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
    shown = progress.task(f"score {suite.name}", len(completions), unit="programs") if progress else nullcontext(None)
    with shown as task:
        verdicts = _judge_all(suite, distinct, max(1, workers), level, copies, task)
    faults = [verdict for verdict in verdicts.values() if verdict.verdict is Kind.INFRASTRUCTURE]
    for fault in faults:
        _log.error("%s was not judged, the jail failed: %s", fault.task_id, fault.evidence)
    return [verdicts[completion] for completion in completions]


def _judge_all(
    suite: Suite,
    distinct: Sequence[Completion],
    workers: int,
    level: Level,
    copies: Counter[Completion],
    task: ProgressTask | None,
) -> dict[Completion, Verdict]:
    verdicts: dict[Completion, Verdict] = {}
    doubtful: list[int] = []
    lock = threading.Lock()

    def note(number: int, verdict: Verdict | None) -> None:
        with lock:
            if verdict is None:
                doubtful.append(number)
                return
            verdicts[distinct[number]] = verdict
            if task is not None:
                task.advance(copies[distinct[number]])

    _run_workers(suite, distinct, min(workers, len(distinct)), level, note)
    if doubtful:
        with closing(open_runner(suite.language, suite.limits, level)) as runner:
            for number in sorted(doubtful):
                completion = distinct[number]
                note(number, runner.judge(suite.by_id[completion.task_id], completion.text, alone=True))
    return verdicts


def _run_workers(suite: Suite, distinct: Sequence[Completion], workers: int, level: Level, note: _Note) -> None:
    """One thread and one jail each: the threads only wait for their jails, where the work is done."""
    work = _Work()
    for number in range(len(distinct)):
        work.put(number)
    faults: list[BaseException] = []

    def worker() -> None:
        try:
            with closing(open_runner(suite.language, suite.limits, level)) as runner:
                while not faults and (number := work.get()) is not None:
                    completion = distinct[number]
                    note(number, runner.judge(suite.by_id[completion.task_id], completion.text, alone=False))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(workers)]
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:
        faults.append(error)  # Ctrl-C: the workers end after the program that each is at
        for thread in threads:
            thread.join()
        raise
    if faults:
        raise faults[0]


class _Note(Protocol):
    def __call__(self, number: int, verdict: Verdict | None) -> None: ...
