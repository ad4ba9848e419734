"""SIGKILL at random moments of the data stages, rerun: the output must be the same, byte by byte.

    python benchmarks/evidence/data_kills.py [--size 0.1] [--kills 20]

A corpus of real files goes through collect, clean (near-duplicates, personal data, decontamination), split, annotate,
tokenizer and encode, once without a disturbance and then with kills: each time a run of the same workspace lives for a
time drawn from half the length of the undisturbed one, and all its processes are killed at once. When a disturbed run
comes to its end, another workspace takes the kills that are left. Every file that a stage published is compared.
Writes `benchmarks/results/data_kills.json`.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
from grown_corpus import grow
from resume import files, start
from scaling import recipe as recipe_of

from kringle.randomness import uniform
from kringle.study.plan import DATA_STAGES

VOCABULARY = 8192


def stage_under_way(work: Path) -> str:
    """The stage whose folder is not published yet; the next one where none is begun."""
    published = {path.parent.name.split("-")[0] for path in (work / "stages").glob("*/manifest.json")}
    return next((stage for stage in DATA_STAGES if stage not in published), "none")


def disturbed(recipe: Path, work: Path, longest: float, kills: int, done: list[dict[str, Any]]) -> None:
    """Run to the end, killed until `kills` are done."""
    while True:
        run = start(recipe, work, DATA_STAGES[-1])
        if len(done) == kills:
            if run.wait():
                raise SystemExit(f"the run in {work} ended with {run.returncode}")
            return
        after = longest * uniform(0, "data-kills", int(work.name.rpartition("-")[2]), len(done))
        limit = time.monotonic() + after
        while run.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        if run.poll() is not None:
            if run.returncode:
                raise SystemExit(f"the run in {work} ended with {run.returncode}")
            return
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        done.append({"after_seconds": round(after, 2), "in": stage_under_way(work)})
        print(done[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=0.1, help="gigabytes of source code")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kringle-kills-") as name:
        folder = Path(name)
        written = grow(folder / "corpus", int(given.size * 1e9))
        recipe = folder / "recipe.yaml"
        recipe.write_text(recipe_of(folder / "corpus", written, VOCABULARY))
        started = time.monotonic()
        if start(recipe, folder / "whole", DATA_STAGES[-1]).wait():
            raise SystemExit("the undisturbed run failed")
        seconds = time.monotonic() - started
        expected = files(folder / "whole")
        done: list[dict[str, Any]] = []
        differing: list[str] = []
        workspaces = 0
        while len(done) < given.kills:
            work = folder / f"killed-{workspaces}"
            workspaces += 1
            disturbed(recipe, work, seconds / 2, given.kills, done)
            found = files(work)
            differing += [f"{work.name}/{key}" for key in expected | found if expected.get(key) != found.get(key)]
    path = common.write(
        "data_kills",
        {
            "bytes": written,
            "undisturbed_seconds": round(seconds, 1),
            "kills": done,
            "kills_by_stage": Counter(kill["in"] for kill in done),
            "workspaces": workspaces,
            "files_compared": len(expected) * workspaces,
            "files_that_differ": differing,
        },
    )
    print(f"{len(done)} kills, {len(differing)} of {len(expected) * workspaces} files differ: {path}")
    if differing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
