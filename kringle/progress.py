"""Progress: a bar with rate and time left on a terminal, one line a minute without one. Written to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 60.0  # seconds between lines when nobody watches a terminal


class Counter(Protocol):
    def advance(self, amount: float = 1) -> None:
        """`amount` more units are done. The first call starts the clock and its units are no part of the speed: they
        were done before, by an earlier attempt too."""


class _Line:
    """Progress as plain lines, for logs: one a minute and one at the end of anything that took over two seconds."""

    def __init__(self, title: str, total: float, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.before, self.start = 0.0, 0.0, time.monotonic()
        self.last = self.start

    def advance(self, amount: float = 1) -> None:
        now = time.monotonic()
        if not self.done:  # work that waited for its turn has not been slow
            self.start = self.last = now
            self.before = amount
        self.done += amount
        if now - self.last >= LINE_EVERY:
            self.last = now
            rate = (self.done - self.before) / max(1e-9, now - self.start)
            left = (self.total - self.done) / rate if rate else 0.0
            share = f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"
            print(f"{self.title}: {share}, {rate:,.1f} {self.unit}/s, {left:,.0f} s left", file=sys.stderr, flush=True)

    def finish(self) -> None:
        seconds = time.monotonic() - self.start
        if seconds >= 2:
            print(f"{self.title}: {self.done:,.0f} {self.unit} in {seconds:,.0f} s", file=sys.stderr, flush=True)


class _Bar:
    def __init__(self, bars: Progress, task: Any) -> None:
        self.bars, self.task, self.started = bars, task, False

    def advance(self, amount: float = 1) -> None:
        if not self.started:
            self.bars.start_task(self.task)
            self.started = True
        self.bars.advance(self.task, amount)


class Reporter:
    """Shows what is going on. `quiet` shows nothing (tests, `--json`)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """One line for the reader, outside any bar."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: float, unit: str = "files") -> Iterator[Counter]:
        """Count towards `total` units while the block runs."""
        if self.quiet or not self.console.is_terminal:
            line = _Line(title, total, unit)
            yield line
            if not self.quiet:
                line.finish()
            return
        with self._bars(unit) as bars:
            yield _Bar(bars, bars.add_task(title, total=total, start=False))

    @contextmanager
    def tasks(self, titles: list[str], totals: list[float], unit: str) -> Iterator[list[Counter]]:
        """Several counters at once, one bar each."""
        if self.quiet or not self.console.is_terminal:
            lines = [_Line(title, total, unit) for title, total in zip(titles, totals, strict=True)]
            yield list(lines)
            return
        with self._bars(unit) as bars:
            yield [_Bar(bars, bars.add_task(t, total=n, start=False)) for t, n in zip(titles, totals, strict=True)]

    def _bars(self, unit: str) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            redirect_stdout=sys.stdout.isatty(),  # what is piped elsewhere must not end on the terminal
        )
