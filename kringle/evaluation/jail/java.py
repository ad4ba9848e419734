"""Judge Java programs: compiled in memory by a warm machine, run in another, in one of their own, and apart from tests.

The classes that run there are in `java/`, compiled at first use (`java_worker.py`). Three cells: in the first, a
compiler that runs nothing of any program; in the second, programs meet their tests; in the third, a referee calls
programs that never see a test. How the tiers work is in `tiers.py`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from typing import Any

from kringle.errors import UserError
from kringle.evaluation.jail.host import SCRATCH_BYTES, JailError
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send
from kringle.evaluation.jail.java_worker import ARCHIVE, EXPORTS, SERIAL, worker_folder
from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.runtimes import find_java
from kringle.evaluation.jail.services import Cell, Service, first_message, follow, pipe, relay
from kringle.evaluation.jail.tiers import OUTCOMES, TieredRunner, confirmed, reported
from kringle.evaluation.jail.verdicts import Limits, Run
from kringle.evaluation.problems import Problem

_OVERHEAD = 448 * 2**20  # private memory that a Java machine takes for itself: classes, compiled code, stacks
_SERVICE_HEAP = 384  # MiB
_WARM_BUDGET = 1.0  # wall seconds before a program is moved to a machine of its own
_WARM_PATIENCE = 5.0
_WARM_PROGRAMS = 2000
_COMPILER_PATIENCE = 60.0  # wall seconds; a program that takes longer to compile is no program
_SHAPES: dict[str, Message] = {}  # by the problem's key: what one worker's compiler has found out serves all of them
_CHANNEL_AT = 0  # Java reaches a descriptor by number only where it is one of the standard three


class JavaRunner(TieredRunner):
    """A `Runner` for Java."""

    def __init__(self, limits: Limits, level: Level) -> None:
        super().__init__(limits, level)
        java = find_java()
        if isinstance(java, str):
            raise UserError(java)
        folder = worker_folder()
        self._java = java.showing(str(folder))
        self._folder = folder
        service = (_SERVICE_HEAP << 20) + _OVERHEAD
        program = limits.memory_bytes + _OVERHEAD
        everything = program + SCRATCH_BYTES + service
        compiler = self._command(
            "Compiler", _SERVICE_HEAP, EXPORTS, arguments=(f"{folder}/tuples", f"{folder}/referee")
        )
        self._compiler = Cell(level.way, service + SCRATCH_BYTES, "runtime", service, self._java, compiler, _CHANNEL_AT)
        warm, referee = self._command("Warm", _SERVICE_HEAP), self._command("Referee", _SERVICE_HEAP)
        self._beside = Cell(level.way, everything, "runtime", service, self._java, warm, _CHANNEL_AT)
        self._apart = Cell(level.way, everything, "runtime", service, self._java, referee, _CHANNEL_AT)

    def close(self) -> None:
        """See `Runner.close`."""
        for cell in (self._compiler, self._beside, self._apart):
            cell.close()

    def _command(self, name: str, heap: int, *options: str, arguments: tuple[str, ...] = ()) -> list[str]:
        memory = (f"-Xmx{heap}m", "-Xms16m")
        path = ("-cp", f"{self._folder}/{ARCHIVE}")
        return [self._java.program, *SERIAL, *memory, *options, *path, f"kringle.{name}", *arguments]

    # -- compiling ----------------------------------------------------------------------------------------------------

    def _compile(self, text: str, **more: Any) -> Message:
        """The compiler's answer. One that does not come is a verdict on the program: it breaks the compiler."""
        service = self._compiler.service
        serial = service.served
        try:
            service.ask({"text": text, "serial": serial, **more})
            answer = first_message(self._compiler.jail, service, _COMPILER_PATIENCE)
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        if answer is None:
            self._compiler.retire_service()
            return {"outcome": "syntax", "evidence": "the compiler did not come to an end with it"}
        if answer.get("serial") != serial:
            raise JailError("the compiler answered another question")
        return answer

    def _shape(self, problem: Problem) -> Message:
        """What the compiler has found out about a problem's tests: see `Compiler.shape`."""
        if problem.key not in _SHAPES:
            before = problem.program(problem.canonical_solution)
            text = before + problem.tests
            shape = self._compile(text, shape=text, tests_at=_units(before), hole=_units(problem.prompt))
            if shape["outcome"] != "shape":
                raise UserError(f"{problem.task_id}: {shape['evidence']}", where="the suite's Java tests")
            compiled = self._compile(shape["referee"], referee=True)
            if compiled["outcome"] != "compiled":
                raise UserError(f"{problem.task_id}: {compiled['evidence']}", where="the suite's Java tests")
            shape["classes"], shape["start"] = compiled["classes"], before.count("\n")
            _SHAPES[problem.key] = shape
        return _SHAPES[problem.key]

    # -- the tiers ----------------------------------------------------------------------------------------------------

    def _reject_warm(self, problem: Problem, program: str) -> Run | None:
        started = time.monotonic()
        compiled = self._compile(program + problem.tests)
        if compiled["outcome"] != "compiled":
            return Run("syntax", str(compiled["evidence"]), 0.0, time.monotonic() - started, None)
        if not compiled["harmless"]:
            return None
        if self._beside.service.served >= _WARM_PROGRAMS:
            self._beside.retire_service()
        answer = self._ask_warm(problem, program, compiled)
        if answer is None:
            self._beside.retire_service()
            return None
        if answer.get("outcome") == "defer":
            self._beside.retire_service()  # a machine that could not end a program has ended itself
        if answer.get("outcome") not in OUTCOMES:
            return None
        return Run(answer["outcome"], str(answer["evidence"]), float(answer["cpu"]), time.monotonic() - started, None)

    def _ask_warm(self, problem: Problem, program: str, compiled: Message) -> Message | None:
        warm = self._beside.service
        request: Message = {
            "classes": compiled["classes"],
            "serial": warm.served,
            "budget": min(_WARM_BUDGET, self._limits.cpu_seconds / 2),
            **self._run_request(problem, program),
        }
        try:
            warm.ask(request)
            answer = first_message(self._beside.jail, warm, _WARM_PATIENCE)
        except (Malformed, BrokenPipeError, ConnectionResetError):
            return None
        return answer if answer is not None and answer.get("serial") == request["serial"] else None

    def _run_request(self, problem: Problem, program: str) -> Message:
        return {"main": self._shape(problem)["main"], "tests": problem.tests, "start": program.count("\n")}

    def _reject_fresh(self, problem: Problem, program: str, alone: bool) -> Run:
        started = time.monotonic()
        compiled = self._compile(program + problem.tests)
        if compiled["outcome"] != "compiled":
            return Run("syntax", str(compiled["evidence"]), 0.0, time.monotonic() - started, None)
        request = {"classes": compiled["classes"], **self._run_request(problem, program)}
        ours, theirs = socket.socketpair()
        with ours, pipe() as (reader, writer):
            with theirs:
                number = self._start(self._beside, "Together", theirs, writer, alone)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, request)
            message, ended, overflow = follow(self._beside.jail, number, Inbox(ours), reader, self._bounds(alone))
        if ended.scratch_used:
            self._beside.close()
        stopped = self._stopped(ended, overflow)
        quiet = stopped is None and message is None and ended.code == 0
        outcome, evidence = stopped or reported(message, ended)
        return Run(outcome, evidence, ended.cpu, ended.wall, ended.peak_kb, quiet)

    def _confirm(self, problem: Problem, program: str, alone: bool) -> Run:
        shape = self._shape(problem)
        compiled = self._compile(program + shape["skeleton"])
        if compiled["outcome"] != "compiled":
            evidence = f"it is no program without its tests: {compiled['evidence']}"
            return Run("tampered", evidence, 0.0, 0.0, None)
        referee = self._apart.service
        nonce = secrets.token_hex(16)
        ours, theirs = socket.socketpair()
        with ours, pipe() as (reader, writer):
            with theirs:
                number = self._start(self._apart, "Apart", theirs, writer, alone, companion=referee)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, {"classes": compiled["classes"]})
            request: Message = {"problem": problem.key, "nonce": nonce}
            if problem.key not in referee.problems:
                request |= {key: shape[key] for key in ("classes", "main", "start")} | {"tests": problem.tests}
            word, ended, overflow = relay(self._apart.jail, number, ours, referee, request, reader, self._bounds(alone))
            if word is not None and word.get("nonce") == nonce:
                referee.problems.add(problem.key)
        if word is None:
            word = {"outcome": "ended", "evidence": "the program ended during its tests"}
        elif word.get("outcome") != "unloaded" and word.get("nonce") != nonce:
            raise JailError("the referee answered another question")
        if ended.scratch_used:
            self._apart.close()
        outcome, evidence = self._stopped(ended, overflow) or _full(word) or confirmed(word, ended)
        return Run(outcome, evidence, ended.cpu, ended.wall, ended.peak_kb)

    def _start(
        self, cell: Cell, name: str, channel: socket.socket, output: int, alone: bool, companion: Service | None = None
    ) -> int:
        """Start a machine within the limits; `output` is handed on to it and closed here."""
        try:
            return cell.jail.start(
                "runtime",
                channel,
                output,
                memory=self._limits.memory_bytes + _OVERHEAD,
                cpu=self._limits.cpu_until_stopped(alone),
                wall=self._limits.wall_until_stopped(alone),
                idle_share=self._limits.idle_share(alone),
                companion=companion.number if companion else None,
                command=self._command(name, self._limits.memory_bytes >> 20),
                channel_at=_CHANNEL_AT,
            )
        finally:
            os.close(output)


def _full(word: Message) -> tuple[str, str] | None:
    """A program that has no memory left apart from its tests has none."""
    evidence = str(word.get("evidence"))
    return ("memory", evidence) if "OutOfMemoryError" in evidence and word.get("outcome") != "pass" else None


def _units(text: str) -> int:
    """The length of a text as Java counts it, in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
