"""Judging a stream of programs with several runners at once, in bounded memory.

One thread and one set of jails a worker: the threads only wait for their jails, where the work is done. Results come in
any order; whoever needs an order keeps it. A program that was too close to a limit comes back without a verdict, to be
asked about again alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.runner import Runners
from kringle.evaluation.jail.verdicts import Limits, Verdict
from kringle.evaluation.problems import Problem

_AHEAD = 16  # programs in the queues for each worker: enough that none waits, few enough that memory stays flat


class Job(NamedTuple):
    """A program to judge; `key` is the caller's, and comes back with the verdict. `program` ends where tests begin."""

    key: bytes
    problem: Problem
    program: str


class Judged(NamedTuple):
    """What came of a job; no verdict where it must be asked about again, alone."""

    job: Job
    verdict: Verdict | None


def judge_all(jobs: Iterable[Job], workers: int, limits: Limits, level: Level) -> Generator[Judged, None, None]:
    """Judge every job beside others, in any order.

    A fault of our own in a worker is raised here. Closing the iterator ends the workers after the program at hand.
    """
    work: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Judged | BaseException] = queue.SimpleQueue()
    stopping = threading.Event()

    def worker() -> None:
        try:
            with closing(Runners(limits, level)) as runners:
                while (job := work.get()) is not None and not stopping.is_set():
                    runner = runners.of(job.problem.language)
                    done.put(Judged(job, runner.judge(job.problem, job.program, alone=False)))
        except BaseException as error:
            done.put(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(max(1, workers))]
    for thread in threads:
        thread.start()
    try:
        under_way = 0
        for job in jobs:
            work.put(job)
            under_way += 1
            if under_way >= _AHEAD * len(threads):
                yield _take(done)
                under_way -= 1
        for _ in range(under_way):
            yield _take(done)
    finally:
        stopping.set()
        for _ in threads:
            work.put(None)
        for thread in threads:
            thread.join()


def judge_alone(jobs: Iterable[Job], limits: Limits, level: Level) -> Iterator[Judged]:
    """Judge one job after another with nothing beside them; these verdicts are final."""
    with closing(Runners(limits, level)) as runners:
        for job in jobs:
            yield Judged(job, runners.of(job.problem.language).judge(job.problem, job.program, alone=True))


def _take(done: queue.SimpleQueue[Judged | BaseException]) -> Judged:
    result = done.get()
    if isinstance(result, BaseException):
        raise result
    return result
