"""Scoring lists of completions: order, copies, workers, doubt, faults."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from jail_support import needs_jail, problem, suite

from kringle.errors import UserError
from kringle.evaluation.jail import nursery
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite

pytestmark = needs_jail

BENCHMARKS = Path(__file__).parents[2] / "shared" / "benchmarks"
SMALL = suite(
    problem("add", "add", "assert candidate(1, 2) == 3", prompt="def add(a, b):\n"),
    problem("one", "one", "assert candidate() == 1", prompt="def one():\n"),
)
COMPLETIONS = [
    Completion("add", "    return a + b\n"),
    Completion("one", "    return 1\n"),
    Completion("add", "    return a - b\n"),
    Completion("one", "    return 1\n"),
    Completion("add", "    return (a\n"),
    Completion("one", "    import os; return len(os.getcwd())\n"),
    Completion("one", "    while True: pass\n"),
    Completion("add", "    class Yes:\n        __eq__ = lambda *_: True\n    return Yes()\n"),
    Completion("add", "    print('x' * 10**6)\n"),
    Completion("add", "    return [0] * 10**9\n"),
    Completion("one", "    import time\n    while time.process_time() < 0.13: pass\n    return 1\n"),
    Completion("one", "    import os; os.fork()\n"),
    *(Completion("one", f"    return {number}\n") for number in range(20)),
]
EXPECTED = [Kind.PASS, Kind.PASS, Kind.FAIL, Kind.PASS, Kind.SYNTAX, Kind.FAIL, Kind.TIMEOUT, Kind.TAMPER, Kind.OUTPUT]
EXPECTED += [Kind.MEMORY, Kind.PASS, Kind.FAIL, Kind.FAIL, Kind.PASS, *[Kind.FAIL] * 18]


class Bar:
    """A progress display that counts."""

    def __init__(self) -> None:
        self.titles: list[tuple[str, int, str]] = []
        self.advanced = 0

    @contextmanager
    def task(self, title: str, total: int, unit: str = "files") -> Iterator[Bar]:
        self.titles.append((title, total, unit))
        yield self

    def advance(self, amount: int) -> None:
        self.advanced += amount


def test_verdicts_come_in_order_and_do_not_depend_on_the_workers() -> None:
    bar = Bar()
    one = score(SMALL, COMPLETIONS, 1, progress=bar)
    assert [verdict.verdict for verdict in one] == EXPECTED
    assert [verdict.task_id for verdict in one] == [completion.task_id for completion in COMPLETIONS]
    assert one == score(SMALL, COMPLETIONS, 2)
    assert list(reversed(one)) == score(SMALL, COMPLETIONS[::-1], 5)
    assert bar.titles == [("score small", len(COMPLETIONS), "programs")]
    assert bar.advanced == len(COMPLETIONS)


def test_identical_programs_are_scored_once() -> None:
    first, second = score(SMALL, [COMPLETIONS[1], COMPLETIONS[3]], 2)
    assert first is second


def test_nothing_to_score() -> None:
    assert score(SMALL, [], 2) == []


def test_an_unknown_problem_is_the_user_s_mistake() -> None:
    with pytest.raises(UserError, match="'two' is no problem of small"):
        score(SMALL, [Completion("two", "")], 1)


def test_an_unknown_language_is_the_user_s_mistake() -> None:
    problems = tuple(dataclasses.replace(one, language="cobol") for one in SMALL.problems)
    with pytest.raises(UserError, match="no runner for cobol programs; there is one for java, javascript, python"):
        score(dataclasses.replace(SMALL, problems=problems), COMPLETIONS[:1], 1)


def test_a_jail_that_dies_is_replaced() -> None:
    """Killed from outside in the middle of the work, as the system does when memory is short."""
    slow = [Completion("one", f"    for _ in range(10**6): pass\n    return 1 # {number}\n") for number in range(40)]
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.extend(score(SMALL, slow, 1)))
    thread.start()
    killed: set[int] = set()
    while thread.is_alive() and len(killed) < 3:
        for pid in jails() - killed:
            time.sleep(0.2)  # it is at work by then
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.01)
    thread.join()
    assert killed
    assert {verdict.verdict for verdict in verdicts} <= {Kind.PASS, Kind.INFRASTRUCTURE}
    assert sum(verdict.passed for verdict in verdicts) >= 38


def jails() -> set[int]:
    """The outermost processes of this process's jails: children of its nursery, or its own where it has none."""
    found = set()
    parents = {nursery._current._process.pid} if nursery._current is not None else {os.getpid()}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and b"import launch" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def test_a_jail_that_cannot_be_built_is_loud_and_no_failure() -> None:
    """In a process that may not open another file once it knows how well it could jail."""
    script = (
        "import os, resource\n"
        "from jail_support import problem, suite\n"
        "from kringle.evaluation.jail.levels import probe\n"
        "from kringle.evaluation.score import score\n"
        "from kringle.evaluation.suites import Completion\n"
        "small = suite(problem('one', 'one', 'assert candidate() == 1'))\n"
        "probe()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "for verdict in score(small, [Completion('one', f'one = lambda: {number}') for number in (1, 2)], 1):\n"
        "    print(verdict.verdict, verdict.tier, verdict.evidence)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "infrastructure none OSError: [Errno 24] Too many open files\n" * 2
    assert done.stderr.count("one was not judged, the jail failed: OSError") == 2


def test_a_fault_of_our_own_ends_the_scoring() -> None:
    class Broken(Bar):
        def advance(self, amount: int) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score(SMALL, COMPLETIONS, 2, progress=Broken())


def test_human_eval_s_canonical_solutions() -> None:
    if not (BENCHMARKS / "HumanEval.jsonl.gz").is_file():
        pytest.skip(f"HumanEval.jsonl.gz is not in {BENCHMARKS}")
    humaneval = load_suite("humaneval", BENCHMARKS)
    verdicts = score(humaneval, [Completion(one.task_id, one.canonical_solution) for one in humaneval.problems], 2)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == 164


def test_starter_s_canonical_solutions() -> None:
    starter = load_suite("starter")
    verdicts = score(starter, [Completion(one.task_id, one.canonical_solution) for one in starter.problems], 2)
    assert [verdict.task_id for verdict in verdicts if not verdict.passed] == []
