"""Run harmless programs one after another in this process, with their tests: most fail, and fail within microseconds.

Nothing from here is a pass: what seems to pass is confirmed apart. What must not go wrong is a false failure of one
program because of another before it. Three things stand against that: only programs that `screen` finds harmless run
here; after each, a fingerprint of the interpreter is compared; and any doubt at all (a timer, memory, output, a
changed fingerprint) is answered with "defer", which makes the host run that program in a process of its own and,
after a change, replace this one.
"""

from __future__ import annotations

import _thread
import ctypes
import gc
import os
import signal
import sys
import time
from importlib import import_module
from types import FrameType

from . import execute, screen, wire

_TICK = 0.02  # seconds between reminders to a program that catches the first one
_GRACE = 0.1  # CPU seconds for a program to end after the first reminder
_MOST_OUTPUT = 1 << 16  # characters
# Loaded by tests or by library functions on first use, which would look like a change.
_LAZY = (
    "copy",
    "_strptime",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.cp1252",
    "encodings.utf_16",
    "encodings.utf_32",
)
DEFER = execute.Result("defer", "")


class OutOfTime(BaseException):
    """Raised in the middle of a program by the timer; not an Exception, so that few programs catch it."""


class Sink:
    """Standard output of warm programs: forgets what is written, up to a limit."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = 0

    def write(self, text: str) -> int:
        self.written += len(text)
        if self.written > _MOST_OUTPUT:
            raise OutOfTime
        return len(text)

    def flush(self) -> None:
        """Nothing is kept, so nothing needs to go anywhere."""


class Timer:
    """A limit on CPU time within one process, which only ever leads to "defer".

    Two timers: the first raises an exception in the program. Where that is caught, or one operation never ends, the
    second ends this process, by the default action of its signal.
    """

    def __init__(self) -> None:
        self.fired = False
        signal.signal(signal.SIGPROF, self._ring)

    def start(self, seconds: float) -> None:
        self.fired = False
        signal.setitimer(signal.ITIMER_PROF, seconds, _TICK)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds + _GRACE)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.fired = True
        raise OutOfTime


class Fingerprint:
    """What a program could have changed in the interpreter without our seeing it.

    The modules are loaded here and not when this one is: the keeper, of which every process in the jail is a copy, has
    no use for them, and each fork would pay for their pages. `sys` is left out, because its record of the last
    exception changes with every failure, and nothing harmless reaches it.
    """

    def __init__(self) -> None:
        self._modules = [import_module(name) for name in sorted(screen.SAFE_MODULES | {"builtins", "collections.abc"})]
        for name in _LAZY:
            import_module(name)
        self._objects = self._see_objects()
        self._addresses = _addresses(self._objects)
        self._facts = self._see_facts()

    def changed(self) -> bool:
        """Objects are compared by identity, because comparing by value could call what was put in their place."""
        return _addresses(self._see_objects()) != self._addresses or self._see_facts() != self._facts

    def _see_objects(self) -> tuple[object, ...]:
        objects: list[object] = [
            sys.stdout,
            sys.stderr,
            sys.gettrace(),
            sys.getprofile(),
            signal.getsignal(signal.SIGPROF),
        ]
        for module in self._modules:
            objects += module.__dict__.values()
        return tuple(objects)

    @staticmethod
    def _see_facts() -> tuple[object, ...]:
        spare = os.dup(0)  # the lowest free descriptor: higher than before if something was left open
        os.close(spare)
        return len(sys.modules), tuple(sys.path), spare, _thread._count(), gc.isenabled(), os.getcwd()


def _addresses(objects: tuple[object, ...]) -> bytes:
    """Where the objects are, as the tuple itself holds it: a thousand of them are compared in a microsecond."""
    return ctypes.string_at(id(objects) + tuple.__basicsize__, len(objects) * tuple.__itemsize__)


def main(channel: int) -> None:
    known_tests: dict[str, str] = {}
    timer, sink = Timer(), Sink()
    sys.stdout = sys.stderr = sink
    sys.stdin = None
    fingerprint = Fingerprint()
    gc.collect()
    gc.freeze()  # a collection follows every program, and need not look at what was there before the first
    connection = wire.Connection(channel)
    while (request := connection.receive()) is not None:
        if "tests" in request:
            known_tests[request["problem"]] = request["tests"]
        sink.written = 0
        task = execute.Task(request["program"], known_tests[request["problem"]])
        started = time.thread_time()  # a process clock stands still while timers like ours run
        result = _judge(task, timer, float(request["budget"]))
        if timer.fired or sink.written > _MOST_OUTPUT or "MemoryError" in result.evidence:
            result = DEFER
        answer: wire.Message = {"outcome": result.outcome, "evidence": result.evidence, "quiet": result.quiet}
        answer["serial"] = request["serial"]
        answer["cpu"] = time.thread_time() - started
        answer["changed"] = fingerprint.changed()
        connection.send(answer)


def _judge(task: execute.Task, timer: Timer, budget: float) -> execute.Result:
    namespace: dict[str, object] = {}
    result = DEFER
    try:
        timer.start(budget)
        code = execute.compile_program(task.program)
        if isinstance(code, execute.Result):
            result = code
        elif screen.harmless(code):
            result = execute.run(code, task, namespace)
            # Unfinished generators and the like still have code to run: here and now, within this program's time.
            namespace.clear()
            gc.collect()
    except OutOfTime:
        result = DEFER
    finally:
        timer.stop()
    return result
