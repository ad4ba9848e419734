"""Try to break out, to spoil the next program's verdict, to pass without solving: with the programs in `attacks/`.

Each attack runs as any model's program would, in the language that it is written in. After each, a right program must
still pass and a wrong one still fail, with the same evidence as before; at the end nothing of the jail may remain. A
language whose runtime is missing is left out. The languages are attacked side by side, each in its own jails, because
many attacks only wait for a limit: about a minute with two cores.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from kringle.evaluation.jail.levels import Level
from kringle.evaluation.jail.runner import Runner, missing_runtime, open_runner
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict
from kringle.evaluation.problems import Problem

SHIPPED = Path(__file__).parent / "attacks"
KINDS = ("machine", "neighbours", "gaming")
LANGUAGES = ("python", "javascript", "java")
# A Java machine and a Node spend a part of their time on starting, and more so where many do at once.
_LIMITS = {
    "python": Limits(cpu_seconds=0.1, memory_bytes=32 * 2**20, output_bytes=2**20),
    "javascript": Limits(cpu_seconds=0.5, memory_bytes=96 * 2**20, output_bytes=2**20),
    "java": Limits(cpu_seconds=0.5, memory_bytes=96 * 2**20, output_bytes=2**20),
}
_AMPLE = 10  # times the CPU time, where another limit is meant: a slow processor must not run out of time first
_ESCAPED = ("pass", "infrastructure")


@dataclass(frozen=True)
class Attack:
    """One program that means harm. `verdicts`: what it must come to, or empty for anything but a pass."""

    kind: str
    name: str
    program: str
    problem: str = ""
    verdicts: tuple[str, ...] = ()
    language: str = "python"

    @property
    def ends_before_its_time(self) -> bool:
        """Whether it must be ended by something else than the limit on its time, or end by itself."""
        return bool(self.verdicts) and "timeout" not in self.verdicts


@dataclass(frozen=True)
class Outcome:
    """How an attack ended. `by` is what stopped it, or what it achieved."""

    kind: str
    name: str
    blocked: bool
    by: str
    language: str = "python"


def _problem(name: str, entry_point: str, *checks: str) -> Problem:
    test = "\ndef check(candidate):\n" + "".join(f"    {line}\n" for line in checks)
    return Problem(name, "", entry_point, "", test)


def _javascript(name: str, head: str, *checks: str) -> Problem:
    lines = "".join(f"  assert.deepEqual({check});\n" for check in checks)
    function = head.partition("(")[0]
    head_lines = "const assert = require('node:assert');\n\n\nfunction test() {\n"
    test = f"{head_lines}  let candidate = {function};\n{lines}}}\n\ntest();"
    return Problem(name, f"function {head}{{\n", "", "", test, language="javascript", calls_check=False)


def _java(name: str, head: str, *checks: str) -> Problem:
    imports = "".join(
        f"import {package}.*;\n" for package in ("java.util", "java.lang.reflect", "org.javatuples", "java.io")
    )
    lines = "".join(f"    assert({check});\n" for check in checks)
    test = f"    }}\n    public static void main(String[] args) {{\n{lines}    }}\n\n}}\n"
    prompt = f"{imports}class Problem {{\n    public static {head} {{\n"
    return Problem(name, prompt, "", "", test, language="java", calls_check=False)


_LIST = "new ArrayList<Long>(Arrays.asList({}))"
_OTHERS = {
    ("javascript", "machine"): _javascript("machine", "solution()", 'candidate(),"escaped"'),
    ("javascript", "gaming"): _javascript(
        "gaming", "total(numbers)", "candidate([1, 2, 3]),6", "candidate([]),0", "candidate([-1, -2, 0]),-3"
    ),
    ("java", "machine"): _java("machine", "String solution()", 'solution().equals(("escaped"))'),
    ("java", "gaming"): _java(
        "gaming",
        "ArrayList<Long> total(ArrayList<Long> numbers)",
        f"total(({_LIST.format('1l, 2l, 3l')})).equals(({_LIST.format('6l')}))",
        f"total(({_LIST.format('')})).equals(({_LIST.format('0l')}))",
        f"total(({_LIST.format('-1l, -2l, 0l')})).equals(({_LIST.format('-3l')}))",
    ),
    ("javascript", "neighbours"): _javascript(
        "neighbour", "survey(words)", "candidate(['b', 'a', 'b']),['b', 2, 3, [1, 2], 256, 'b,a,b']"
    ),
    ("java", "neighbours"): _java("neighbour", "String survey()", 'survey().equals(("b 2 3.0 [1, 2] 256 i"))'),
}
_OTHER_NEIGHBOURS = {
    "javascript": """
  const times = new Map();
  for (const word of words) times.set(word, (times.get(word) || 0) + 1);
  const [most, count] = [...times.entries()].sort((a, b) => b[1] - a[1])[0];
  console.log(JSON.stringify({ most }));
  return [most, count, Math.sqrt(9), [2, 1].map((n) => n).sort(), 255 + @, words.join(',')];
}
""",
    "java": """
        Map<String, Long> times = new TreeMap<>();
        for (String word : List.of("b", "a", "b")) times.merge(word, 1l, Long::sum);
        String most = Collections.max(times.entrySet(), Map.Entry.comparingByValue()).getKey();
        System.out.println(most);
        List<Long> numbers = new ArrayList<>(List.of(2l, 1l));
        Collections.sort(numbers);
        return most + " " + times.get(most) + " " + Math.sqrt(9) + " " + numbers + " " + (255 + @)
            + " " + "I".toLowerCase();
