"""Suites of problems: a small YAML file of settings beside a file of problems (`problems.py` lists the formats).

A suite's settings are part of its results: the same completions score differently with other stop strings, another
limit or another edition of the prompts. So they are data, they are hashed, and nothing of them has a default in code.

A suite file names: the source (a file, and where to get it), the prompts' hash, stop strings, limits, the protocol of
sampling, the rule for prompts that are longer than a model's context, and the words that the suite's own harness has
for our verdicts (`verdicts`, for `--compat` and for files that it shall read).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from kringle.errors import UserError
from kringle.evaluation.jail.verdicts import Kind, Limits
from kringle.evaluation.problems import FORMATS, Problem, detect, read_problems
from kringle.strict_yaml import parse_yaml

SHIPPED = Path(__file__).parent / "suites"
# Where public sets are looked for beside the suite file and what the caller names; the first is an environment
# variable, the others are relative to the folder that the command runs in.
BENCHMARKS_VARIABLE = "KRINGLE_BENCHMARKS"
_USUAL_FOLDERS = (".", "benchmarks")
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
_OPTIONAL: dict[str, type] = {"prompt_hash": str, "format": str, "verdicts": dict, "hub": str}
_LIMITS: dict[str, type] = {"cpu_seconds": float, "memory_mib": int, "output_mib": int}
_PROTOCOL: dict[str, type] = {"strip_prompt": bool, "max_new_tokens": int, "count_prompt": bool}
_OPTIONAL_PROTOCOL: dict[str, type] = {"truncate": str, "measure": str}


class Completion(NamedTuple):
    """What a model wrote for one problem; `whole` where it repeats the prompt, as BigCode's harness writes it."""

    task_id: str
    text: str
    whole: bool = False


@dataclass(frozen=True)
class Protocol:
    """How completions are sampled: whether the prompt loses its trailing white space, how long they may be, and
    whether the prompt counts towards that length (as it does in MultiPL-E and in BigCode's harness).

    truncate: what a prompt that is longer than the model's context loses; "left" is its beginning, "outside" is what
    lies furthest from the gap that is to be filled. measure: "execution"; "exact" where the line itself counts; "bleu"
    where a text is compared and nothing is run.
    """

    strip_prompt: bool
    max_new_tokens: int
    count_prompt: bool
    truncate: str = "left"
    measure: str = "execution"


@dataclass(frozen=True)
class Suite:
    """Problems and the rules for them. `harness_words` are another harness's words for our verdicts."""

    name: str
    about: str
    language: str
    stop: tuple[str, ...]
    limits: Limits
    protocol: Protocol
    problems: tuple[Problem, ...]
    harness_words: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def prompt_hash(self) -> str:
        """SHA-256 of what was asked: canonical JSON of every problem's id, prompt, entry point, test and, where it has
        one, suffix, in order."""
        asked = [
            [problem.task_id, problem.prompt, problem.entry_point, problem.test, *filter(None, [problem.suffix])]
            for problem in self.problems
        ]
        return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode("ascii")).hexdigest()

    @cached_property
    def stop_hash(self) -> str:
        """SHA-256 of canonical JSON of every problem's stop strings, in order."""
        stops = [self.stops_for(problem) for problem in self.problems]
        return hashlib.sha256(json.dumps(stops, separators=(",", ":")).encode("ascii")).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        """Problems by their task id."""
        return {problem.task_id: problem for problem in self.problems}

    @cached_property
    def infills(self) -> bool:
        """Whether a gap is to be filled in. It is of all problems alike, also of those whose gap is at the end."""
        return any(problem.suffix for problem in self.problems)

    def cut(self, completion: str, problem: Problem | None = None) -> str:
        """A completion up to the first stop string in it; the prompt is not searched.

        A problem may bring stop strings of its own (MultiPL-E's do); they replace the suite's.
        """
        stops = problem.stop if problem is not None and problem.stop else self.stop
        ends = [position for stop in stops if (position := completion.find(stop)) >= 0]
        return completion[: min(ends)] if ends else completion

    def stops_for(self, problem: Problem) -> tuple[str, ...]:
        """The stop strings that end a completion of this problem."""
        return problem.stop or self.stop


