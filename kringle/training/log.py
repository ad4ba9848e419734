"""A run's log: a JSON line a step, one a measurement; and what was done twice, because a kill came before a checkpoint.

    log.jsonl        a line for every step of the run
    measures.jsonl   a line for every measurement on the way (bits per byte by language, infilling)
    redone.jsonl     lines of steps that were trained again after a kill: their time was spent, too

Written by the first process alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

LOG_FILE, MEASURES_FILE, REDONE_FILE = "log.jsonl", "measures.jsonl", "redone.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """One line of the log. `step` counts updates done, `tokens` targets seen so far; the loss is nats per token, None
    where it was no number; `skipped` says why an update was left out; `mfu` is None where the peak is not known."""

    step: int
    tokens: int
    loss: float | None
    learning_rate: float
    gradient_norm: float | None
    tokens_per_second: float
    seconds: float
    mfu: float | None
    memory_bytes: int
    skipped: str | None


class Log:
    """The log for appending, cut back to its first `done` lines: what a killed run logged after its checkpoint is done
    again, and its time is kept. `seconds` adds up all steps ever made."""

    def __init__(self, folder: Path, done: int, writes: bool) -> None:
        self.folder, self.seconds, self._writes = folder, 0.0, writes
        if not writes:
            return
        redone = folder / REDONE_FILE
        path = folder / LOG_FILE
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        lines, again = lines[:done], [line for line in lines[done:] if line.endswith(b"\n")]
        if len(lines) < done:
            logger.warning("%s lacks %d of the first %d steps: they stay missing", path, done - len(lines), done)
        if again:
            with redone.open("ab") as file:
                file.writelines(again)
        spent = redone.read_bytes().splitlines() if redone.exists() else []
        self.seconds = sum(json.loads(line)["seconds"] for line in (*lines, *spent))
        _rewrite(path, lines)
        measures = folder / MEASURES_FILE
        if measures.exists():
            known = measures.read_bytes().splitlines(keepends=True)
            _rewrite(measures, [x for x in known if x.endswith(b"\n") and json.loads(x)["step"] <= done])

    def __enter__(self) -> Log:
        self._file: IO[str] | None = (self.folder / LOG_FILE).open("a", encoding="utf-8") if self._writes else None
        return self

    def step(self, record: StepRecord) -> None:
        self.seconds += record.seconds
        if self._file:
            self._file.write(json.dumps(asdict(record)) + "\n")
            self._file.flush()

    def measures(self, step: int, values: Mapping[str, float]) -> None:
        if self._writes:
            with (self.folder / MEASURES_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def flush(self) -> None:
        """Have all lines reach the disk."""
        if self._file:
            os.fsync(self._file.fileno())

    def __exit__(self, *_: Any) -> None:
        if self._file:
            self._file.close()


def _rewrite(path: Path, lines: list[bytes]) -> None:
    shortened = path.with_suffix(".cut")
    shortened.write_bytes(b"".join(lines))
    shortened.replace(path)
