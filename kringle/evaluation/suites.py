"""Suites of problems: a small YAML file of settings beside a JSON Lines file of problems in HumanEval's format.

    problems: task_id, prompt, entry_point, canonical_solution, test    (openai/human-eval, data/HumanEval.jsonl.gz)

A suite's settings are part of its results: the same completions score differently with other stop strings, another
limit or another edition of the prompts. So they are data, they are hashed, and nothing of them has a default in code.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kringle.errors import UserError
from kringle.evaluation.jail.verdicts import Limits

SHIPPED = Path(__file__).parent / "suites"
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_SETTINGS: dict[str, type] = {
    "name": str,
    "about": str,
    "language": str,
    "source": str,
    "get": str,
    "stop": list,
    "limits": dict,
    "protocol": dict,
}
_OPTIONAL: dict[str, type] = {"prompt_hash": str}
_LIMITS: dict[str, type] = {"cpu_seconds": float, "memory_mib": int, "output_mib": int}
_PROTOCOL: dict[str, type] = {"strip_prompt": bool, "max_new_tokens": int, "count_prompt": bool}


class Completion(NamedTuple):
    """What a model wrote after one problem's prompt."""

    task_id: str
    text: str


@dataclass(frozen=True)
class Problem:
    """One problem. `test` defines `check(candidate)`, which raises unless the candidate is right."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str

    @cached_property
    def tests(self) -> str:
        """The tests as they run: from their first line that is not empty to the call of `check`."""
        return f"{self.test[self._blank :]}\ncheck({self.entry_point})"

    def program(self, completion: str) -> str:
        """The text before `tests`.

        Both together are human-eval's program: prompt + completion + "\\n" + test + "\\n" + call.
        """
        return f"{self.prompt}{completion}\n{self.test[: self._blank]}"

    @cached_property
    def _blank(self) -> int:
        return len(self.test) - len(self.test.lstrip("\n"))


@dataclass(frozen=True)
class Protocol:
    """How completions are sampled: whether the prompt loses its trailing white space, how long they may be, and
    whether the prompt counts towards that length (as it does in MultiPL-E and in BigCode's harness)."""

    strip_prompt: bool
    max_new_tokens: int
    count_prompt: bool


@dataclass(frozen=True)
class Suite:
    """Problems and the rules for them."""

    name: str
    about: str
    language: str
    stop: tuple[str, ...]
    limits: Limits
    protocol: Protocol
    problems: tuple[Problem, ...]

    @cached_property
    def prompt_hash(self) -> str:
        """SHA-256 of what was asked: canonical JSON of every problem's id, prompt, entry point and test, in order."""
        asked = [[problem.task_id, problem.prompt, problem.entry_point, problem.test] for problem in self.problems]
        return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode("ascii")).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        """Problems by their task id."""
        return {problem.task_id: problem for problem in self.problems}

    def cut(self, completion: str) -> str:
        """A completion up to the first stop string in it; the prompt is not searched."""
        ends = [position for stop in self.stop if (position := completion.find(stop)) >= 0]
        return completion[: min(ends)] if ends else completion


def load_suite(name_or_path: str | Path, data_dir: Path | None = None) -> Suite:
    """Load a shipped suite by name, or a suite file of the user's by path.

    The problems lie beside the suite file or in `data_dir`. Raises UserError if anything is absent, malformed, or not
    the edition that the suite file pins.
    """
    path = _suite_file(name_or_path)
    settings = _settings(path)
    problems = tuple(_problems(_source(settings, path, data_dir), settings["language"]))
    limits = settings["limits"]
    suite = Suite(
        name=settings["name"],
        about=settings["about"],
        language=settings["language"],
        stop=tuple(settings["stop"]),
        limits=Limits(float(limits["cpu_seconds"]), limits["memory_mib"] * 2**20, limits["output_mib"] * 2**20),
        protocol=Protocol(**settings["protocol"]),
        problems=problems,
    )
    pinned = settings.get("prompt_hash")
    if pinned is not None and pinned != suite.prompt_hash:
        raise UserError(
            f"these are not the problems of {suite.name}: their hash is {suite.prompt_hash[:16]}, not {pinned[:16]}",
            where=settings["source"],
            hint=settings["get"],
        )
    return suite


def problems_file(name_or_path: str | Path, data_dir: Path | None = None) -> Path:
    """The file that a suite's problems are in; UserError as `load_suite`."""
    path = _suite_file(name_or_path)
    return _source(_settings(path), path, data_dir)


def _suite_file(name_or_path: str | Path) -> Path:
    shipped = SHIPPED / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
    raise UserError(
        f"no suite called {str(name_or_path)!r}", hint=f"shipped are {names}; or give the path of a suite's YAML file"
    )


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"not a readable suite file: {error}", where=str(path)) from None
    _check(settings, _SETTINGS, _OPTIONAL, str(path))
    _check(settings["limits"], _LIMITS, {}, f"{path}: limits")
    _check(settings["protocol"], _PROTOCOL, {}, f"{path}: protocol")
    if not all(isinstance(stop, str) and stop for stop in settings["stop"]):
        raise UserError("every stop string must be a text that is not empty", where=str(path))
    if min(settings["limits"].values()) <= 0 or settings["protocol"]["max_new_tokens"] <= 0:
        raise UserError("limits must be greater than zero", where=str(path))
    checked: dict[str, Any] = settings
    return checked


def _check(given: object, wanted: dict[str, type], optional: dict[str, type], where: str) -> None:
    if not isinstance(given, dict):
        raise UserError("expected keys and values", where=where)
    for key in given:
        if key not in wanted and key not in optional:
            raise UserError(f"unknown key {key!r}", where=where, hint=f"known are {', '.join([*wanted, *optional])}")
    for key, kind in (wanted | optional).items():
        if key not in given:
            if key in optional:
                continue
            raise UserError(f"{key} is missing", where=where)
        value = given[key]
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (kind is not bool and isinstance(value, bool)):
            raise UserError(f"{key} must be of type {kind.__name__}, not {value!r}", where=where)


def _source(settings: dict[str, Any], suite_file: Path, data_dir: Path | None) -> Path:
    """The file of problems: beside the suite file, else in the user's data folder."""
    folders = [suite_file.parent] + ([data_dir] if data_dir is not None else [])
    for folder in folders:
        path = folder / str(settings["source"])
        if path.is_file():
            return path
    searched = " or ".join(str(folder) for folder in folders)
    raise UserError(
        f"the problems of {settings['name']} ({settings['source']}) are not in {searched}", hint=settings["get"]
    )


def _problems(path: Path, language: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        problem = _problem(line, f"{path}, line {number}")
        if problem.task_id in seen:
            raise UserError(f"{problem.task_id} is there twice", where=f"{path}, line {number}")
        seen.add(problem.task_id)
        if language == "python":
            _check_tests(problem, f"{path}, line {number}")
        yield problem
    if not seen:
        raise UserError("there are no problems in it", where=str(path))


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), hint="is the file complete?") from None


def _problem(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=where) from None
    if not isinstance(row, dict):
        raise UserError("a problem must be a JSON object", where=where)
    for key in _FIELDS:
        if not isinstance(row.get(key), str):
            raise UserError(f"{key} is missing or no text", where=where, hint=f"a problem has {', '.join(_FIELDS)}")
    return Problem(**{key: row[key] for key in _FIELDS})


def _check_tests(problem: Problem, where: str) -> None:
    """Tests that are no Python would fail every program, which nobody would notice."""
    try:
        compile(problem.tests, "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"the tests of {problem.task_id} are not valid Python: {error}", where=where) from None
