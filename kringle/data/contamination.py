"""Decontamination: a document that holds a benchmark's text is dropped whole, with the text as witness.

Strings are the docstring of each HumanEval prompt (the last one, when a prompt has two) and the canonical solution;
the prompt of sets without solutions (MultiPL-E); text and code of MBPP; the question of APPS; the whole program of an
infilling task. All stripped. `faithful` searches as SantaCoder did (bigcode-dataset/decontamination, `Finder`): a
document is contaminated when any string is a substring of it, both lower-cased, so re-indented copies pass. `corrected`
compares tokens (`kringle.data.contamination_tokens`) and leaves out strings too short to be evidence.

The search finds exactly what `text in document` finds for each text in turn, but looks only for those texts whose inner
words all occur in the document.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kringle.data.table import CorruptTable, read_table
from kringle.errors import UserError

# Solutions that SantaCoder keeps in its corpus because they are trivial (bigcode-dataset/decontamination).
WHITELIST = ("return x + y", "return len(string)", "return n**2")
# The shortest string that SantaCoder searches for, `return a * h / 2.0` of HumanEval/45. A suite of our own has shorter
# ones, which like those on the whitelist are everyday code.
SHORTEST = 18


class BenchmarkString(NamedTuple):
    """A text whose presence contaminates a document; `kind` is what part of its task it is."""

    suite: str
    task: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.task} {self.kind}: {self.text}"


class BenchmarkStrings(NamedTuple):
    """What is searched for, and what is too short or too trivial to be."""

    used: tuple[BenchmarkString, ...]
    unused: tuple[BenchmarkString, ...]


def benchmark_file(entry: str) -> Path | None:
    """The file that an entry of `decontaminate` names by its path; None where it is the name of a suite."""
    path = Path(entry).expanduser()
    return path if path.name.endswith((".jsonl", ".jsonl.gz", ".parquet")) else None


def load_strings(names: Sequence[str], benchmarks: Mapping[str, Path], fidelity: str = "corrected") -> BenchmarkStrings:
    """The strings of the benchmarks `names`, read from JSON Lines (`.jsonl`, `.jsonl.gz`) or Parquet. A name may be the
    path of such a file. Raises `UserError` for an unknown name and a file of another kind."""
    used: dict[str, BenchmarkString] = {}
    unused: dict[str, BenchmarkString] = {}
    for name in names:
        path = benchmarks.get(name) or benchmark_file(name)
        if path is None:
            raise UserError(
                f"unknown benchmark '{name}'", where="clean.decontaminate", hint=f"known: {', '.join(benchmarks)}"
            )
        for string in _read(path.stem if name not in benchmarks else name, path):
            shortest = 1 if fidelity == "faithful" else SHORTEST
            kept = len(string.text) >= shortest and string.text not in WHITELIST
            (used if kept else unused).setdefault(string.text.lower(), string)
    return BenchmarkStrings(tuple(used.values()), tuple(unused.values()))


def _read(suite: str, path: Path) -> Iterable[BenchmarkString]:
    for where, row in _rows(suite, path):
        try:
            yield from _strings(suite, row)
        except (KeyError, TypeError, AttributeError):
            raise UserError(
                "expected prompt (HumanEval, MultiPL-E; with suffix, an infilling task), text and code (MBPP), or "
                "question (APPS)",
                where=where,
            ) from None


def _strings(suite: str, row: Mapping[str, Any]) -> Iterable[BenchmarkString]:
    names = [row[key] for key in ("task_id", "name", "problem_id", "id") if row.get(key) is not None]
    task = str(names[0]) if names else "unnamed"
    solution = row.get("canonical_solution")
    if "prompt" not in row and "question" in row:
        yield BenchmarkString(suite, task, "question", row["question"].strip())
    elif "prompt" not in row and "code" in row:
        yield BenchmarkString(suite, task, "text", row["text"].strip())
        yield BenchmarkString(suite, task, "code", row["code"].strip())
    elif row.get("suffix") is not None and solution is not None:
        yield BenchmarkString(suite, task, "program", (row["prompt"] + solution + row["suffix"]).strip())
    elif solution is None:
        yield BenchmarkString(suite, task, "prompt", row["prompt"].strip())
    else:
        if docstring := last_docstring(row["prompt"]):
            yield BenchmarkString(suite, task, "docstring", docstring)
        yield BenchmarkString(suite, task, "solution", solution.strip())


def _rows(suite: str, path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(place, row) of a benchmark's file."""
    if path.suffix == ".parquet":
        try:
            for number, row in enumerate(read_table(path).to_pylist()):
                yield f"{path}, row {number}", row
        except CorruptTable as error:
            hint = f"benchmark '{suite}' needs it"
            raise UserError(f"cannot be read: {error.reason}", where=str(path), hint=hint) from None
        return
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), hint=f"benchmark '{suite}' needs it") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError("expected a JSON object", where=f"{path}, line {number}")
            yield f"{path}, line {number}", row


def last_docstring(prompt: str) -> str:
    """The stripped text between the last pair of triple quotes in a prompt; empty when there is none."""
    bodies = re.findall(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', prompt, re.DOTALL)
    return "".join(bodies[-1]).strip() if bodies else ""


class Finder:
    """Finds the first benchmark string, in their order, that a document holds."""

    def __init__(self, strings: Sequence[BenchmarkString]) -> None:
        self._strings = [(string, string.text.lower()) for string in strings]
        self._words: list[frozenset[str]] = []
        self._by_word: dict[str, list[int]] = {}
        self._wordless: list[int] = []
        for number, (_, text) in enumerate(self._strings):
            words = inner_words(text)
            self._words.append(words)
            if words:
                rarest = max(words, key=lambda word: (len(word), word))  # long words are rare ones
                self._by_word.setdefault(rarest, []).append(number)
            else:
                self._wordless.append(number)

    def find(self, content: str) -> BenchmarkString | None:
        """The contaminating string, or None."""
        if not self._strings:
            return None
        lowered = content.lower()
        words = set(_WORD.findall(lowered))
        candidates = [
            n for word in self._by_word.keys() & words for n in self._by_word[word] if self._words[n] <= words
        ]
        for number in sorted(candidates + self._wordless):
            string, text = self._strings[number]
            if text in lowered:
                return string
        return None


_WORD = re.compile(r"\w+")


def inner_words(text: str) -> frozenset[str]:
    """Words of `text` that touch neither of its ends: any text that contains `text` has them as whole words too."""
    return frozenset(m[0] for m in _WORD.finditer(text) if m.start() > 0 and m.end() < len(text))
