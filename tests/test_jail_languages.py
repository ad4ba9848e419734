"""Java and JavaScript: the same verdicts on the same kinds of programs, in the warm process, a fresh one, and apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jail_support import needs_jail
from score_support import JAVA, JAVASCRIPT, RIGHT

from kringle.evaluation.jail.levels import probe
from kringle.evaluation.jail.runner import Runner, missing_runtime, open_runner
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict
from kringle.evaluation.problems import multipl_e

pytestmark = needs_jail

LIMITS = Limits(cpu_seconds=1.0, memory_bytes=128 * 2**20, output_bytes=2**16)
JAVA_PROBLEM, JS_PROBLEM = multipl_e(JAVA, "own"), multipl_e(JAVASCRIPT, "own")


def runner_of(language: str) -> Iterator[Runner]:
    why = missing_runtime(language)
    if why:
        pytest.skip(why)
    runner = open_runner(language, LIMITS, probe().level)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def javascript() -> Iterator[Runner]:
    yield from runner_of("javascript")


@pytest.fixture(scope="module")
def java() -> Iterator[Runner]:
    yield from runner_of("java")


def judge(runner: Runner, problem: object, completion: str) -> Verdict:
    assert problem in (JAVA_PROBLEM, JS_PROBLEM)
    program = problem.program(completion)  # type: ignore[attr-defined]
    verdict = runner.judge(problem, program, alone=False) or runner.judge(problem, program, alone=True)  # type: ignore[arg-type]
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("text", "kind", "evidence"),
    [
        (RIGHT["js"], Kind.PASS, ""),
        ("  return a - b;\n}", Kind.FAIL, "AssertionError in the tests, line 6: assert.deepEqual(candidate(1, 2),3);"),
        ("  return c;\n}", Kind.FAIL, "ReferenceError: c is not defined in the tests, line 6"),
        ("  throw new TypeError('no');\n}", Kind.FAIL, "TypeError: no in the tests, line 6"),
        ("  return a + b;\n", Kind.SYNTAX, "SyntaxError: "),
        ("  return a +* b;\n}", Kind.SYNTAX, "SyntaxError: "),
        ("  return add(a, b);\n}", Kind.FAIL, "RangeError: Maximum call stack size exceeded"),
        ("  for (;;);\n}", Kind.TIMEOUT, "used more than 1 s of CPU time"),
        ("  console.log('x'.repeat(1 << 20)); return a + b;\n}", Kind.OUTPUT, "printed more than 65536 bytes"),
        ("  const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1));\n}", Kind.MEMORY, ""),
        ("  process.exit(0);\n}", Kind.FAIL, "the process ended with status 0 before its tests did"),
        ("  return a + b;\n}\nreturn;", Kind.TAMPER, "passes beside its tests"),
        ("  return Promise.resolve(a + b);\n}", Kind.FAIL, "AssertionError in the tests, line 6"),
        ("  return require('os').cpus() && a + b;\n}", Kind.PASS, ""),
        ("  return eval('a + b');\n}", Kind.PASS, ""),
        ("  const f = async () => 1; f(); return a + b;\n}", Kind.PASS, ""),
        ("  return a + b;\n}\nPromise.reject(new Error('late'));", Kind.FAIL, "Error: late"),
        ("  return [a + b][0];\n}\nvar test = 3;", Kind.FAIL, "TypeError: test is not a function"),
    ],
)
def test_javascript(javascript: Runner, text: str, kind: Kind, evidence: str) -> None:
    verdict = judge(javascript, JS_PROBLEM, text)
    assert verdict.verdict is kind, verdict
    assert verdict.evidence.startswith(evidence), verdict


@pytest.mark.parametrize(
    ("text", "kind", "evidence"),
    [
        (RIGHT["java"], Kind.PASS, ""),
        ("        return Pair.with(a, a);\n", Kind.FAIL, "AssertionError in the tests, line 3: assert(add((1l)"),
        ("        return null;\n", Kind.FAIL, "NullPointerException: "),
        (
            '        throw new IllegalStateException("no");\n',
            Kind.FAIL,
            "IllegalStateException: no in the tests, line 3",
        ),
        ("        return sum;\n", Kind.SYNTAX, "line 8: cannot find symbol symbol: variable sum"),
        ("        return Pair.with(a, a)\n", Kind.SYNTAX, "line 8: ';' expected"),
        ("        return add(a, b);\n", Kind.FAIL, "StackOverflowError"),
        ("        while (true) a++;\n", Kind.TIMEOUT, "used more than 1 s of CPU time"),
        ('        while (true) System.out.println("some words");\n', Kind.OUTPUT, "printed more than 65536 bytes"),
        (
            "        ArrayList<long[]> all = new ArrayList<>();\n        while (true) all.add(new long[1 << 17]);\n",
            Kind.MEMORY,
            "OutOfMemoryError",
        ),
        ("        System.exit(0);\n        return null;\n", Kind.FAIL, "the process ended with status 0 before"),
        ("        Runtime.getRuntime().halt(0);\n        return null;\n", Kind.FAIL, "the process ended with status 0"),
        ("        System.out.println(a);\n" + RIGHT["java"], Kind.PASS, ""),
        ("        new Thread(() -> { }).start();\n" + RIGHT["java"], Kind.PASS, ""),
        (
            RIGHT["java"].replace("Pair.with(a, sum)", "new Pair<>(a, sum) { }"),
            Kind.SYNTAX,
            "line 10: cannot inherit from",
        ),
    ],
)
def test_java(java: Runner, text: str, kind: Kind, evidence: str) -> None:
    verdict = judge(java, JAVA_PROBLEM, text)
    assert verdict.verdict is kind, verdict
    assert verdict.evidence.startswith(evidence), verdict


@pytest.mark.parametrize(
    ("check", "kind"),
    [("assert.throws(() => candidate.x.y)", Kind.PASS), ("assert.strict.deepEqual(candidate(1, 2), '3')", Kind.FAIL)],
)
def test_javascript_assertions_of_every_kind(javascript: Runner, check: str, kind: Kind) -> None:
    """Those that the warm context does not offer are made in a process of their own; a stand-in has no properties."""
    tests = f"const assert = require('assert');\nfunction test() {{ let candidate = add; {check}; }}\ntest();"
    problem = multipl_e(JAVASCRIPT | {"tests": tests}, "own")
    program = problem.program(RIGHT["js"])
    verdict = javascript.judge(problem, program, alone=False) or javascript.judge(problem, program, alone=True)
    assert verdict is not None
    assert verdict.verdict is kind, verdict


def test_java_tests_that_cannot_be_run_are_no_verdict(java: Runner) -> None:
    problem = multipl_e(JAVA | {"tests": "    }\n    static void tests() { }\n}\n"}, "own")
    verdict = java.judge(problem, problem.program(RIGHT["java"]), alone=False)
    assert verdict is not None
    assert verdict.verdict is Kind.INFRASTRUCTURE
    assert "no main method" in verdict.evidence


JS_FAILURES = ["  return a - b;\n}", "  return [a].map(x => x + 1n);\n}", "  return null.x;\n}", "  throw 'words';\n}"]
JAVA_FAILURES = ["        return Pair.with(0l, 0l);\n", "        return Pair.with(a, b.get(7));\n"]


@pytest.mark.parametrize("text", JS_FAILURES)
def test_javascript_fails_alike_warm_and_fresh(javascript: Runner, text: str) -> None:
    program = JS_PROBLEM.program(text)
    assert javascript.judge(JS_PROBLEM, program, alone=False) == javascript.judge(JS_PROBLEM, program, alone=True)


@pytest.mark.parametrize("text", JAVA_FAILURES)
def test_java_fails_alike_warm_and_fresh(java: Runner, text: str) -> None:
    program = JAVA_PROBLEM.program(text)
    assert java.judge(JAVA_PROBLEM, program, alone=False) == java.judge(JAVA_PROBLEM, program, alone=True)
