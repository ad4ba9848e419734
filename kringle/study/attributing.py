"""What `kringle attribution` and `kringle membership` do, as public functions, and their answers as lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kringle.attribution.index import SHORTEST_CHARACTERS
from kringle.attribution.opened import described
from kringle.attribution.sources import By
from kringle.errors import UserError
from kringle.study.markup import visible
from kringle.study.membership import Trained

_SHOWN = 20  # files on the screen; --json has more
_WIDTH = 72  # characters of a span that are shown


def attribute_file(
    work: Path, file: Path, min_characters: int = SHORTEST_CHARACTERS, exact: bool = False
) -> dict[str, Any]:
    """Spans of a text file (`-`: of standard input) that occur in the training data. Raises `UserError`."""
    if min_characters < SHORTEST_CHARACTERS:
        what = f"{min_characters} is less than the {SHORTEST_CHARACTERS} characters that the index finds copies from"
        raise UserError(what, where="--min-characters")
    trained = Trained.open(work)
    data = _read(file)
    text = data.decode("utf-8", "replace")
    copies = [c for c in trained.index.find(text) if c.end - c.start >= min_characters]
    spans = [described(trained.index, copy) for copy in copies if not exact or copy.kind == "exact"]
    for span in spans:
        span["text"] = text[span["start"] : span["end"]]
        span["line"] = text.count("\n", 0, span["start"]) + 1
    covered = {i for span in spans for i in range(span["start"], span["end"])}
    return {"file": str(file), "characters": len(text), "attributed": len(covered), "spans": spans}


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from None


def told(result: dict[str, Any]) -> list[str]:
    """The answer as lines, with nothing in them that a terminal would act upon."""
    name = "standard input" if result["file"] == "-" else result["file"]
    lines = []
    for span in result["spans"]:
        kind = "exactly" if span["kind"] == "exact" else "but for white space"
        lines.append(f"{name}:{span['line']}: {span['end'] - span['start']:,} characters, {kind}")
        first = " ".join(span["text"].split())
        lines.append(f"    {visible(first[:_WIDTH])}{'...' if len(first) > _WIDTH else ''}")
        for source in span["sources"]:
            place = visible(f"{source['repository']}/{source['path']}:{source['line']}")
            lines.append(f"  {place}  {visible(source['licence'] or 'licence unknown')}")
        if span["more"]:
            lines.append(f"  and at least {span['more']:,} more files")
    share = result["attributed"] / max(1, result["characters"])
    lines.append(
        f"{result['attributed']:,} of {result['characters']:,} characters ({share:.1%}) stand in the training data"
        if result["spans"]
        else f"no span of {name} stands in the training data"
    )
    return lines


def membership_of(work: Path, name: str, by: str = "repository") -> dict[str, Any]:
    """What became of a repository, an owner or a path. Raises `UserError`."""
    kinds: dict[str, By] = {"repository": "repository", "owner": "owner", "path": "path"}
    if by not in kinds:
        raise UserError(f"expected repository, owner or path, got {by!r}", where="--by")
    return Trained.open(work).membership(kinds[by], name)


def told_membership(result: dict[str, Any]) -> list[str]:
    """The answer as lines."""
    if not result["found"]:
        lines = ["nothing of that name was found by the last run"]
    else:
        lines = []
        for became, count in result["counts"].items():
            if count["files"]:
                size = f", {count['bytes']:,} bytes, {count['tokens']:,} tokens" if count["bytes"] else ""
                lines.append(f"{became}: {count['files']:,} files{size}")
                here = [file for file in result["files"] if file["became"] == became]
                lines += [f"  {_line(file)}" for file in here[:_SHOWN]]
                if count["files"] > _SHOWN:
                    lines.append(f"  and {count['files'] - _SHOWN:,} more")
    if result["opted_out"]:
        lines.append(f"opted out by now: {result['opted_out']:,} files; the next run leaves them out")
    return [*lines, f"to take it out: {result['opt_out']}"]


def _line(file: dict[str, Any]) -> str:
    parts = [f"{file['repository']}/{file['path']}"]
    parts += [file["licence"] or "licence unknown"] if "licence" in file else []
    parts += [f"read as {file['as']}"] if "as" in file else []
    if "step" in file:
        parts.append(f"{file['step']}: {file.get('evidence') or 'not ' + file['asked']}")
    return visible("  ".join(parts))