def load_suite(name_or_path: str | Path, data_dir: Path | None = None, *, problems_needed: bool = True) -> Suite:
    """Load a shipped suite by name, a suite file of the user's, or a file of problems in a known format, by path.

    The problems lie beside the suite file, in `data_dir`, or in one of the usual folders. Raises UserError if anything
    is absent, malformed, or not the edition that the suite file pins. Without `problems_needed`, absent problems leave
    a suite of rules alone, for completions that bring their problems along.
    """
    path = _suite_file(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        return _with_whole_answers(_suite_of_problems(path), path)
    settings = _settings(path)
    try:
        source = _source(settings, path, data_dir)
    except UserError:
        if problems_needed:
            raise
        return _rules(settings)
    suite = _suite(settings, source)
    pinned = settings.get("prompt_hash")
    if pinned is not None and pinned != suite.prompt_hash:
        raise UserError(
            f"these are not the problems of {suite.name}: their hash is {suite.prompt_hash[:16]}, not {pinned[:16]}",
            where=settings["source"],
            hint=settings["get"],
        )
    return _with_whole_answers(suite, path)


def _with_whole_answers(suite: Suite, path: Path) -> Suite:
    """The suite, unless its stop strings cut the very lines that are missing: no model could fill them in."""
    if (problem := _answer_that_is_cut(suite)) is not None:
        raise UserError(
            f"the stop strings cut the solution of {problem.task_id}",
            where=str(path),
            hint='answers of several lines need a suite file without the stop string "\\n"',
        )
    return suite


def _answer_that_is_cut(suite: Suite) -> Problem | None:
    """The first problem with a gap whose stop strings take more of its solution than the end of its last line."""
    if not suite.infills:
        return None
    for problem in suite.problems:
        solution = problem.canonical_solution
        if solution[len(suite.cut(solution, problem)) :] not in ("", "\n"):
            return problem
    return None


def _rules(settings: Mapping[str, Any], problems: tuple[Problem, ...] = ()) -> Suite:
    limits = settings["limits"]
    return Suite(
        name=settings["name"],
        about=settings["about"],
        language=settings["language"],
        stop=tuple(settings["stop"]),
        limits=Limits(float(limits["cpu_seconds"]), limits["memory_mib"] * 2**20, limits["output_mib"] * 2**20),
        protocol=Protocol(**settings["protocol"]),
        problems=problems,
        harness_words=settings.get("verdicts", {}),
    )


def _suite(settings: Mapping[str, Any], source: Path) -> Suite:
    return _rules(settings, tuple(read_problems(source, settings.get("format", "human-eval"), settings["language"])))


# The shipped suite whose rules hold for a file of problems that the user names by its path.
_RULES = {
    ("human-eval", "python"): "humaneval",
    ("infilling", "python"): "humaneval-infilling",
    ("multipl-e", "python"): "multipl-e-py",
    ("multipl-e", "java"): "multipl-e-java",
    ("multipl-e", "javascript"): "multipl-e-js",
    ("fim-task", "mixed"): "santacoder-fim",
    ("mbpp", "python"): "mbpp",
}
_RULES_OF_SPANS = "humaneval-infilling-multi"  # where an answer of the format `infilling` has several lines


def _suite_of_problems(path: Path) -> Suite:
    """A file of problems as a suite of its own: the rules of the shipped suite of its format, any edition."""
    kind = detect(path)
    if kind not in _RULES:
        raise UserError(f"there are no rules for {kind[1]} problems", where=str(path))
    suite = _suite(_settings(SHIPPED / f"{_RULES[kind]}.yaml"), path)
    if kind[0] == "infilling" and _answer_that_is_cut(suite) is not None:
        suite = _rules(_settings(SHIPPED / f"{_RULES_OF_SPANS}.yaml"), suite.problems)
    return replace(suite, name=path.name.split(".")[0])


def problems_file(name_or_path: str | Path, data_dir: Path | None = None) -> Path:
    """The file that a suite's problems are in; UserError as `load_suite`."""
    path = _suite_file(name_or_path)
    return _source(_settings(path), path, data_dir) if path.suffix in (".yaml", ".yml") else path


def shipped_suites() -> tuple[str, ...]:
    """Names of the suites that come with Kringle."""
    return tuple(sorted(file.stem for file in SHIPPED.glob("*.yaml")))


def _suite_file(name_or_path: str | Path) -> Path:
    shipped = SHIPPED / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise UserError(
        f"no suite called {str(name_or_path)!r}",
        hint=f"shipped are {', '.join(shipped_suites())}; or give the path of a suite's YAML file, or of its problems",
    )


def _settings(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not a readable suite file: {error}", where=str(path)) from None
    settings = parse_yaml(text, str(path))
    _check(settings, _SETTINGS, _OPTIONAL, str(path))
    _check(settings["limits"], _LIMITS, {}, f"{path}: limits")
    _check(settings["protocol"], _PROTOCOL, _OPTIONAL_PROTOCOL, f"{path}: protocol")
    if not all(isinstance(stop, str) and stop for stop in settings["stop"]):
        raise UserError("every stop string must be a text that is not empty", where=str(path))
    if min(settings["limits"].values()) <= 0 or settings["protocol"]["max_new_tokens"] <= 0:
        raise UserError("limits must be greater than zero", where=str(path))
    _check_choice(settings, "format", FORMATS, str(path))
    _check_choice(settings["protocol"], "truncate", ("left", "outside"), f"{path}: protocol")
    _check_choice(settings["protocol"], "measure", ("execution", "exact", "bleu"), f"{path}: protocol")
    for kind in settings.get("verdicts", {}):
        if kind not in list(Kind):
            raise UserError(f"{kind!r} is no verdict", where=f"{path}: verdicts", hint=f"they are {', '.join(Kind)}")
    checked: dict[str, Any] = settings
    return checked


def _check_choice(given: Mapping[str, Any], key: str, choices: Sequence[str], where: str) -> None:
    if key in given and given[key] not in choices:
        raise UserError(f"{key} is {given[key]!r}", where=where, hint=f"it can be {', '.join(choices)}")


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
    """The file of problems: beside the suite file, else in the user's data folder, else in a usual place."""
    folders = [suite_file.parent] + ([data_dir] if data_dir is not None else [])
    usual = [Path(folder) for folder in (os.environ.get(BENCHMARKS_VARIABLE, ""), *_USUAL_FOLDERS) if folder]
    for folder in [*folders, *usual]:
        path = folder / str(settings["source"])
        if path.is_file():
            return path
    searched = " or ".join(str(folder) for folder in folders)
    raise UserError(
        f"the problems of {settings['name']} ({settings['source']}) are not in {searched}",
        hint=f"{settings['get']}; name its folder with --data or {BENCHMARKS_VARIABLE}",
    )
