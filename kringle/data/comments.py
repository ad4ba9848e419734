"""The comment-to-code ratio, SantaCoder's signal, exactly as the original computed it.

ratio = characters of natural text / characters of the file (bigcode-dataset/preprocessing/utils/text_extraction.py).
Python: docstrings of the module, classes and functions (not async ones), cleaned as `inspect.cleandoc` does, and
comments without their `#`; a syntax error silences the docstrings and a tokenizer error the comments, so a file that is
not Python 3 tends to 0. Java and JavaScript: what pygments calls `Comment.Single` and `Comment.Multiline`, delimiters
included. One deviation: a byte-order mark is not held against a Python file.
"""

from __future__ import annotations

import ast
import functools
import inspect
import io
import re
import sys
import tokenize
import warnings
from collections import deque
from typing import NamedTuple

import numpy as np
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment

from kringle.data.comment_kernels.java import java_comments
from kringle.data.comment_kernels.javascript import javascript_comments
from kringle.data.comment_kernels.python import MOST_DOCSTRINGS, python_scan


class Measured(NamedTuple):
    """A ratio, and whether the compiled scanner was sure of it; otherwise the exact, slow way was taken."""

    ratio: float
    fast: bool


def comment_ratio(content: str, language: str) -> float:
    """The comment-to-code ratio of a text; 0 for an empty one."""
    return measure_comments(content, language).ratio


def measure_comments(content: str, language: str) -> Measured:
    """The ratio, and how it was found."""
    if not content:
        return Measured(0.0, True)
    length = _scanned_python(content) if language == "python" else _scanned(content, language)
    if length is not None:
        return Measured(length / len(content), True)
    return Measured(exact_comment_ratio(content, language), False)


def exact_comment_ratio(content: str, language: str) -> float:
    """The ratio by the definition: ast and tokenize, or pygments."""
    if not content:
        return 0.0
    if language == "python":
        return len(python_text(content)) / len(content)
    return _pygments_length(content, language) / len(content)


def _scanned(content: str, language: str) -> int | None:
    """Characters in comments of Java or JavaScript; None where the scanner is unsure."""
    # As pygments prepares a text: no byte-order mark, line feeds only, none at either end but the last.
    text = content.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = np.frombuffer((text.strip("\n") + "\n").encode(), dtype=np.uint8)
    length = java_comments(data) if language == "java" else javascript_comments(data)
    return None if length < 0 else length


def _scanned_python(content: str) -> int | None:
    """Characters of natural text in Python; None where only a parser can tell."""
    raw = content.removeprefix("\ufeff").encode()
    if b"\0" in raw:
        return None
    counts = np.zeros(3, dtype=np.int64)
    places = np.empty((MOST_DOCSTRINGS + 1, 5), dtype=np.int64)
    if not python_scan(np.frombuffer(raw, dtype=np.uint8), counts, places):
        return None
    rows = places[: places[-1, 0]].tolist()
    found = []
    for kind, name_start, name_end, start, end in rows:
        try:
            text = _literal(raw[start:end].decode())
        except _FAULTS:
            return None
        plain = text and "\n" not in text and "\t" not in text and not text[0].isspace()  # nothing to clean
        if cleaned := text if plain else inspect.cleandoc(text):
            found.append((kind, raw[name_start:name_end], cleaned))
    found.sort(key=lambda item: item[:2])
    # Equal names keep another order here than in a walk of the tree, which matters at the ends alone.
    if found and (found[0][2] != found[0][2].lstrip() or found[-1][2] != found[-1][2].rstrip()):
        return None
    docstrings = sum(len(text) for _, _, text in found) + max(0, len(found) - 1)
    characters, leading, trailing = counts.tolist()
    if characters == leading:
        return docstrings
    return docstrings + 1 + characters - trailing if docstrings else characters - leading - trailing


def _literal(text: str) -> str:
    """The value of a string literal."""
    if "\\" in text or "\r" in text or text[0] not in "'\"":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Python 3.12 on, of invalid escapes; nobody here can mend them
            value = ast.literal_eval(text)
        assert isinstance(value, str)
        return value
    return text[3:-3] if text[:3] in ("'''", '"""') and len(text) >= 6 else text[1:-1]


# -- Python ------------------------------------------------------------------------------------------------------------

