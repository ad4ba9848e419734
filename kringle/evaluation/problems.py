"""Problems of a suite, read from the formats in which the field publishes them.

    human-eval    JSON Lines: task_id, prompt, entry_point, canonical_solution, test   (openai/human-eval)
    infilling     the same with `suffix`                                               (openai/human-eval-infilling)
    multipl-e     JSON Lines: name, language, prompt, tests, stop_tokens               (nuprl/MultiPL-E)
    fim-task      Parquet or JSON Lines: name, language, prompt, suffix, canonical_solution, tests
                  (bigcode/santacoder-fim-task)
    docstrings    JSON Lines: code, docstring_tokens                                   (CodeXGLUE, code-to-text)
    mbpp          JSON Lines: task_id, text, code, test_list, test_setup_code          (google-research/mbpp)

A problem is text only. What its program is, and where that program ends and its tests begin, is decided here, once.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kringle.errors import UserError

# MultiPL-E's names of the three languages, and ours.
LANGUAGES = {"py": "python", "python": "python", "java": "java", "js": "javascript", "javascript": "javascript"}
_HUMAN_EVAL_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_CLOSES_METHOD = "    }\n"  # how MultiPL-E's Java tests begin: they close the method that the completion left open


@dataclass(frozen=True)
class Problem:
    """One problem. `test` raises, or ends its process with another status than 0, unless the program is right.

    In HumanEval's format `test` defines `check(candidate)`, and `entry_point` names the candidate; in the others the
    tests call the program by name. `closes` says that prompt, completion and suffix end in a brace of the class that
    the Java tests belong into. `whole_line` says that the answer is one line with its line break, which a stop at "\\n"
    takes away from a completion.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    suffix: str = ""
    language: str = "python"
    calls_check: bool = True
    closes: bool = False
    whole_line: bool = False
    stop: tuple[str, ...] = ()
    group: str = ""  # what a problem has been made from, where several come from one: such are alike

    @cached_property
    def tests(self) -> str:
        """The tests as they run: from their first line that is not empty to the call of `check`, if there is one."""
        body = self.test[self._blank :]
        return f"{body}\ncheck({self.entry_point})" if self.calls_check else body

    def program(self, completion: str) -> str:
        """The text before `tests`.

        An answer that is a whole line gets back the line break that its stop took. Text after a line break of its own
        is no such answer, and stays as it is.

        Both together are human-eval's program: prompt + completion + suffix + "\\n" + test + "\\n" + call.
        """
        end = "\n" if self.whole_line and "\n" not in completion else ""
        return self.whole(f"{self.prompt}{completion}{end}{self.suffix}")

    def whole(self, text: str) -> str:
        """The text before `tests` where the prompt is already part of `text`."""
        if self.closes:
            text = text.rstrip().removesuffix("}")
        return f"{text}\n{self.test[: self._blank]}"

    @cached_property
    def key(self) -> str:
        """Names this problem's tests for processes that keep them: two editions of one problem have two."""
        text = "\0".join((self.prompt, self.entry_point, self.tests, self.suffix))
        return f"{self.task_id}:{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"

    @cached_property
    def _blank(self) -> int:
        return len(self.test) - len(self.test.lstrip("\n"))


Parse = Callable[[Mapping[str, Any], str], Problem]


def read_problems(path: Path, kind: str, language: str) -> Iterator[Problem]:
    """Problems of a file, in its order; UserError for anything in it that is none.

    language is the suite's: for the formats whose rows name none, and to refuse another suite's file by mistake.
    """
    parse = _FORMATS[kind]
    seen: set[str] = set()
    for number, row in enumerate(rows(path), 1):
        where = f"{path}, line {number}"
        if row is None:
            continue
        if not isinstance(row, dict):
            raise UserError("a problem must be a JSON object", where=where)
        problem = parse(row, where)
        if language not in ("mixed", problem.language):
            raise UserError(f"{problem.task_id} is in {problem.language}, the suite in {language}", where=where)
        if problem.task_id in seen:
            raise UserError(f"{problem.task_id} is there twice", where=where)
        seen.add(problem.task_id)
        check_tests(problem, where)
        yield problem
    if not seen:
        raise UserError("there are no problems in it", where=str(path))


