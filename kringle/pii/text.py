"""Small looks at the bytes around a place: shared by the detectors, all bounded so that scanning stays linear."""

from __future__ import annotations

import re

# What may stand before a token: nothing, no word character, an escape such as \n or \u003c, or a percent escape.
_EDGE = re.compile(rb"(?:\A|[^A-Za-z0-9_]|\\[nrtbfv0]|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|%[0-9A-Fa-f]{2})\Z")
_ESCAPE_BEFORE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrtbfv0])")


def at_left_edge(data: bytes, start: int) -> bool:
    """Whether a token may begin at `start`: it does not continue a word."""
    low = max(0, start - 6)
    return start == 0 or _EDGE.search(data[low:start]) is not None


def without_escape(data: bytes, start: int, end: int) -> int:
    """`start` moved behind an escape (`\\n`, `\\u003c`) whose backslash stands just before it, as in
    `"\\nuser@corp.org"`.
    """
    if start > 0 and data[start - 1] == 0x5C:
        match = _ESCAPE_BEFORE.match(data, start - 1, end)
        if match:
            return match.end()
    return start


def line_before(data: bytes, start: int, limit: int) -> bytes:
    """At most `limit` bytes before `start`, of the same line."""
    low = max(0, start - limit)
    return data[max(low, data.rfind(b"\n", low, start) + 1) : start]


def line_after(data: bytes, end: int, limit: int) -> bytes:
    """At most `limit` bytes after `end`, of the same line."""
    high = min(len(data), end + limit)
    newline = data.find(b"\n", end, high)
    return data[end : high if newline < 0 else newline]


def between_escapes(data: bytes, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The stretches of a percent-encoded text that are no escapes; what follows a percent sign is taken for one."""
    stretches = []
    while (percent := data.find(b"%", start, end)) >= 0:
        stretches.append((start, percent))
        start = min(end, percent + 3)
    return (*((s, e) for s, e in stretches if s < e), *([(start, end)] if start < end else []))
