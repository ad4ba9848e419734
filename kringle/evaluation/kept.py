"""What is kept of a measurement, and of which files: all that others than the evaluation itself need to know of it.

Needs no PyTorch: a report is written without it, and so is every refusal that comes before a model is trained.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kringle.randomness import uniform

MEASURE_SEED = 0  # of everything that is drawn in an evaluation, so that all arms are asked the same
INFILLING_TOKENS = 64  # of a small vocabulary's 2 to 3 bytes; SantaCoder allowed 25 tokens of its 49,152


def choose_documents(
    ids: Sequence[str], repos: Sequence[str], sizes: Sequence[int], max_bytes: int, seed: int = 0
) -> list[int]:
    """Positions of the files that are scored, the same for every arm: in an order drawn from (seed, id), up to the cap.

    One file of every repository comes before the second of any, because files of one repository are alike. Stops before
    the first file that would pass `max_bytes`; the very first is always taken. Empty files are left out. Stopping, and
    not looking for a smaller file that still fits, keeps large files from being left out systematically.
    """
    drawn = sorted((uniform(seed, "bits-per-byte", ids[i]), ids[i], i) for i in range(len(ids)) if sizes[i])
    taken: Counter[str] = Counter()
    order: list[tuple[int, int, int]] = []  # (how many of its repository come before it, place in the draw, position)
    for place, (_, _, i) in enumerate(drawn):
        order.append((taken[repos[i]], place, i))
        taken[repos[i]] += 1
    chosen: list[int] = []
    total = 0
    for _, _, i in sorted(order):
        total += int(sizes[i])
        if chosen and total > max_bytes:
            break
        chosen.append(i)
    return chosen


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines; a path that is there already is replaced."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows that `write_lines` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