""",
}

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
    """The attacks in `attacks/`, by language, by kind and in the order of their files."""
    return tuple(
        Attack(kind, row["name"], row["program"], row.get("problem", ""), tuple(row.get("verdicts", ())), language)
        for language in LANGUAGES
        for kind in KINDS
        for row in yaml.safe_load(_file(language, kind).read_text("utf-8"))
    )


def _file(language: str, kind: str) -> Path:
    return SHIPPED / (f"{kind}.yaml" if language == "python" else f"{language}-{kind}.yaml")


def attack(level: Level, attacks: Sequence[Attack] | None = None) -> Iterator[Outcome]:
    """Run attacks, one after another in each language's jails of a level; by default all that are shipped."""
    before = os.environ.get("KRINGLE_ATTACK_SECRET")
    os.environ["KRINGLE_ATTACK_SECRET"] = "secret"
    try:
        chosen = shipped_attacks() if attacks is None else attacks
        with _bait() as words:
            by_language = {language: [one for one in chosen if one.language == language] for language in LANGUAGES}
            present = [language for language, own in by_language.items() if own and not missing_runtime(language)]
            yield from _side_by_side([_attack_in(one, level, by_language[one], words) for one in present])
    finally:
        if before is None:
            del os.environ["KRINGLE_ATTACK_SECRET"]
        else:
            os.environ["KRINGLE_ATTACK_SECRET"] = before


def _side_by_side(streams: Sequence[Generator[Outcome, None, None]]) -> Iterator[Outcome]:
    """What several generators yield, each in a thread of its own: all of the first one's, then the next one's."""
    stopping = threading.Event()

    def run(stream: Generator[Outcome, None, None], found: queue.SimpleQueue[Outcome | BaseException | None]) -> None:
        try:
            with contextlib.closing(stream):
                for outcome in stream:
                    found.put(outcome)
                    if stopping.is_set():
                        return
            found.put(None)
        except BaseException as error:
            found.put(error)

    queues: list[queue.SimpleQueue[Outcome | BaseException | None]] = [queue.SimpleQueue() for _ in streams]
    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(streams, queues, strict=True)]
    for thread in threads:
        thread.start()
    try:
        for found in queues:
            while (outcome := found.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _attack_in(
    language: str, level: Level, attacks: Sequence[Attack], words: dict[str, str]
) -> Generator[Outcome, None, None]:
    """The attacks of one language: those that time may end, then those that another limit must end before it."""
    limits = _LIMITS[language]
    ample = replace(limits, cpu_seconds=_AMPLE * limits.cpu_seconds)
    for own, given in (
        ([one for one in attacks if not one.ends_before_its_time], limits),
        ([one for one in attacks if one.ends_before_its_time], ample),
    ):
        if own:
            yield from _attack_within(given, language, level, own, words)


def _attack_within(
    limits: Limits, language: str, level: Level, attacks: Sequence[Attack], words: dict[str, str]
) -> Generator[Outcome, None, None]:
    """Attacks one after another in one runner; after each a right and a wrong program are judged."""
    with contextlib.closing(open_runner(language, limits, level)) as runner:
        expected = _neighbours(runner, language)
        if [kind for kind, _ in expected] != ["pass", "fail"]:
            raise AssertionError(f"before any attack: {expected}")
        for one in attacks:
            outcome = _run(runner, one, words)
            after = _neighbours(runner, language)
            if after != expected:
                why = f"the next program was judged otherwise: {after}"
                outcome = Outcome(one.kind, one.name, False, why, language)
            yield outcome


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


def problem_and_program(one: Attack) -> tuple[Problem, str]:
    """The problem that an attack is an answer to, and the completion that it is."""
    if one.language == "python":
        return _PROBLEMS.get(one.problem or one.kind, _NEIGHBOUR), one.program
    # What spoils the next program may have any problem of its own; in Java it must compile as one.
    kind = "machine" if one.kind == "neighbours" and one.language == "java" else one.kind
    return _OTHERS[one.language, kind], one.program + ("\n}" if one.language == "javascript" else "")


def _run(runner: Runner, one: Attack, words: dict[str, str]) -> Outcome:
    problem, program = problem_and_program(one)
    for word, value in words.items():
        program = program.replace(word, value)
    verdict = _judge(runner, problem, program)
    expected = one.verdicts or [kind for kind in Kind if kind not in _ESCAPED]
    by = f"{verdict.verdict}: {verdict.evidence}"
    return Outcome(one.kind, one.name, str(verdict.verdict) in expected, by, one.language)


def _neighbours(runner: Runner, language: str) -> list[tuple[str, str]]:
    """How a right and a wrong program are judged now."""
    if language == "python":
        verdicts = [_judge(runner, _NEIGHBOUR, _NEIGHBOUR_PROGRAM.format(number)) for number in (1, 2)]
    else:
        problem, text = _OTHERS[language, "neighbours"], _OTHER_NEIGHBOURS[language]
        verdicts = [_judge(runner, problem, text.replace("@", str(number))) for number in (1, 2)]
    return [(str(verdict.verdict), verdict.evidence) for verdict in verdicts]


def _judge(runner: Runner, problem: Problem, program: str) -> Verdict:
    text = problem.program(program)
    verdict = runner.judge(problem, text, alone=False) or runner.judge(problem, text, alone=True)
    if verdict is None:
        raise AssertionError("a run alone always has a verdict")
    return verdict