def rows(path: Path) -> Iterator[Any]:
    """Rows of a JSON Lines file (gzipped or not) or of a Parquet file; None for an empty line."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        try:
            yield from parquet.read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(f"cannot be read: {error}", where=str(path), hint="is the file complete?") from None
        return
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            yield None
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where=f"{path}, line {number}") from None


def detect(path: Path) -> tuple[str, str]:
    """(format, language) of a file of problems, by the fields of its first row."""
    first = next((row for row in rows(path) if row is not None), None)
    if isinstance(first, dict):
        if "suffix" in first:
            return ("fim-task", "mixed") if "tests" in first else ("infilling", "python")
        if "tests" in first and "language" in first:
            return "multipl-e", LANGUAGES.get(str(first["language"]), str(first["language"]))
        if "test_list" in first:
            return "mbpp", "python"
        if {"task_id", "prompt", "test"} <= first.keys():
            return "human-eval", "python"
    raise UserError(
        "no suite of problems that is known here",
        where=str(path),
        hint=f"known formats are {', '.join(_FORMATS)}",
    )


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), hint="is the file complete?") from None


def _texts(row: Mapping[str, Any], fields: tuple[str, ...], where: str) -> tuple[str, ...]:
    for key in fields:
        if not isinstance(row.get(key), str):
            raise UserError(f"{key} is missing or no text", where=where, hint=f"a problem has {', '.join(fields)}")
    return tuple(row[key] for key in fields)


def _language(name: str, where: str) -> str:
    if name not in LANGUAGES:
        raise UserError(f"language {name!r} is not one of {', '.join(sorted(set(LANGUAGES.values())))}", where=where)
    return LANGUAGES[name]


def _human_eval(row: Mapping[str, Any], where: str) -> Problem:
    task_id, prompt, entry_point, solution, test = _texts(row, _HUMAN_EVAL_FIELDS, where)
    return Problem(task_id, prompt, entry_point, solution, test)


def _infilling(row: Mapping[str, Any], where: str) -> Problem:
    (suffix,) = _texts(row, ("suffix",), where)
    problem = _human_eval(row, where)
    solution = problem.canonical_solution
    whole_line = solution.endswith("\n") and solution.count("\n") == 1
    return replace(problem, suffix=suffix, whole_line=whole_line, group=problem.task_id.rpartition("/")[0])


def multipl_e(row: Mapping[str, Any], where: str) -> Problem:
    """A problem of MultiPL-E; also of its files of completions, which repeat prompt and tests."""
    name, language, prompt, tests = _texts(row, ("name", "language", "prompt", "tests"), where)
    language = _language(language, where)
    solution = row.get("canonical_solution")
    return Problem(
        name,
        prompt,
        open_function(prompt) if language == "python" else "",
        solution if isinstance(solution, str) else "",
        tests,
        language=language,
        calls_check=False,
        stop=tuple(stop for stop in row.get("stop_tokens") or () if isinstance(stop, str) and stop),
    )


def _fim_task(row: Mapping[str, Any], where: str) -> Problem:
    """SantaCoder's: the missing line stands on a line of its own, so both its line breaks are added here.

    The names repeat across languages; `language/name` does not. Its Java suffixes close the class, its tests close the
    method: both as in the original files, mended here as `Problem.closes` tells.
    """
    fields = ("name", "language", "prompt", "suffix", "canonical_solution", "tests")
    name, language, prompt, suffix, solution, tests = _texts(row, fields, where)
    kind = _language(language, where)
    closes = kind == "java" and tests.startswith(_CLOSES_METHOD)
    return Problem(
        f"{language}/{name}",
        f"{prompt}\n",
        function_around(f"{prompt}\n{solution}\n{suffix}", prompt.count("\n") + 2) if kind == "python" else "",
        solution,
        tests.removeprefix(_CLOSES_METHOD) if closes else tests,
        suffix=f"\n{suffix}",
        language=kind,
        calls_check=False,
        closes=closes,
        stop=("\n",),
        group=f"{language}/{name.rpartition('-L')[0]}",
    )


def _mbpp(row: Mapping[str, Any], where: str) -> Problem:
    """MBPP: a sentence, and three assertions; the prompt is InCoder's docstring (bigcode-evaluation-harness, mbpp.py):
    the sentence and the first assertion."""
    text, code = _texts(row, ("text", "code"), where)
    tests, setup = row.get("test_list"), row.get("test_setup_code") or ""
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise UserError("test_list is missing or no list of texts", where=where)
    prompt = f'"""\n{text}\n{tests[0]}\n"""\n'
    body = "\n".join(([str(setup)] if setup else []) + tests)
    return Problem(f"Mbpp/{row.get('task_id')}", prompt, "", code, body, calls_check=False)


def _docstring(row: Mapping[str, Any], where: str) -> Problem:
    """CodeXGLUE's Python functions: the prompt ends with the opening quotes of the docstring, which is to be written.

    Nothing is run: `canonical_solution` is the reference, its tokens with spaces between them (BLEU splits words and
    signs again, so undoing the tokenisation would change nothing).
    """
    (code,) = _texts(row, ("code",), where)
    words = row.get("docstring_tokens")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError("docstring_tokens is missing or no list of texts", where=where)
    name = str(row.get("url") or row.get("path") or hashlib.sha1(code.encode()).hexdigest())
    return Problem(name, _up_to_docstring(code, where), "", " ".join(words), "", calls_check=False)


# Parts of Python's text among which only brackets and colons say where a signature ends.
_PART = re.compile(
    r"""(?P<skipped>\#[^\n]*|\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<colon>:)",
    re.DOTALL,
)
_DEF = re.compile(r"^[ \t\f]*(?:async[ \t]+)?def[ \t]+\w+", re.MULTILINE)
_BEFORE_BODY = re.compile(r"(?:\s|\\\n|#[^\n]*(?:\n|$))*")


