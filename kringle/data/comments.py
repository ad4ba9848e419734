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
import io
import re
import sys
import tokenize
import warnings
from collections import deque

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment


def comment_ratio(content: str, language: str) -> float:
    """The comment-to-code ratio of a text; 0 for an empty one."""
    if not content:
        return 0.0
    if language == "python":
        return len(python_text(content)) / len(content)
    return _pygments_length(content, language) / len(content)


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
