"""The two tiers that every language has: reject fast, where failing is final; confirm apart, where passing is.

Reject: program and tests share an interpreter. A harmless program runs in a warm process beside many others; any other,
or one that gave cause for doubt, in a process of its own. What fails there has failed. Confirm: what passed runs once
more in a fresh process that has never seen a test, and the tests call it from a referee's process that it is never in.
Only what passes there has passed.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod

from kringle.errors import UserError
from kringle.evaluation.jail.host import Ended, JailError
from kringle.evaluation.jail.inside.execute import one_line
from kringle.evaluation.jail.inside.keeper import OUT_OF_MEMORY
from kringle.evaluation.jail.inside.wire import Malformed, Message
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.services import Bounds
from kringle.evaluation.jail.verdicts import Kind, Limits, Run, Verdict, decide, needs_run_alone
from kringle.evaluation.problems import Problem

LONGEST_PROGRAM = 2**20  # characters; even escaped in JSON it fits into a message
_PATIENCE = 20.0  # seconds beyond a program's wall limit for the jail to say that it ended
REFEREE_PATIENCE = 1.0  # seconds for the referee to notice that a program was stopped; then it is replaced
OUTCOMES = ("pass", "fail", "syntax", "memory")
_DOUBTED = "passes beside its tests, but not apart from them: "


class TieredRunner(ABC):
    """A `Runner` of two tiers; a language says how its programs run in each."""

    def __init__(self, limits: Limits, level: Level) -> None:
        self._limits, self._level = limits, level

    @abstractmethod
    def _reject_warm(self, problem: Problem, program: str) -> Run | None:
        """The warm process's answer, or None if it has none to give."""

    @abstractmethod
    def _reject_fresh(self, problem: Problem, program: str, alone: bool) -> Run:
        """One run beside the tests in a process of its own."""

    @abstractmethod
    def _confirm(self, problem: Problem, program: str, alone: bool) -> Run:
        """One run apart from the tests."""

    @abstractmethod
    def close(self) -> None:
        """See `Runner.close`."""

    def judge(self, problem: Problem, program: str, alone: bool) -> Verdict | None:
        """See `Runner.judge`."""
        for attempt in ("first", "second"):
            try:
                return self._judge(problem, program, alone)
            except UserError as error:  # the problem's own tests cannot be run: no verdict on any of its programs
                return self._verdict(problem, Kind.INFRASTRUCTURE, str(error), "none", None)
            except (JailError, Malformed, OSError) as error:
                self.close()  # a fault of the jail, whatever its cause: once more in a new one
                if attempt == "second":
                    return self._verdict(problem, Kind.INFRASTRUCTURE, f"{type(error).__name__}: {error}", "none", None)
        raise AssertionError("unreachable")

    def _judge(self, problem: Problem, program: str, alone: bool) -> Verdict | None:
        if len(program) > LONGEST_PROGRAM:
            kind, evidence = Kind.FAIL, f"longer than {LONGEST_PROGRAM} characters"
            return self._verdict(problem, kind, evidence, "reject", None)
        run = None if alone else self._reject_warm(problem, program)
        if run is None:
            run = self._reject_fresh(problem, program, alone)
        tier = "reject"
        if run.outcome == "pass" and (alone or not needs_run_alone(run, self._limits)):
            run, tier = self._confirm(problem, program, alone), "confirm"
        if not alone and needs_run_alone(run, self._limits):
            return None
        kind, evidence = decide(run, self._limits)
        return self._verdict(problem, kind, evidence, tier, run)

    def _verdict(self, problem: Problem, kind: Kind, evidence: str, tier: str, run: Run | None) -> Verdict:
        return Verdict(
            task_id=problem.task_id,
            verdict=kind,
            evidence=one_line(evidence),
            tier=tier,
            jail=str(self._level.name),
            cpu_ms=round(1000 * run.cpu, 3) if run else 0.0,
            wall_ms=round(1000 * run.wall, 3) if run else 0.0,
            peak_kb=run.peak_kb if run else None,
            exits_quietly=run.exits_quietly if run else False,
        )

    def _bounds(self, alone: bool) -> Bounds:
        return Bounds(self._limits.output_bytes, self._limits.wall_until_stopped(alone) + _PATIENCE)

    def _stopped(self, ended: Ended, overflow: bool) -> tuple[str, str] | None:
        """Outcome and evidence of a program that came to one of its limits, whatever else was said of it."""
        if overflow:
            return "output", f"printed more than {self._limits.output_bytes} bytes"
        if ended.because in ("cpu", "wall", "idle"):
            return ended.because, ""
        return ("cpu", "") if ended.code == -signal.SIGXCPU else None


def reported(message: Message | None, ended: Ended) -> tuple[str, str]:
    """What the process of a program and its tests said of them; it may have said anything."""
    if message is None:
        return ended_by_itself(ended)
    outcome, evidence = message.get("outcome"), message.get("evidence")
    if outcome not in OUTCOMES or not isinstance(evidence, str):
        return "fail", "reported what is no report"
    return str(outcome), evidence


def ended_by_itself(ended: Ended) -> tuple[str, str]:
    """Outcome and evidence of a process that ended without a word."""
    if ended.code == OUT_OF_MEMORY:
        return "memory", "MemoryError"
    if ended.code >= 0:
        return "ended", f"the process ended with status {ended.code} before its tests did"
    if ended.code == -signal.SIGKILL:
        return "memory", "ended by the system, out of memory"
    return "ended", f"the process was ended by {signal.Signals(-ended.code).name} before its tests were done"


def confirmed(message: Message | None, ended: Ended) -> tuple[str, str]:
    """What the referee's word means for a program that has passed beside its tests."""
    if message is None:
        raise JailError("the referee did not answer")
    outcome, evidence = str(message.get("outcome")), str(message.get("evidence"))
    match outcome:
        case "pass":
            return "pass", ""
        case "fail" if evidence.startswith("MemoryError"):
            return "memory", evidence
        case "ended" if ended_by_itself(ended)[0] == "memory" and ended.because is None:
            return ended_by_itself(ended)
        case "tampered" if "a message of more than" in evidence:
            return "output", f"returned {evidence}"
        case "unloaded":
            return "tampered", f"{_DOUBTED}without its tests the program does not load: {evidence}"
        case "fail" | "ended" | "tampered":
            return "tampered", _DOUBTED + evidence
    raise JailError(f"the referee said {outcome!r}")
