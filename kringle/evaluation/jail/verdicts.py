"""What can be said of one program, and how a run becomes a verdict. Pure: no clock, no process, no file.

Time is CPU time, because wall time changes with the load of the machine. A program that ends within half to twice of
its limit, or that got too little of the processors, is not judged on the spot: it runs again with nothing beside it,
and that run is final. So a verdict does not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The nine verdicts. Only `pass` counts as solved; `infrastructure` counts as not run at all."""

    PASS = "pass"
    FAIL = "fail"
    SYNTAX = "syntax"  # no valid program; nothing of it ran
    TIMEOUT = "timeout"  # used up its CPU time, or waited for something that never comes
    STARVED = "starved"  # ran out of wall time with nothing beside it: other work kept the machine busy
    MEMORY = "memory"
    OUTPUT = "output"  # printed, or returned, more than its limit
    TAMPER = "tamper"  # passes only while it shares a process with its tests
    INFRASTRUCTURE = "infrastructure"  # the jail failed; says nothing of the program


@dataclass(frozen=True)
class Limits:
    """What one program may use. cpu_seconds includes its tests; memory_bytes is beyond the interpreter's own."""

    cpu_seconds: float
    memory_bytes: int
    output_bytes: int

    def cpu_until_stopped(self, alone: bool) -> float:
        """Twice the limit at first, to see who comes near it; the limit itself when that run decides."""
        return self.cpu_seconds * (1 if alone else 2)

    def wall_until_stopped(self, alone: bool) -> float:
        """Five times the CPU time, or thirty when alone: a machine eight times overloaded is then still no reason to
        fail."""
        return self.cpu_seconds * (30 if alone else 5)

    def idle_share(self, alone: bool) -> float:
        """Share of a processor below which a program waits of its own accord. Fair scheduling gives a starved one
        more: a 200th with two hundred others beside it, a 20th where a run alone would still end within its wall
        time."""
        return 0.05 if alone else 0.005


@dataclass(frozen=True)
class Verdict:
    """One program's verdict. Equal verdicts may differ in what was measured, never in anything else.

    `evidence` is one line; `tier` says which run decided: `reject` (with its tests), `confirm` (apart from them) or
    `none` (the jail failed); `jail` is the level of the jail. `peak_kb` is None where the process was shared with
    other programs.
    """

    task_id: str
    verdict: Kind
    evidence: str
    tier: str
    jail: str
    cpu_ms: float = field(compare=False)
    wall_ms: float = field(compare=False)
    peak_kb: int | None = field(compare=False)
    exits_quietly: bool = False  # by an exit code alone it would have passed: it ended early with status 0

    @property
    def passed(self) -> bool:
        return self.verdict is Kind.PASS

    def to_json(self) -> dict[str, Any]:
        """Plain data for a JSON line."""
        plain = asdict(self) | {"verdict": str(self.verdict), "passed": self.passed}
        del plain["exits_quietly"]
        return plain


@dataclass(frozen=True)
class Run:
    """How one run of one program went.

    outcome: pass, fail, syntax, memory or output; ended (the process ended by itself before its tests did); tampered;
    cpu, wall or idle (stopped for its time).
    """

    outcome: str
    evidence: str
    cpu: float
    wall: float
    peak_kb: int | None
    exits_quietly: bool = False


def needs_run_alone(run: Run, limits: Limits) -> bool:
    """Whether a run beside others is too close to a limit to decide."""
    if run.outcome == "wall":
        return True
    return run.outcome not in ("cpu", "idle") and run.cpu > limits.cpu_seconds / 2


def decide(run: Run, limits: Limits) -> tuple[Kind, str]:
    """The verdict on a run that needs no other one."""
    if run.outcome == "cpu" or (run.cpu > limits.cpu_seconds and run.outcome not in ("wall", "idle")):
        return Kind.TIMEOUT, f"used more than {limits.cpu_seconds:g} s of CPU time"
    match run.outcome:
        case "idle":
            return Kind.TIMEOUT, "waited without using the processor until its time was over"
        case "wall":
            return Kind.STARVED, "the machine was too busy to give it its CPU time"
        case "ended":
            return Kind.FAIL, run.evidence
        case "tampered":
            return Kind.TAMPER, run.evidence
    return Kind(run.outcome), run.evidence
