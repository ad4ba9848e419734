"""What scoring needs of a language: a runner that judges one program after another, in jails of its own.

Python has one (`python.py`). Java and JavaScript fit the same shape: their fast tier is a warm virtual machine, their
confirming tier a fresh one, and both may only say what `Verdict` can say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kringle.errors import UserError
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.python import PythonRunner
from kringle.evaluation.jail.verdicts import Limits, Verdict
from kringle.evaluation.suites import Problem


class Runner(Protocol):
    """Judges programs of one language, one at a time; owns its jails and everything in them."""

    def judge(self, problem: Problem, completion: str, alone: bool) -> Verdict | None:
        """The verdict on one completion.

        None: too close to a limit to tell, ask again with `alone` when nothing else runs.
        """

    def close(self) -> None:
        """End every process and remove everything that this runner left in the system."""


_RUNNERS: dict[str, Callable[[Limits, Level], Runner]] = {"python": PythonRunner}


def open_runner(language: str, limits: Limits, level: Level) -> Runner:
    """A runner for a language, in a jail of a level that `probe` found on this machine."""
    if language not in _RUNNERS:
        known = ", ".join(sorted(_RUNNERS))
        raise UserError(f"no runner for {language} programs", hint=f"there is one for {known}")
    return _RUNNERS[language](limits, level)
