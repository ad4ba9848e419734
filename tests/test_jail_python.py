"""Verdicts on Python programs of every kind, in this machine's best jail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from jail_support import LIMITS, needs_jail, problem

from kringle.evaluation.jail.levels import probe
from kringle.evaluation.jail.python import PythonRunner
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.problems import Problem
from kringle.evaluation.suites import load_suite

pytestmark = needs_jail

ADD = problem(
    "add", "add", "assert candidate(1, 2) == 3", "assert candidate('a', 'b') == 'ab'", prompt="def add(a, b):\n"
)
FREE = problem("free", "f", "assert candidate(2) == 4")


@pytest.fixture(scope="module")
def runner() -> Iterator[PythonRunner]:
    runner = PythonRunner(LIMITS, probe().level)
    yield runner
    runner.close()


def judge(runner: PythonRunner, task: Problem, text: str) -> Verdict:
    verdict = runner.judge(task, task.program(text), alone=False) or runner.judge(task, task.program(text), alone=True)
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("text", "kind", "tier", "evidence"),
    [
        ("    return a + b\n", Kind.PASS, "confirm", ""),
        ("    return a - b\n", Kind.FAIL, "reject", "AssertionError in the tests, line 2: assert candidate(1, 2) == 3"),
        ("    return a + int(b)\n", Kind.FAIL, "reject", "ValueError: invalid literal for int() with base 10: 'b'"),
        ("    return missing\n", Kind.FAIL, "reject", "NameError: name 'missing' is not defined"),
        ("    return (a\n", Kind.SYNTAX, "reject", "SyntaxError: '(' was never closed (line 2)"),
        ("    return 'a\0b'\n", Kind.SYNTAX, "reject", ""),
        ("    return '\ud800'\n", Kind.SYNTAX, "reject", "UnicodeEncodeError"),
        ("return a + b\n", Kind.SYNTAX, "reject", "IndentationError"),
        ("    import os\n    return a - b\n", Kind.FAIL, "reject", "AssertionError in the tests, line 2"),
        ("    import os\n    return a + b\n", Kind.PASS, "confirm", ""),
        ("    import numpy\n    return a + b\n", Kind.FAIL, "reject", "ModuleNotFoundError: No module named 'numpy'"),
        ("    return add(a, b)\n", Kind.FAIL, "reject", "RecursionError: maximum recursion depth exceeded"),
        ("    while True: pass\n", Kind.TIMEOUT, "reject", "used more than 0.2 s of CPU time"),
        ("    import time; time.sleep(99)\n", Kind.TIMEOUT, "reject", "waited without using the processor"),
        ("    return [0] * 10**8\n", Kind.MEMORY, "reject", "MemoryError"),
        ("    print('x' * 10**6)\n    return a + b\n", Kind.OUTPUT, "reject", "printed more than 65536 bytes"),
        ("    print('x' * 10**4)\n    return a + b\n", Kind.PASS, "confirm", ""),
        ("    return input()\n", Kind.FAIL, "reject", "EOFError"),
        ("    exit()\n", Kind.FAIL, "reject", "SystemExit"),
        ("    import os; os._exit(0)\n", Kind.FAIL, "reject", "the process ended with status 0 before its tests did"),
        ("    import os; os.abort()\n", Kind.FAIL, "reject", "the process was ended by SIGABRT"),
        ("    return a + b\n" + "#" * 2**20, Kind.FAIL, "reject", "longer than 1048576 characters"),
        ("    return a + b\n\nif __name__ == '__main__':\n    1 / 0\n", Kind.PASS, "confirm", ""),
        (
            "    class Yes:\n        __eq__ = lambda *_: True\n    return Yes()\n",
            Kind.TAMPER,
            "confirm",
            "passes beside",
        ),
    ],
)
def test_verdicts(runner: PythonRunner, text: str, kind: Kind, tier: str, evidence: str) -> None:
    verdict = judge(runner, ADD, text)
    assert (verdict.verdict, verdict.tier) == (kind, tier), verdict
    assert verdict.evidence.startswith(evidence)
    assert verdict.jail == probe().level.name


@pytest.mark.parametrize(
    "text", ["    return a - b\n", "    return hash('a') - b\n", "    return [a].index(b)\n", "    return ~(a, b)\n"]
)
def test_warm_and_fresh_processes_agree(runner: PythonRunner, text: str) -> None:
    program, apart = ADD.program(text), ADD.program("    __import__('os')\n" + text)
    assert runner.judge(ADD, program, alone=False) == runner.judge(ADD, program, alone=True)
    assert runner.judge(ADD, program, alone=False) == runner.judge(ADD, apart, alone=False)


def test_a_slow_program_is_judged_alone(runner: PythonRunner) -> None:
    text = "    import time\n    while time.process_time() < {}: pass\n    return a + b\n"
    near = text.format(0.13)
    assert runner.judge(ADD, ADD.program(near), alone=False) is None
    assert judge(runner, ADD, near).verdict is Kind.PASS
    verdict = runner.judge(ADD, ADD.program(text.format(0.25)), alone=True)
    assert verdict is not None
    assert verdict.verdict is Kind.TIMEOUT


def test_a_slow_program_that_fails_runs_once() -> None:
    runner = PythonRunner(replace(LIMITS, cpu_seconds=3.0), probe().level)
    text = "    n = 0\n    while n < 10**7: n += 1\n    return a - b\n"  # some 0.3 s
    with closing(runner):
        verdict = runner.judge(ADD, ADD.program(text), alone=False)
    assert verdict is not None
    assert verdict.verdict is Kind.FAIL
    assert verdict.peak_kb is None  # it ran beside others, and nowhere else


@pytest.mark.parametrize("alone", [False, True])
def test_a_program_that_does_not_end_after_its_tests_is_ended(runner: PythonRunner, alone: bool) -> None:
    text = "    import sys\n    class Stuck:\n        write = flush = lambda *_: exec('while True: pass')\n"
    text += "    sys.stdout = Stuck()\n    return a + b\n"
    verdict = runner.judge(ADD, ADD.program(text), alone)
    # The tests have ended well before the program is stuck; its time may look too near to the limit, on a busy machine.
    assert verdict is None or verdict.verdict in (Kind.PASS, Kind.TIMEOUT, Kind.STARVED)
    assert judge(runner, ADD, "    return a + b\n").passed


def test_measurements(runner: PythonRunner) -> None:
    verdict = judge(runner, ADD, "    import time\n    while time.process_time() < 0.05: pass\n    return a + b\n")
    assert verdict.passed
    assert 40 < verdict.cpu_ms < 200
    assert verdict.wall_ms >= 40
    assert verdict.peak_kb is not None
    assert 1000 < verdict.peak_kb < 500_000


CONFIRMED = {
    "in place": (
        "def f(items):\n    items.sort()\n",
        ["items = [3, 1]", "assert candidate(items) is None", "assert items == [1, 3]"],
    ),
    "generator": (
        "def f(n):\n    yield from range(n)\n",
        ["assert list(candidate(3)) == [0, 1, 2]", "assert next(candidate(1)) == 0"],
    ),
    "function in": (
        "def f(g, x):\n    return g(g(x))\n",
        ["assert candidate(lambda x: x * 2, 3) == 12", "assert candidate(str, 1) == '1'"],
    ),
    "function out": ("def f(n):\n    return lambda x: x + n\n", ["assert candidate(2)(3) == 5"]),
    "class": (
        "class f:\n    n = 0\n    def add(self, k):\n        self.n += k\n        return self\n",
        ["counter = candidate()", "assert counter.add(2).add(3).n == 5"],
    ),
    "attributes": (
        "class Node:\n    left = None\n    def __init__(self, n):\n        self.n = n\n"
        "def f(node):\n    return node.n + (f(node.left) if node.left else 0)\n",
        [
            "root = Node(1)",
            "root.left = Node(2)",
            "root.left.n += 5",
            "assert candidate(root) == 8",
            "del root.left",
            "assert candidate(root) == 1",
            "assert root.left is None",
        ],
    ),
    "exception": (
        "def f(x):\n    class Odd(ValueError): pass\n    raise Odd('no')\n",
        [
            "try:",
            "    candidate(1)",
            "except ValueError as error:",
            "    assert str(error) == 'no'",
            "else:",
            "    assert False",
        ],
    ),
    "views": ("def f(d):\n    return d.keys()\n", ["assert candidate({1: 2}) == {1}"]),
    "helper of the program": (
        "def helper(x):\n    return x + 1\ndef f(x):\n    return x\n",
        ["assert helper(candidate(1)) == 2"],
    ),
    "state": (
        "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)\n",
        ["assert [candidate(0), candidate(0)] == [1, 2]"],
    ),
    "huge": (
        "def f(x):\n    return x ** 5000\n",
        ["assert candidate(7) == 7 ** 5000", "assert candidate(2.0 ** -1) == 0.0 "],
    ),
    "deep recursion": ("def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\n", ["assert candidate(970) == 970"]),
    "random": ("import random\ndef f(n):\n    return random.random()\n", ["assert candidate(1) != candidate(1)"]),
}


@pytest.mark.parametrize("name", CONFIRMED)
def test_honest_programs_pass_apart_from_their_tests(runner: PythonRunner, name: str) -> None:
    text, checks = CONFIRMED[name]
    verdict = judge(runner, problem(name, "f", *checks), text)
    assert verdict.passed, verdict


def test_mbpp_s_set_up_builds_objects_of_the_program_s_classes(runner: PythonRunner, tmp_path: Path) -> None:
    row = {
        "task_id": 1,
        "text": "Write a function to add the numbers of a tree.",
        "code": "class Tree:\n  def __init__(self, n):\n    self.n, self.left = n, None\n"
        "def total(t):\n  return t.n + total(t.left) if t else 0\n",
        "test_setup_code": "root = Tree(1)\nroot.left = Tree(2)\nroot.left.left = Tree(3)",
        "test_list": ["assert total(root) == 6", "assert total(root.left) == 5"],
    }
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(row))
    (task,) = load_suite(tmp_path / "mbpp.jsonl").problems
    assert judge(runner, task, task.canonical_solution).passed
    assert judge(runner, task, task.canonical_solution.replace("else 0", "else 1")).verdict is Kind.FAIL


def test_classes_of_the_prompt_travel(runner: PythonRunner) -> None:
    prompt = "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n\n"
    prompt += "def last(node):\n    '''The last node.'''\n"
    task = problem(
        "last",
        "last",
        "chain = Node(1, Node(2))",
        "assert candidate(chain).value == 2",
        "assert candidate(chain) is chain.next",
        "assert isinstance(candidate(chain), Node)",
        prompt=prompt,
    )
    text = "    while node.next:\n        node = node.next\n    return node\n"
    assert judge(runner, task, text).passed
    assert judge(runner, task, "    return node\n").verdict is Kind.FAIL


def test_tests_use_the_prompt_s_own_helper(runner: PythonRunner) -> None:
    prompt = "def double(x):\n    return 2 * x\n\ndef half(x):\n    '''Half of it.'''\n"
    task = problem("half", "half", "assert double(candidate(4)) == 4", prompt=prompt)
    assert judge(runner, task, "    return x / 2\n").passed
    forged = "    return x\ndef double(x):\n    return 4\n"
    assert judge(runner, task, forged).verdict is Kind.TAMPER


def test_hash_order_and_random_numbers_are_the_same_every_time(runner: PythonRunner) -> None:
    text = "import random\ndef f(x):\n    assert False, [hash('a'), list({'a', 'b', 'c'}), random.random(), object()]\n"
    evidence = {judge(runner, FREE, text + "#" * number).evidence for number in range(3)}
    assert len(evidence) == 1
    assert "0x..." in evidence.pop()


def test_files_do_not_reach_the_next_program(runner: PythonRunner) -> None:
    write = "def f(x):\n    open('/tmp/left', 'w').write('4')\n    return 4\n"
    read = "def f(x):\n    return int(open('/tmp/left').read())\n"
    if probe().level.name == "full":
        assert judge(runner, FREE, write).passed
    assert judge(runner, FREE, read).verdict is Kind.FAIL


def test_tests_that_import_a_library_do_not_cost_a_warm_process(runner: PythonRunner) -> None:
    """HumanEval's tests import these: loading one must not look like something that a program has left behind."""
    checks = [f"import {name}" for name in ("copy", "math", "random", "string")]
    task = problem("importing", "f", *checks, "assert candidate(1) == 2")
    judge(runner, task, "def f(x):\n    return x\n")
    service = runner._beside.service
    verdict = judge(runner, task, "def f(x):\n    return x + 2\n")
    assert verdict.verdict is Kind.FAIL
    assert runner._beside.service is service
    assert verdict.peak_kb is None
