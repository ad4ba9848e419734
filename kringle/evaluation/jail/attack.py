"""Try to break out, to spoil the next program's verdict, to pass without solving: with the programs in `attacks/`.

Each attack runs as any model's program would. After each, a right program must still pass and a wrong one still fail,
with the same evidence as before; at the end nothing of the jail may remain. Takes about ten seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.runner import Runner, open_runner
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict
from kringle.evaluation.problems import Problem

SHIPPED = Path(__file__).parent / "attacks"
KINDS = ("machine", "neighbours", "gaming")
_LIMITS = Limits(cpu_seconds=0.1, memory_bytes=32 * 2**20, output_bytes=2**20)
_ESCAPED = ("pass", "infrastructure")


@dataclass(frozen=True)
class Attack:
    """One program that means harm. `verdicts`: what it must come to, or empty for anything but a pass."""

    kind: str
    name: str
    program: str
    problem: str = ""
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How an attack ended. `by` is what stopped it, or what it achieved."""

    kind: str
    name: str
    blocked: bool
    by: str


def _problem(name: str, entry_point: str, *checks: str) -> Problem:
    test = "\ndef check(candidate):\n" + "".join(f"    {line}\n" for line in checks)
    return Problem(name, "", entry_point, "", test)


_PROBLEMS = {
    "machine": _problem("machine", "solution", "assert candidate() == 'escaped'"),
    "gaming": _problem(
        "gaming",
        "total",
        "assert candidate([1, 2, 3]) == 6",
        "assert candidate([]) == 0",
        "assert candidate([-1, -2, 0]) == -3",
    ),
    "nearly": _problem(
        "nearly",
        "half",
        "import math",
        "assert math.isclose(candidate(3), 1.5)",
        "assert math.fabs(candidate(5) - 2.5) < 1e-6",
        "assert abs(candidate(7) - 3.5) < 1e-6",
    ),
    "apply": _problem(
        "apply",
        "apply",
        "assert candidate(lambda value: value + 41, 1) == 42",
        "assert candidate(lambda value: -value, 1) == -1",
    ),
    "every": _problem(
        "every",
        "total",
        "cases = [([1, 2], 3), ([4], 4)]",
        "assert all(map(lambda case: candidate(case[0]) == case[1], cases))",
    ),
}
# Uses what the neighbours try to spoil; `{}` is where a wrong program differs.
_NEIGHBOUR = _problem("neighbour", "survey", "assert candidate(['b', 'a', 'b']) == ('b', 2, 3.0, 10, [1], True, 256)")
_NEIGHBOUR_PROGRAM = """
import collections, math, random, re
from collections.abc import Sequence
def survey(words):
    random.seed(1)
    most, times = collections.Counter(words).most_common(1)[0]
    numbers = [random.randint(1, 6) for _ in range(10)]
    depth = (lambda f: f(f, 200))(lambda f, n: 0 if n == 0 else 1 + f(f, n - 1))
    right = sum(numbers) > 0 and depth == 200 and math.pi > 3.1 and re.compile("a").match("a")
    right = right and isinstance([], Sequence) and not isinstance({{}}, Sequence)
    return most, times, math.sqrt(9), len(numbers), sorted({{1}}), bool(right), 255 + {}
"""


def shipped_attacks() -> tuple[Attack, ...]:
    """The attacks in `attacks/`, by kind and in the order of their files."""
    return tuple(
        Attack(kind, row["name"], row["program"], row.get("problem", ""), tuple(row.get("verdicts", ())))
        for kind in KINDS
        for row in yaml.safe_load((SHIPPED / f"{kind}.yaml").read_text("utf-8"))
    )


def attack(level: Level, attacks: Sequence[Attack] | None = None) -> Iterator[Outcome]:
    """Run attacks one after another in one jail of a level; by default all that are shipped."""
    before = os.environ.get("KRINGLE_ATTACK_SECRET")
    os.environ["KRINGLE_ATTACK_SECRET"] = "secret"
    try:
        with _bait() as words, contextlib.closing(open_runner("python", _LIMITS, level)) as runner:
            expected = _neighbours(runner)
            if [kind for kind, _ in expected] != ["pass", "fail"]:
                raise AssertionError(f"before any attack: {expected}")
            for one in shipped_attacks() if attacks is None else attacks:
                outcome = _run(runner, one, words)
                after = _neighbours(runner)
                if after != expected:
                    outcome = Outcome(one.kind, one.name, False, f"the next program was judged otherwise: {after}")
                yield outcome
    finally:
        if before is None:
            del os.environ["KRINGLE_ATTACK_SECRET"]
        else:
            os.environ["KRINGLE_ATTACK_SECRET"] = before


@contextlib.contextmanager
def _bait() -> Iterator[dict[str, str]]:
    """A file that anyone may read and a port that anyone may connect to, if they can reach them."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        secret.chmod(0o666)
        yield {"@SECRET@": str(secret), "@PORT@": str(server.getsockname()[1])}
        if [path.name for path in Path(folder).iterdir()] != ["secret"] or secret.read_text() != "secret":
            raise AssertionError("an attack has changed the host's files")


def _run(runner: Runner, one: Attack, words: dict[str, str]) -> Outcome:
    program = one.program
    for word, value in words.items():
        program = program.replace(word, value)
    problem = _PROBLEMS.get(one.problem or one.kind, _NEIGHBOUR)
    verdict = _judge(runner, problem, program)
    expected = one.verdicts or [kind for kind in Kind if kind not in _ESCAPED]
    return Outcome(one.kind, one.name, str(verdict.verdict) in expected, f"{verdict.verdict}: {verdict.evidence}")


def _neighbours(runner: Runner) -> list[tuple[str, str]]:
    """How a right and a wrong program are judged now."""
    verdicts = [_judge(runner, _NEIGHBOUR, _NEIGHBOUR_PROGRAM.format(number)) for number in (1, 2)]
    return [(str(verdict.verdict), verdict.evidence) for verdict in verdicts]


def _judge(runner: Runner, problem: Problem, program: str) -> Verdict:
    text = problem.program(program)
    verdict = runner.judge(problem, text, alone=False) or runner.judge(problem, text, alone=True)
    if verdict is None:
        raise AssertionError("a run alone always has a verdict")
    return verdict