def _up_to_docstring(code: str, where: str) -> str:
    """A function's text up to and with the opening quotes of its docstring; where it has none, of the place for one.

    Found in the text: much of the set is Python 2, which the parser refuses.
    """
    function = _DEF.search(code)
    depth = 0
    for part in _PART.finditer(code, function.end()) if function else ():
        depth += (part.lastgroup == "open") - (part.lastgroup == "close")
        if part.lastgroup == "colon" and not depth:
            body = _BEFORE_BODY.match(code, part.end())
            assert body is not None, "it matches nothing, too"
            return code[: body.end()] + '"""'
    raise UserError("code is no Python function", where=where)


_FORMATS: dict[str, Parse] = {
    "docstrings": _docstring,
    "human-eval": _human_eval,
    "infilling": _infilling,
    "multipl-e": multipl_e,
    "fim-task": _fim_task,
    "mbpp": _mbpp,
}
FORMATS = tuple(_FORMATS)


def open_function(prompt: str) -> str:
    """The name of the function that a Python prompt leaves open: the last one at its top level, or ""."""
    for ending in ("\n", "\n    pass\n", "\n        pass\n"):
        try:
            tree = ast.parse(prompt + ending)
        except (SyntaxError, ValueError):
            continue
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        return names[-1] if names else ""
    return ""


def function_around(program: str, line: int) -> str:
    """The name of the top-level function of a Python program that holds a line, else of the last one before it."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError):
        return ""
    before = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.lineno <= line]
    return before[-1] if before else ""


def check_tests(problem: Problem, where: str) -> None:
    """Refuse tests that are no Python: they would fail every program, which nobody would notice."""
    if problem.language != "python":
        return
    try:
        compile(problem.tests, "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"the tests of {problem.task_id} are not valid Python: {error}", where=where) from None
