"""The funnel: how many files and bytes are left after each step, and what was dropped for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ORDER = ("found", "survey", "opt-out", "size", "licence", "origin", "sample", "read", "language")
ALWAYS = ("found", "size", "licence", "read")  # told even where they drop nothing


def step(name: str, files: int, size: int, dropped: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """One step as JSON-able values; `dropped` is reason -> (files, bytes)."""
    return {
        "name": name,
        "files": files,
        "bytes": size,
        "dropped": [
            {"reason": reason, "files": count, "bytes": amount}
            for reason, (count, amount) in sorted(dropped.items(), key=lambda item: (-item[1][1], item[0]))
            if count
        ],
    }


def combine(first: Iterable[Mapping[str, Any]], tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The survey's funnel (of candidates) and the summaries of all tasks as one funnel, from "found" to "read"."""
    dropped: dict[str, dict[str, list[int]]] = {}
    named: list[str] = []
    files = size = 0

    def add(name: str, reason: str, count: int, amount: int) -> None:
        counts = dropped.setdefault(name, {}).setdefault(reason, [0, 0])
        counts[0] += count
        counts[1] += amount

    for entry in first:
        named.append(entry["name"])
        if entry["name"] == "found":
            files, size = entry["files"], entry["bytes"]
        for drop in entry["dropped"]:
            add(entry["name"], drop["reason"], drop["files"], drop["bytes"])
    for task in tasks:
        files, size = files + task["seen"][0], size + task["seen"][1]
        for name, reasons in task["dropped"].items():
            for reason, (count, amount) in reasons.items():
                add(name, reason, count, amount)
    steps = []
    for name in ORDER:
        counts = dropped.get(name, {})
        if name in ALWAYS or name in named or counts:
            files -= sum(count for count, _ in counts.values())
            size -= sum(amount for _, amount in counts.values())
            steps.append(step(name, files, size, counts))
    return steps
