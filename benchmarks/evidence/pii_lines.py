"""Single lines of 5 and 10 MB that are made to be slow for `kringle redact`: twice the bytes, twice the time.

    python benchmarks/evidence/pii_lines.py

The lines are those of `kringle bench pii`: nothing but anchors, near misses or overlaps. Time is the processor's.
"""

from __future__ import annotations

import json
from pathlib import Path

from kringle.bench.pii import adversarial
from kringle.machine import machine, versions

RESULT = Path(__file__).resolve().parents[1] / "results" / "pii_lines.json"
SIZE = 10_000_000  # bytes


def main() -> None:
    lines = adversarial(SIZE)
    record = {
        "evidence": "pii_lines",
        "bytes": [SIZE // 2, SIZE],
        "seconds": lines,
        "largest_ratio": round(max(whole / half for half, whole in lines.values()), 3),
        "machine": machine().__dict__,
        "versions": versions(),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
