"""What scoring needs of a language: a runner that judges one program after another, in jails of its own.

Three languages, one shape: a fast tier that many programs share, in which failing is final, and a confirming tier, a
fresh process without the tests, in which alone passing is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kringle.errors import UserError
from kringle.evaluation.jail.java import JavaRunner
from kringle.evaluation.jail.javascript import JavaScriptRunner
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.python import PythonRunner
from kringle.evaluation.jail.runtimes import find_java, find_node
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict
from kringle.evaluation.problems import Problem


class Runner(Protocol):
    """Judges programs of one language, one at a time; owns its jails and everything in them."""

    def judge(self, problem: Problem, program: str, alone: bool) -> Verdict | None:
        """The verdict on one program, given as the text that runs before the problem's tests.

        None: too close to a limit to tell, ask again with `alone` when nothing else runs.
        """

    def close(self) -> None:
        """End every process and remove everything that this runner left in the system."""


class Missing:
    """Stands in for a runner whose runtime this machine lacks: nothing is judged, and every verdict says why."""

    def __init__(self, why: str, level: Level) -> None:
        self._why, self._level = why, level

    def judge(self, problem: Problem, program: str, alone: bool) -> Verdict | None:
        """Always `infrastructure`."""
        return Verdict(problem.task_id, Kind.INFRASTRUCTURE, self._why, "none", str(self._level.name), 0.0, 0.0, None)

    def close(self) -> None:
        """Nothing was started."""


_RUNNERS: dict[str, Callable[[Limits, Level], Runner]] = {
    "python": PythonRunner,
    "java": JavaRunner,
    "javascript": JavaScriptRunner,
}


def open_runner(language: str, limits: Limits, level: Level) -> Runner:
    """A runner for a language, in a jail of a level that `probe` found on this machine.

    UserError where there is none for the language, or this machine lacks its runtime.
    """
    if language not in _RUNNERS:
        known = ", ".join(sorted(_RUNNERS))
        raise UserError(f"no runner for {language} programs", hint=f"there is one for {known}")
    missing = missing_runtime(language)
    if missing:
        raise UserError(missing)
    return _RUNNERS[language](limits, level)


def missing_runtime(language: str) -> str:
    """Why programs of a language cannot run here, in one line; "" where they can."""
    find = {"java": find_java, "javascript": find_node}.get(language)
    if find is None:
        return ""
    found = find()
    return found if isinstance(found, str) else ""


class Runners:
    """One worker's runners, each opened when its language first comes up."""

    def __init__(self, limits: Limits, level: Level) -> None:
        self._limits, self._level = limits, level
        self._open: dict[str, Runner] = {}

    def of(self, language: str) -> Runner:
        """The runner of a language; one that only says why where its runtime is missing."""
        if language not in self._open:
            why = missing_runtime(language)
            runner = Missing(why, self._level) if why else open_runner(language, self._limits, self._level)
            self._open[language] = runner
        return self._open[language]

    def close(self) -> None:
        """Close all of them."""
        for runner in self._open.values():
            runner.close()
        self._open.clear()
