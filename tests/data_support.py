"""Helpers for the tests of the data room: an engine without processes, quick settings, and small corpora on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kringle.data.collect import collect
from kringle.data.decisions import read_decisions
from kringle.data.survey import survey
from kringle.data.table import Decision, iter_documents, read_table
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.settings import CorpusSettings, Source
from kringle.workspace import ShardStore

QUIET = Reporter(quiet=True)


class InProcess(Engine):
    """An engine that runs everything in this process, for tests that are not about processes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ran: list[str] = []

    def map(
        self,
        function: Callable[[Any], Any],
        payloads: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        on_tick: Callable[[int, float], None] | None = None,
    ) -> Iterator[Any]:
        for name, payload in zip(names or [], payloads, strict=True):
            self.ran.append(name)
            yield function(payload)


def write_tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make files below `root`; returns it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def folder_corpus(*roots: Path, kind: Any = "folder", **settings: Any) -> CorpusSettings:
    """Settings for these folders; any licence and any origin (vendored, generated ...) unless said otherwise."""
    settings.setdefault("licenses", "any")
    settings.setdefault("leave_out", ())
    return CorpusSettings(sources=tuple(Source(kind, root) for root in roots), **settings)


def run_collect(corpus: CorpusSettings, work: Path, engine: Engine | None = None) -> dict[str, Any]:
    """Survey and collect into `work/out`; shard outputs go to `work/shards`."""
    out = work / "out"
    out.mkdir(parents=True, exist_ok=True)
    return collect(survey(corpus), corpus, out, ShardStore(work / "shards", "test"), engine or InProcess(), QUIET)


def documents(work: Path) -> list[dict[str, Any]]:
    """What `run_collect` collected."""
    return list(iter_documents(work / "out" / "documents"))


def decisions(folder: Path) -> list[Decision]:
    """All decisions of a stage, or of a shard, whose own are one file."""
    own = folder / "decisions.parquet"
    table = read_table(own) if own.exists() else read_decisions(folder)
    return [Decision(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def dropped(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Path -> (step, witness) of everything that a stage dropped."""
    return {d.path: (d.step, d.witness) for d in decisions(folder) if not d.kept}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def set_time(path: Path, seconds: int) -> None:
    """Set a file's time of change."""
    os.utime(path, (seconds, seconds))
