"""What the long proofs share: where results go, and what they were made with."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kringle.machine import machine, versions  # noqa: E402  (the project may not be installed)

RESULTS = ROOT / "benchmarks" / "results"


def write(name: str, record: dict[str, Any]) -> Path:
    """Write `benchmarks/results/NAME.json`, with machine and versions."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {"evidence": name, **record, "machine": asdict(machine()), "versions": versions()}
    path.write_text(json.dumps(whole, indent=2) + "\n")
    return path
