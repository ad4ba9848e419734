"""What a SIGKILL costs: a run is killed in every data stage, and goes on; which shards are worked on twice?

    python benchmarks/evidence/resume.py                  a corpus of 4 GB
    python benchmarks/evidence/resume.py --size 0.1 --place DIR

Killed are all processes of the run at once, when a number of shards is done that is drawn from those that the stage has
in an uninterrupted run (in `--place`, corpus and uninterrupted run are kept for another time). Counted are the shards
that were whole at that moment and are made again (there must be none), those that were in the making (at most one a
worker), and whether the end is the same, file by file. Writes `benchmarks/results/resume.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grown_corpus import grow
from scaling import recipe as recipe_of

from kringle.engine import default_workers
from kringle.machine import machine, versions
from kringle.randomness import uniform
from kringle.study.plan import DATA_STAGES

RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=4.0, help="gigabytes of source code")
    parser.add_argument("--place", type=Path, help="a folder to work in; a temporary one by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kringle-resume-") as folder:
        record = measure(arguments.place or Path(folder), int(arguments.size * 1e9))
    record |= {"machine": asdict(machine()), "versions": versions()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "resume.json").write_text(json.dumps(record, indent=1) + "\n")
    if not all(kill["ok"] for kill in record["kills"]) or not record["same"]:
        raise SystemExit("a kill cost more than one shard a worker, or changed the result")


def measure(folder: Path, size: int) -> dict[str, Any]:
    recipe, whole, killed = folder / "recipe.yaml", folder / "whole", folder / "killed"
    if not recipe.exists():
        recipe.write_text(recipe_of(folder / "corpus", grow(folder / "corpus", size)))
    written = sum(file.stat().st_size for file in (folder / "corpus").rglob("*") if file.is_file())
    start(recipe, whole, DATA_STAGES[-1]).wait()
    shutil.rmtree(killed, ignore_errors=True)
    kills = []
    for number, stage in enumerate(DATA_STAGES):
        shards = len(done_in(whole / "shards" / stage))
        kills.append(kill_in(stage, recipe, killed, int(shards * uniform(0, "resume", number))))
        print(json.dumps(kills[-1]), flush=True)
    start(recipe, killed, DATA_STAGES[-1]).wait()
    return {"bytes": written, "workers": default_workers(), "kills": kills, "same": files(whole) == files(killed)}


def start(recipe: Path, work: Path, until: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kringle", "run", str(recipe), "--work", str(work), "--until", until]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def done_in(shards: Path) -> dict[str, int]:
    """The shards that a stage has made, and when."""
    found = (path.parent for path in shards.glob("*/summary.json"))
    return {path.name: path.stat().st_mtime_ns for path in found if path.suffix != ".partial"}


def kill_in(stage: str, recipe: Path, work: Path, after: int) -> dict[str, Any]:
    """Start the run, kill it when `after` shards of the stage are done, run it to the stage's end, compare shards."""
    run = start(recipe, work, stage)
    shards = work / "shards" / stage
    while run.poll() is None and not (shards.is_dir() and len(done_in(shards)) >= after):
        time.sleep(0.1)
    alive = run.poll() is None
    if alive:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = done_in(shards)
    making = len(list(shards.glob("*.partial")))
    begun = time.monotonic()
    start(recipe, work, stage).wait()
    again = time.monotonic() - begun
    after_all = done_in(shards)
    twice = sum(after_all.get(name) != stamp for name, stamp in before.items())
    return {
        "stage": stage,
        "killed": alive,
        "after_shards": after,
        "shards": len(after_all),
        "whole": len(before),
        "in_the_making": making,
        "made_twice": twice,
        "seconds_of_the_rest": round(again, 2),
        "ok": alive and twice == 0 and making <= default_workers(),
    }


def files(work: Path) -> dict[str, str]:
    """The hash of every file that the stages published; manifests tell times, so theirs is that of the summary."""
    found = {}
    for path in sorted((work / "stages").glob("*/manifest.json")):
        for name in json.loads(path.read_text())["files"]:
            with (path.parent / name).open("rb") as file:
                found[f"{path.parent.name}/{name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    main()