_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)  # of ast.parse on hostile source
_ORDER = {ast.ClassDef: 0, ast.FunctionDef: 1, ast.Module: 2}  # the original sorts by the names of these kinds

# Statements that hold statements, with the fields that do. Expressions hold none, so nothing else need be visited.
_BLOCKS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Module: ("body",),
    ast.ClassDef: ("body",),
    ast.FunctionDef: ("body",),
    ast.AsyncFunctionDef: ("body",),
    ast.If: ("body", "orelse"),
    ast.For: ("body", "orelse"),
    ast.AsyncFor: ("body", "orelse"),
    ast.While: ("body", "orelse"),
    ast.With: ("body",),
    ast.AsyncWith: ("body",),
    ast.Try: ("body", "handlers", "orelse", "finalbody"),
    ast.TryStar: ("body", "handlers", "orelse", "finalbody"),
    ast.ExceptHandler: ("body",),
    ast.Match: ("cases",),
    ast.match_case: ("body",),
}

# Strings and comments of a file that is known to be valid Python, where a quote always opens a string that closes.
_LEXEMES = re.compile(
    r'''#[^\r\n]*|"""(?:[^"\\]++|\\.|"(?!""))*+"""|\'\'\'(?:[^'\\]++|\\.|'(?!\'\'))*+\'\'\''''
    r"""|"(?:[^"\\\n]++|\\(?:\r\n|.))*+"|'(?:[^'\\\n]++|\\(?:\r\n|.))*+\'""",
    re.DOTALL,
)
_LONE_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")
_FORMATTED = re.compile(r"""(?<![A-Za-z0-9_])(?:[ft]r?|r[ft])["']""", re.IGNORECASE)


def python_text(source: str) -> str:
    """All natural text of Python source: docstrings joined by newlines, then comments joined by nothing."""
    source = source.removeprefix("\ufeff")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like, in other people's code
            tree: ast.Module | None = ast.parse(source)
    except _FAULTS:
        tree = None
    docstrings = "\n".join(_docstrings(tree)) if tree is not None else ""
    if tree is None or not lexes_by_pattern(source, sys.version_info[:2]):
        comments = tokenized_comments(source)
    else:
        comments = "".join(lexeme for lexeme in _LEXEMES.findall(source) if lexeme[0] == "#")
    return f"{docstrings}\n{comments.replace('#', '')}".strip()


def lexes_by_pattern(source: str, version: tuple[int, ...]) -> bool:
    """Whether a pattern finds the comments of this valid source just as the tokenizer of Python `version` does.

    Not with bare carriage returns, which the tokenizer does not take for line ends; not with a backslash at the very
    end, where the tokenizer stumbles though the parser may not; and from 3.12 on not with formatted strings, which may
    hold quotes and comments of their own (PEP 701).
    """
    if source.rstrip().endswith("\\"):
        return False
    if "\r" in source and _LONE_CARRIAGE_RETURN.search(source):
        return False
    return version < (3, 12) or _FORMATTED.search(source) is None


def tokenized_comments(source: str) -> str:
    """All comments that Python's tokenizer finds, joined; nothing when it stumbles anywhere."""
    try:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        return "".join(token.string for token in tokens if token.type == tokenize.COMMENT)
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return ""


def _docstrings(tree: ast.Module) -> list[str]:
    """Cleaned docstrings, sorted by kind and name as the original does (what is first decides what is stripped)."""
    found: list[tuple[int, str, str]] = []
    queue: deque[ast.AST] = deque([tree])
    while queue:
        node = queue.popleft()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
            name = "" if isinstance(node, ast.Module) else node.name
            if docstring := ast.get_docstring(node):
                found.append((_ORDER[type(node)], name, docstring))
        for block in _BLOCKS[type(node)]:
            queue.extend(child for child in getattr(node, block) if type(child) in _BLOCKS)
    found.sort(key=lambda item: item[:2])  # stable: equal names stay in breadth-first order
    return [docstring for _, _, docstring in found]


# -- Java and JavaScript -----------------------------------------------------------------------------------------------


@functools.cache
def _lexer(language: str) -> Lexer:
    return get_lexer_by_name(language)


def _pygments_length(content: str, language: str) -> int:
    tokens = _lexer(language).get_tokens(content)
    return sum(len(text) for kind, text in tokens if kind is Comment.Single or kind is Comment.Multiline)
