"""Read the labelled benchmark for e-mail addresses, IP addresses and secrets in source code.

The data lies in the folder `benchmarks/pii` of a checkout, not in the installed package. The stored text carries the
character U+2060 WORD JOINER inside every positive key, so that no scanner takes the repository for a leak; `load`
removes it, and all offsets refer to the text without it. What counts as a finding and how findings are matched is
described in README.md beside the data; this module only reads and checks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from kringle.errors import UserError

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "pii"
JOINER = "\u2060"
LANGUAGES = ("python", "java", "javascript")
KINDS = ("email", "ip", "key", "negative")

Half = Literal["open", "sealed"]
Kind = Literal["email", "ip", "key", "negative"]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a file's content.

    `kind` is what a finder should report, or "negative" for text that looks like a finding and is none; `format` names
    the kind of secret, the place of an address or the reason of a negative; `label` says the same in words.
    """

    start: int
    end: int
    kind: Kind
    format: str
    label: str


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One file with all its spans, in order and without overlap.

    `skeletons` names the hand-written fragments that the file was assembled from: files of one half that share a
    fragment are not independent, so intervals should be resampled by fragment.
    """

    name: str
    language: str
    content: str
    spans: tuple[Span, ...]
    skeletons: tuple[str, ...]

    def text(self, span: Span) -> str:
        """The characters of a span."""
        return self.content[span.start : span.end]

    @property
    def positives(self) -> tuple[Span, ...]:
        """The spans that a finder should report."""
        return tuple(span for span in self.spans if span.kind != "negative")


def parse(line: str) -> LabelledFile:
    """One line of a half's file; raises ValueError when a span does not fit the text or overlaps another."""
    record = cast(dict[str, Any], json.loads(line))
    name, language = str(record["name"]), str(record["language"])
    content = str(record["content"]).replace(JOINER, "")
    if language not in LANGUAGES:
        raise ValueError(f"{name}: unknown language {language!r}")
    spans = tuple(Span(**span) for span in record["spans"])
    reached = 0
    for span in spans:
        if span.kind not in KINDS:
            raise ValueError(f"{name}: unknown kind {span.kind!r}")
        if not reached <= span.start < span.end <= len(content):
            raise ValueError(f"{name}: span {span.start}-{span.end} overlaps another or leaves the text")
        reached = span.end
    return LabelledFile(name, language, content, spans, tuple(record["skeletons"]))


def load(half: Half) -> list[LabelledFile]:
    """All files of one half, in the order in which they are stored.

    Raises ValueError for an unknown half and for labels that do not fit their text, UserError without a checkout.
    """
    if half not in ("open", "sealed"):
        raise ValueError(f"no half is called {half!r}; there are 'open' and 'sealed'")
    try:
        with (FOLDER / f"files-{half}.jsonl").open(encoding="ascii") as lines:
            return [parse(line) for line in lines]
    except FileNotFoundError:
        raise UserError(
            "the labelled files are not part of the installed package",
            where=str(FOLDER),
            hint="run from a checkout of Kringle's repository: pip install -e .",
        ) from None
