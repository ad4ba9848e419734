"""Right solutions broken in small ways: programs whose verdicts are known to be mostly failures, made of trusted code.

Python is changed on its syntax tree (an operator, a constant, a comparison's bound, a branch, a return value), Java and
JavaScript on their tokens (an operator, a number, a boolean). For benchmarks and for tests of the verdicts; a mutant
may be equivalent to the original, so a survivor is no fault by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pygments.lexer import Lexer
from pygments.lexers.javascript import JavascriptLexer
from pygments.lexers.jvm import JavaLexer
from pygments.token import Token

_NODES: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
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
_TOKENS = {
    "+": "-",
    "-": "+",
    "*": "+",
    "/": "*",
    "%": "*",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "===": "!==",
    "!==": "===",
    "&&": "||",
    "||": "&&",
    "++": "--",
    "--": "++",
    "+=": "-=",
    "-=": "+=",
    "true": "false",
    "false": "true",
}
WRONG_RETURN = "wrong return"  # four of these for every return, so that the shortest solution has five mutants, too
_LEXERS: dict[str, type[Lexer]] = {"java": JavaLexer, "javascript": JavascriptLexer}


def python_mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the whole changed source) for every single change to a Python source."""
    tree = ast.parse(source)
    for node in list(ast.walk(tree)):
        changes: list[tuple[str, str, object]] = []
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in _NODES:
            changes.append(("operator", "op", _NODES[type(node.op)]()))
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _NODES:
            changes.append(("bound", "ops", [_NODES[type(node.ops[0])](), *node.ops[1:]]))
        if isinstance(node, ast.Constant) and type(node.value) is int:
            changes += [("off by one", "value", node.value + 1), ("constant", "value", -node.value - 2)]
        if isinstance(node, ast.Constant) and type(node.value) is bool:
            changes.append(("constant", "value", not node.value))
        if isinstance(node, ast.Return) and node.value is not None:
            changes.append(("return", "value", ast.Constant(None)))
            wrong = (
                ast.Constant(0),
                ast.Constant(""),
                ast.List([node.value], ast.Load()),
                ast.UnaryOp(ast.Not(), node.value),
            )
            changes += [(WRONG_RETURN, "value", value) for value in wrong]
        if isinstance(node, ast.If):
            changes.append(("branch", "body", [ast.Pass()]))
            if node.orelse:
                changes.append(("branch", "orelse", []))
        for what, field, value in changes:
            before = getattr(node, field)
            setattr(node, field, value)
            line = getattr(node, "lineno", 0)
            yield f"{what}, line {line}", ast.unparse(ast.fix_missing_locations(tree))
            setattr(node, field, before)


def token_mutants(source: str, language: str, start: int, end: int) -> Iterator[tuple[str, str]]:
    """(what was changed, the whole changed source) for every change of one token between two places of a source."""
    for position, kind, text in _LEXERS[language]().get_tokens_unprocessed(source):
        if not start <= position < end:
            continue
        if kind[:2] == Token.Literal.Number[:2] and text.isdigit():
            changed = str(int(text) + 1)
        elif kind[0] not in ("Comment", "Literal") and text in _TOKENS:
            changed = _TOKENS[text]
        else:
            continue
        line = source.count("\n", 0, position) + 1
        yield f"{text} -> {changed}, line {line}", source[:position] + changed + source[position + len(text) :]
