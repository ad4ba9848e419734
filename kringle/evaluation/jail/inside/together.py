"""Run one program with its tests in one fresh process, and say how it went.

The program shares this process with its tests and with the report, so a pass reported from here is no proof of
anything: it only says that the program is worth confirming (`apart.py`). A failure is final.
"""

from __future__ import annotations

import contextlib
import sys

from . import execute, wire


def main(channel: int) -> None:
    connection = wire.Connection(channel)
    request = connection.receive()
    if request is None:
        return
    task = execute.Task(request["program"], request["tests"])
    code = execute.compile_program(task.program)
    result = code if isinstance(code, execute.Result) else execute.run(code, task, {})
    # What is still in the buffer counts as output too, and the host ends this process once it has the report.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    connection.send({"outcome": result.outcome, "evidence": result.evidence, "quiet": result.quiet})
