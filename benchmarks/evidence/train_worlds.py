"""One, two and four processes train one model: losses to 1e-10 in float64 over 50 steps, to 1e-5 in float32 over 5.

    python benchmarks/evidence/train_worlds.py

Every group is started as a launcher would start it (gloo, CPU), with DDP and with FSDP2, multi-query and multi-head.
Writes benchmarks/results/train_worlds.json; exit code 1 if a loss is further off.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import training_fixtures as shared  # noqa: E402
from test_training_parallel import together  # noqa: E402

from kringle.machine import machine, versions  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "train_worlds.json"
CASES = (("fp64", 50, 1e-10), ("fp32", 5, 1e-5))
WORLDS = ((2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp"))


def main() -> int:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for attention in ("mqa", "mha"):
            for precision, steps, limit in CASES:
                settings = {"steps": steps, "precision": precision, "batch_tokens": 4 * shared.CONTEXT}

                def losses(size: int, strategy: str, name: str = f"{attention}-{precision}") -> list[float]:
                    folder = Path(scratch) / f"{name}-{size}-{strategy}"
                    return together(folder, size, strategy, settings, attention=attention)  # noqa: B023

                alone = losses(1, "ddp")
                for size, strategy in WORLDS:
                    far = max(abs(a / b - 1) for a, b in zip(losses(size, strategy), alone, strict=True))
                    rows.append(
                        {
                            "attention": attention,
                            "precision": precision,
                            "steps": steps,
                            "processes": size,
                            "strategy": strategy,
                            "largest_relative_difference": far,
                            "limit": limit,
                        }
                    )
                    print(rows[-1], flush=True)
    passed = all(row["largest_relative_difference"] <= row["limit"] for row in rows)
    said = {"passed": passed, "rows": rows, "machine": asdict(machine()), "versions": versions()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
