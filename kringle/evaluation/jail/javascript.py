"""Judge JavaScript programs: in contexts of a warm Node, in a Node of their own, and apart from their tests.

The scripts that Node runs are in `node/`; the jail shows that folder and Node's own. How the tiers work is in
`tiers.py`, what each process may do in the scripts' first lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import time
from pathlib import Path

from kringle.errors import UserError
from kringle.evaluation.jail.host import SCRATCH_BYTES, Ended, JailError
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.runtimes import find_node
from kringle.evaluation.jail.services import Cell, first_message, follow, pipe, relay
from kringle.evaluation.jail.tiers import OUTCOMES, TieredRunner, confirmed, reported
from kringle.evaluation.jail.verdicts import Limits, Run
from kringle.evaluation.problems import Problem

SCRIPTS = Path(__file__).resolve().parent / "node"
_OVERHEAD = 384 * 2**20  # private memory that Node takes for itself, its compiled code and its threads' stacks
_WARM_BUDGET = 0.5  # wall seconds before a program is moved to a process of its own
_WARM_PATIENCE = 4.0
_WARM_PROGRAMS = 500
_SERVICE_HEAP = 256  # MiB
_FATAL = re.compile(rb"heap out of memory|Allocation failed|allocation fail|Committing", re.IGNORECASE)
_CRASHES = (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGSEGV)
_FULL_BUFFER = "RangeError: Array buffer allocation failed"


class JavaScriptRunner(TieredRunner):
    """A `Runner` for JavaScript, with two cells as Python's: in one, programs meet their tests; in the other never."""

    def __init__(self, limits: Limits, level: Level) -> None:
        super().__init__(limits, level)
        node = find_node()
        if isinstance(node, str):
            raise UserError(node)
        self._node = node.showing(str(SCRIPTS))
        self._heap = limits.memory_bytes >> 20
        service = (_SERVICE_HEAP << 20) + _OVERHEAD
        memory = limits.memory_bytes + _OVERHEAD + SCRATCH_BYTES + service
        warm, referee = self._command("warm.js", _SERVICE_HEAP), self._command("referee.js", _SERVICE_HEAP)
        self._beside = Cell(level.way, memory, "runtime", service, self._node, warm)
        self._apart = Cell(level.way, memory, "runtime", service, self._node, referee)

    def close(self) -> None:
        """See `Runner.close`."""
        self._beside.close()
        self._apart.close()

    def _command(self, script: str, heap: int) -> list[str]:
        # The seed is that of Math.random, so that a program which draws fares alike in every run.
        options = [f"--max-old-space-size={heap}", "--no-warnings", "--random-seed=1"]
        return [self._node.program, *options, str(SCRIPTS / script)]

    def _reject_warm(self, problem: Problem, program: str) -> Run | None:
        started = time.monotonic()
        if self._beside.service.served >= _WARM_PROGRAMS:
            self._beside.retire_service()
        answer = self._ask_warm(problem, program)
        if answer is None:
            self._beside.retire_service()
            return None
        if answer.get("outcome") not in OUTCOMES:
            return None
        return Run(answer["outcome"], str(answer["evidence"]), float(answer["cpu"]), time.monotonic() - started, None)

    def _ask_warm(self, problem: Problem, program: str) -> Message | None:
        warm = self._beside.service
        budget = min(_WARM_BUDGET, self._limits.cpu_seconds / 2)
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
        tail = bytearray()
        with ours, pipe() as (reader, writer):
            with theirs:
                number = self._start(self._beside, "together.js", theirs, writer, alone)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, {"program": program, "tests": problem.tests})
            message, ended, overflow = follow(self._beside.jail, number, Inbox(ours), reader, self._bounds(alone), tail)
        if ended.scratch_used:
            self._beside.close()
        stopped = self._stopped(ended, overflow) or _crashed(message, ended, tail)
        quiet = stopped is None and message is not None and message.get("quiet") is True
        outcome, evidence = stopped or reported(message, ended)
        return Run(outcome, evidence, ended.cpu, ended.wall, ended.peak_kb, quiet)

    def _confirm(self, problem: Problem, program: str, alone: bool) -> Run:
        referee = self._apart.service
        nonce = secrets.token_hex(16)
        ours, theirs = socket.socketpair()
        with ours, pipe() as (reader, writer):
            with theirs:
                number = self._start(self._apart, "apart.js", theirs, writer, alone, companion=referee.number)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, {"program": program})
            request: Message = {"problem": problem.key, "nonce": nonce}
            if problem.key not in referee.problems:
                request["tests"] = problem.tests
            word, ended, overflow = relay(self._apart.jail, number, ours, referee, request, reader, self._bounds(alone))
            referee.problems.add(problem.key)
        if word is None:
            # The program ended at a limit before it had loaded, or while the referee waited for it.
            word = {"outcome": "ended", "evidence": "the program ended during its tests"}
        elif word.get("outcome") != "unloaded" and word.get("nonce") != nonce:
            raise JailError("the referee answered another question")
        if ended.scratch_used:
            self._apart.close()
        outcome, evidence = self._stopped(ended, overflow) or confirmed(word, ended)
        return Run(outcome, evidence, ended.cpu, ended.wall, ended.peak_kb)

    def _start(
        self, cell: Cell, script: str, channel: socket.socket, output: int, alone: bool, companion: int | None = None
    ) -> int:
        """Start a process within the limits; `output` is handed on to it and closed here."""
        try:
            return cell.jail.start(
                "runtime",
                channel,
                output,
                memory=self._limits.memory_bytes + _OVERHEAD,
                cpu=self._limits.cpu_until_stopped(alone),
                wall=self._limits.wall_until_stopped(alone),
                idle_share=self._limits.idle_share(alone),
                companion=companion,
                command=self._command(script, self._heap),
            )
        finally:
            os.close(output)


def _crashed(message: Message | None, ended: Ended, tail: bytearray) -> tuple[str, str] | None:
    """Node's ways to say that there is no more memory: it aborts, or an allocation throws."""
    if message is None and -ended.code in _CRASHES and _FATAL.search(tail):
        return "memory", "JavaScript heap out of memory"
    if message is not None and str(message.get("evidence")).startswith(_FULL_BUFFER):
        return "memory", _FULL_BUFFER
    return None
