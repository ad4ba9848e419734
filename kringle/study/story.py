"""One file's story: every decision that the last run took on it, told line by line. The CLI's `kringle why`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kringle.data.sources.candidates import printable
from kringle.data.table import Decision
from kringle.data.why import why
from kringle.errors import UserError
from kringle.study.last_run import recall
from kringle.workspace import Workspace


def story(work: Path, key: str) -> list[Decision]:
    """Decisions, in order, on the files that `key` names: the end of a path or the beginning of an id."""
    workspace = Workspace.open(work, create=False)
    options, plan = recall(workspace)
    folders = [stage.folder for stage in (plan.collect, plan.clean, plan.split) if stage.manifest() is not None]
    if not folders:
        raise UserError("the data is not up to date", where=str(workspace.root), hint=f"run {options.command()}")
    try:
        key.encode()
    except UnicodeEncodeError:  # bytes of a file name that are no text: such files are listed in their printable form
        key = printable(key)
    return why(folders, key)


def told(decisions: Sequence[Decision]) -> list[str]:
    """Lines for a reader: a heading for each file, then its decisions with value, threshold and witness."""
    lines: list[str] = []
    files = dict.fromkeys((d.repo, d.path) for d in decisions)
    for repo, path in files:
        of_file = [d for d in decisions if (d.repo, d.path) == (repo, path)]
        ids = [d.id for d in of_file if d.id is not None]
        lines.append(f"{repo}/{path}{f'  {ids[0]}' if ids else ''}")
        lines += [_line(d) for d in of_file]
    return lines


def _line(decision: Decision) -> str:
    value = "" if decision.value is None else _number(decision.value)
    parts = [
        "kept   " if decision.kept else "dropped",
        f"{decision.step:<16}",
        f"{value:>10}",
        f"({decision.threshold})",
        decision.witness or "",
    ]
    return "  " + " ".join(parts).rstrip()


def _number(value: float) -> str:
    """Counts in full, everything else to four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
