"""Run tests against a program that lives in another process, and say whether they ran to their end.

No line of any program ever runs here. The tests see the problem's prompt (its helper functions and classes, in our
copy), the built-ins of an untouched interpreter, and for the function under test a handle: calling it sends the
arguments to the program and returns plain data. So the comparisons of the tests are made here, by types and operators
that no program can reach, and "passed" means that the last line of the tests was reached by an interpreter that the
program was never in.

Not covered: tests that look at what the program prints, that change a global of the program, or that compare objects
of classes of the program's own making. Such a suite's canonical solutions do not pass, which shows it at once.
"""

from __future__ import annotations

import builtins
import functools
import os
import random
import socket
import sys
import time
from types import CodeType
from typing import Any

from . import execute, wire
from .peer import FOR_PROGRAMS, Gone, Peer, Tampered

_RECURSION = 20_000  # values may be nested deeply; frames of Python functions take no C stack


class Names(dict[str, Any]):
    """Global names of the tests: their own and the prompt's, then the built-in ones, then the program's."""

    peer: Peer | None = None

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        if self.peer is None or name.startswith("__"):
            raise KeyError(name)
        return self.peer.ask("name", name)


class NotLoaded(Exception):
    """The program raised before any test could call it."""


def main(descriptor: int) -> None:
    channel = socket.socket(fileno=descriptor)
    known_tests: dict[str, tuple[str, str, str]] = {}
    sys.setrecursionlimit(_RECURSION)
    sys.stdin = None
    while (received := wire.receive_with_descriptors(channel, 1)) is not None:
        request, (connection,) = received
        if "tests" in request:
            known_tests[request["problem"]] = (request["prompt"], request["tests"], request["entry_point"])
        started = time.process_time()
        try:
            result = judge(wire.Connection(connection), *known_tests[request["problem"]])
        finally:
            os.close(connection)
        wire.send(
            channel,
            {
                "outcome": result.outcome,
                "evidence": result.evidence,
                "cpu": time.process_time() - started,
                "nonce": request["nonce"],
            },
        )


def judge(program: wire.Connection, prompt: str, tests: str, entry_point: str) -> execute.Result:
    """The tests' result: pass, fail, ended or tampered."""
    names = Names()
    stub = _compiled_prompt(prompt)
    random.seed(execute.SEED)
    if stub is not None:
        exec(stub, names)
    records = {name: kind for name, kind in names.items() if isinstance(kind, type) and kind.__module__ == "builtins"}
    peer = Peer(program, FOR_PROGRAMS, {}, records)
    try:
        loaded = _wait_until_loaded(program)
        if records:
            peer.ask("records", sorted(records))
        names.peer = peer
        if entry_point:  # where the tests do not say what they call, they find it by its name
            names[entry_point] = peer.ask("name", entry_point) if records else peer.meet(loaded)
        exec(execute.compiled_tests(tests), names)
        if peer.over is not None:
            raise peer.over
    except Gone as gone:
        return execute.Result("ended", execute.one_line(f"the program ended during its tests {gone}"))
    except Tampered as tampered:
        return execute.Result("tampered", execute.one_line(str(tampered)))
    except NotLoaded as error:
        return execute.Result("fail", execute.one_line(f"without its tests the program does not load: {error}"))
    except BaseException as error:
        return execute.Result("fail", execute.describe(error, tests))
    return execute.Result("pass", "")


def _wait_until_loaded(program: wire.Connection) -> wire.Message:
    try:
        message = program.receive()
    except (wire.Malformed, OSError) as error:
        raise Tampered(str(error)) from None
    if message is None:
        raise Gone
    if "loaded" not in message:
        raise NotLoaded(str(message.get("raised", "")))
    return message


@functools.lru_cache(maxsize=256)
def _compiled_prompt(prompt: str) -> CodeType | None:
    """The prompt as a program of its own: its last function is left open and gets an empty body where it has none.

    None where that is no valid Python either; then the tests take its helpers from the program.
    """
    for ending in ("\n", "\n    pass\n", "\n        pass\n"):
        try:
            return compile(prompt + ending, "<prompt>", "exec", dont_inherit=True)
        except SyntaxError:
            continue
    return None
