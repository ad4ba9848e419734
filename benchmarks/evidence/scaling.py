"""Time and memory from a quarter of a gigabyte to four: `kringle run --until encode`, each size inside a memory limit.

    python benchmarks/evidence/scaling.py                         0.25, 0.5, 1, 2 and 4 GB within 3 GB of memory
    python benchmarks/evidence/scaling.py --sizes 0.1,0.2

The limit is a control group's (version 1 or 2, as the system has it): it counts every process of the run, and the pages
of files that they hold in memory. Writes `benchmarks/results/scaling.json` and two figures, `scaling-time.svg` and
`scaling-memory.svg`. Time is processor time, which a busy machine changes little; wall time is told beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grown_corpus import grow

from kringle.evaluation.jail.cgroups import ControlGroup, create
from kringle.machine import machine, versions
from kringle.study.charts import Curve, curves
from kringle.study.plan import DATA_STAGES
from kringle.tokens.store import TokenStore

RESULTS = Path(__file__).resolve().parent.parent / "results"
# Bytes. Held-out texts are compared with every training shard, so a share of the corpus would be a square of it.
HELD_OUT = 2_500_000
_RECIPE = """
name: scaling
corpus:     {{sources: [{{folder: {folder}}}], languages: [python, java, javascript], licenses: any}}
clean:      {{max_line: 1000, mean_line: 100, alphanumeric: 0.25, near_dedup: {{ngram: 1, threshold: 0.85}}, pii: true,
             decontaminate: [starter]}}
tokenizer:  {{vocab_size: {vocabulary}}}
model:      {{layers: 1, width: 64, heads: 1, attention: mqa, context: 256}}
training:   {{tokens: 100k, batch_tokens: 1024, learning_rate: 1e-3, schedule: cosine, warmup: 0.02,
             fim: {{rate: 0.5, spm: 0.5}}, seeds: [0]}}
ablations:  {{base: {{}}}}
evaluation: {{suites: [starter], samples: 1, held_out: {held_out}, held_out_bytes: 400kB, infilling_lines: 10,
             margins: {{bits_per_byte: 0.01, infilling: 0.02, pass@1: 0.02}}}}
"""


def recipe(folder: Path, size: int, vocabulary: int = 49_152) -> str:
    """A study of the `size` bytes of code in a folder: everything that cleans, and as much held out at any size."""
    return _RECIPE.format(folder=folder, vocabulary=vocabulary, held_out=f"{min(0.5, HELD_OUT / size):.6%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="0.25,0.5,1,2,4", help="gigabytes of source code")
    parser.add_argument("--memory", type=float, default=3.0, help="gigabytes that a run may use")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for size in map(float, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="kringle-scaling-") as folder:
            rows.append(measure(Path(folder), int(size * 1e9), int(arguments.memory * 1e9)))
        print(json.dumps(rows[-1]), flush=True)
        record = {
            "memory_limit": int(arguments.memory * 1e9),
            "rows": rows,
            "machine": asdict(machine()),
            "versions": versions(),
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "scaling.json").write_text(json.dumps(record, indent=1) + "\n")
        draw(rows, arguments.out)


def measure(folder: Path, size: int, memory: int) -> dict[str, Any]:
    """One size, from nothing: what each stage took, and the most memory that all processes held together."""
    written = grow(folder / "corpus", size)
    (folder / "recipe.yaml").write_text(recipe(folder / "corpus", written))
    group = create(memory)
    command = [sys.executable, "-m", "kringle", "run", str(folder / "recipe.yaml"), "--work", str(folder / "work")]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--until", "encode"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if isinstance(group, ControlGroup):
        group.add(process.pid)
    _, errors = process.communicate()
    wall = time.monotonic() - started
    stages, peak = {}, None
    if isinstance(group, ControlGroup):
        peak = peak_of(group)
        group.remove()
    for path in sorted((folder / "work" / "stages").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        stages[manifest["stage"]] = manifest["cost"]
    row: dict[str, Any] = {
        "bytes": written,
        "limit": "control group" if isinstance(group, ControlGroup) else f"none: {group}",
        "finished": process.returncode == 0,
        "wall_seconds": round(wall, 1),
        "peak_memory_of_all": peak,
        "stages": {name: stages[name] for name in DATA_STAGES if name in stages},
    }
    if process.returncode == 0:
        (store,) = (folder / "work" / "stages").glob("encode-*/store")
        opened = TokenStore.open(store)
        row |= {"documents": len(opened), "tokens": len(opened.tokens), "kept_bytes": int(opened.sizes.sum())}
    else:
        row["error"] = errors.decode(errors="replace").strip().splitlines()[-1:]
    shutil.rmtree(folder / "work", ignore_errors=True)
    return row


def peak_of(group: ControlGroup) -> int | None:
    """The most that a control group held, in bytes: with cached pages of files, as the limit counts."""
    for folder in group.folders:
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (folder / name).exists():
                return int((folder / name).read_text())
    return None


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Processor time by stage, and the largest process by stage, over the size of the corpus."""
    done = [row for row in rows if row["finished"]]
    for key, unit, scale, name in (("cpu_seconds", "s", 1.0, "time"), ("peak_memory", "GB", 1e9, "memory")):
        lines = []
        for number, stage in enumerate(DATA_STAGES):
            points = [(r["bytes"] / 1e9, r["stages"][stage][key] / scale) for r in done if stage in r["stages"]]
            lines.append(Curve(stage, number % 8, False, tuple((x, y) for x, y in points)))
        lines = [line for line in lines if line.points]
        if not lines:
            continue
        top = max(y or 0.0 for line in lines for _, y in line.points)
        drawing = curves(lines, 880, top, 2 if unit == "GB" else 0, lambda x: f"{x:.3g}", "GB of source code")
        what = "processor seconds" if name == "time" else "the largest process' memory in GB"
        alt = f"{what} of each stage, over the size of the corpus"
        (out / f"scaling-{name}.svg").write_text(f"{drawing.svg(alt, standalone=True)}\n")


if __name__ == "__main__":
    main()
