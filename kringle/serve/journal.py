"""The server's log: one JSON object a line, without anything that a client wrote."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO


class Journal:
    """Writes events to a stream; None writes nothing. Any thread may write."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        if self._stream is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, ensure_ascii=True)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._stream = None  # whoever read the log is gone; the server is not
            except OSError:  # a full disk, say: the line is lost, and the next one may not be
                return


class Handler(logging.Handler):
    """Sends what the HTTP library logs to the journal: its own words, never an exception's, which may quote."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        self._journal.write(
            "library",
            level=record.levelname.lower(),
            message=str(record.msg)[:200],
            **({"kind": fault.__name__} if fault else {}),
        )


def standard_error() -> Journal:
    return Journal(sys.stderr)
