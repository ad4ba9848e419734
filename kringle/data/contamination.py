"""Decontamination: a document that holds a benchmark's text is dropped whole, with the text as witness.

As in SantaCoder (bigcode-dataset/decontamination): a document is contaminated when any benchmark string is a substring
of it, both lower-cased. Strings are the docstring of each prompt (the last one, when a prompt has two) and the
canonical solution, both stripped; from prompt sets without solutions (MultiPL-E) the stripped prompt. Re-indented,
paraphrased and translated copies pass, which is a known weakness of the method.

The search finds exactly what `text in document` finds for each text in turn, but looks only for those texts whose inner
words all occur in the document.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kringle.errors import UserError

# Solutions that SantaCoder keeps in its corpus because they are trivial (bigcode-dataset/decontamination).
WHITELIST = ("return x + y", "return len(string)", "return n**2")
# The shortest string that SantaCoder searches for, `return a * h / 2.0` of HumanEval/45. A suite of our own has shorter
# ones, which like those on the whitelist are everyday code.
SHORTEST = 18


class BenchmarkString(NamedTuple):
    """A text whose presence contaminates a document; `kind` is "docstring", "solution" or "prompt"."""

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


def load_strings(names: Sequence[str], benchmarks: Mapping[str, Path]) -> BenchmarkStrings:
    """The strings of the benchmarks `names`, read from JSON Lines (`.jsonl`, `.jsonl.gz`) in HumanEval's format or
    MultiPL-E's. Raises `UserError` for an unknown name and a file that is neither."""
    used: dict[str, BenchmarkString] = {}
    unused: dict[str, BenchmarkString] = {}
    for name in names:
        if name not in benchmarks:
            raise UserError(
                f"unknown benchmark '{name}'", where="clean.decontaminate", hint=f"known: {', '.join(benchmarks)}"
            )
        for string in _read(name, benchmarks[name]):
            kept = len(string.text) >= SHORTEST and string.text not in WHITELIST
            (used if kept else unused).setdefault(string.text.lower(), string)
    return BenchmarkStrings(tuple(used.values()), tuple(unused.values()))


def _read(suite: str, path: Path) -> Iterable[BenchmarkString]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), hint=f"benchmark '{suite}' needs it") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt = row["prompt"]
            task = str(row.get("task_id") or row["name"])
            solution = row.get("canonical_solution")
            if solution is None:
                yield BenchmarkString(suite, task, "prompt", prompt.strip())
                continue
            if docstring := last_docstring(prompt):
                yield BenchmarkString(suite, task, "docstring", docstring)
            yield BenchmarkString(suite, task, "solution", solution.strip())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "expected a JSON object with task_id (or name), prompt and, in HumanEval's format, canonical_solution",
                where=f"{path}, line {number}",
            ) from None


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
