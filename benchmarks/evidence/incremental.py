"""What adding 1% of files costs, with the tokenizer frozen: the data stages of a full run, then again with more files.

A grown corpus (`grown_corpus`) is taken through collect, clean (with all that the default recipe cleans), split,
annotate and encode, and then twice more: with 1% of new files in repositories of their own, and with another 1%
scattered over all repositories. Each run is a `kringle run`, which begins when the disk has taken what was written
before. It is told by stage, in wall and CPU seconds, and as a share of the full run: everything included, from the
command's start to the end of its last process. The full run is two commands, because the tokenizer is trained between
them: of the second, the encode stage alone is counted. The design asks for at most 5%. Linux only.

    python benchmarks/evidence/incremental.py --megabytes 250 --out benchmarks/results/incremental.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from grown_corpus import grow, variants

from kringle.machine import machine, versions

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SHARE = 0.01
GOAL = 0.05
IN_NEW, SCATTERED = 1000, 1001  # variants of the grown corpus that no full run has

RECIPE = """
name: incremental
corpus: {{sources: [{{folder: {root}}}], languages: [python, java, javascript], licenses: any}}
clean: {{near_dedup: {{ngram: 1, threshold: 0.85}}, pii: true}}
tokenizer: {{{tokenizer}}}
model: {{layers: 1, width: 64, heads: 2, context: 256}}
training: {{tokens: 10k, batch_tokens: 1024}}
ablations: {{base: {{}}}}
evaluation: {{suites: [starter], held_out: 2%}}
"""


def costs(recipe: Path, work: Path, until: str) -> dict[str, dict[str, float]]:
    """Bring a study up to date as far as a stage with `kringle run`; seconds of each stage that was worked on and of
    what is around them: the start of the processes and the survey of the corpus above all. CPU time is that of the
    command and of every process that came from it, however it ended."""
    _adopt_orphans()
    os.sync()
    before, started = _children(), time.monotonic()
    command = [sys.executable, "-m", "kringle", "run", str(recipe), "--work", str(work), "--until", until, "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr[-2000:]}")
    with suppress(ChildProcessError):
        while True:
            os.wait()  # the process that workers are forked from ends after its parent; there are no others
    whole = {"wall_seconds": time.monotonic() - started, "cpu_seconds": _children() - before}
    stages = {}
    for name in json.loads(finished.stdout.splitlines()[-1])["computed"]:
        manifest = max((work / "stages").glob(f"{name}-*/manifest.json"), key=lambda path: path.stat().st_mtime)
        cost = json.loads(manifest.read_text(encoding="utf-8"))["cost"]
        stages[name] = {key: cost[key] for key in whole}
    stages["start, survey and planning"] = {
        key: spent - sum(cost[key] for cost in stages.values()) for key, spent in whole.items()
    }
    return stages


def _adopt_orphans() -> None:
    """Have the processes of a command that outlive it be waited for here, so that their time is counted (Linux)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scatter(root: Path, size: int) -> int:
    """Write about `size` bytes of new files, one after the other into the repositories that are there."""
    repos = sorted(path for path in root.iterdir() if path.is_dir())
    total = 0
    for number, (name, _, text) in enumerate(variants(SCATTERED)):
        target = repos[number * 37 % len(repos)] / f"added{number}{Path(name).suffix}"
        target.write_bytes(text)
        total += len(text)
        if total >= size:
            break
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/incremental.json"))
    parser.add_argument("--place", type=Path, help="a folder to work in; a temporary one by default")
    options = parser.parse_args()
    place = options.place or Path(tempfile.mkdtemp(prefix="kringle-incremental-"))
    root, work = place / "corpus", place / "work"
    size = grow(root, int(options.megabytes * 1e6))
    files = sum(path.is_file() for path in root.rglob("*"))
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root, tokenizer="vocab_size: 8192"), encoding="utf-8")
    full = costs(recipe, work, "tokenizer")
    del full["tokenizer"]  # it is trained once, and frozen from here on
    (trained,) = (work / "stages").glob("tokenizer-*")
    frozen = shutil.copytree(trained, place / "tokenizer")
    recipe.write_text(RECIPE.format(root=root, tokenizer=f"folder: {frozen}"), encoding="utf-8")
    full["encode"] = costs(recipe, work, "encode")["encode"]
    runs: dict[str, Any] = {"full": full}
    added = [grow(root, int(size * SHARE), IN_NEW)]
    runs["1% in new repositories"] = costs(recipe, work, "encode")
    added.append(scatter(root, int(size * SHARE)))
    runs["1% scattered over all repositories"] = costs(recipe, work, "encode")
    totals = {
        name: {key: sum(s[key] for s in stages.values()) for key in ("wall_seconds", "cpu_seconds")}
        for name, stages in runs.items()
    }
    shares = {
        name: {key: value / totals["full"][key] for key, value in total.items()} for name, total in totals.items()
    }
    record = {
        "evidence": "incremental",
        "files": files,
        "bytes": size,
        "bytes_added": added,
        "runs": {
            name: {stage: {k: round(v, 2) for k, v in cost.items()} for stage, cost in stages.items()}
            for name, stages in runs.items()
        },
        "share_of_a_full_run": {n: {k: round(v, 4) for k, v in s.items()} for n, s in shares.items()},
        "goal": GOAL,
        "machine": machine().__dict__,
        "versions": versions(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, stages in runs.items():
        told = ", ".join(f"{stage} {cost['wall_seconds']:.1f}" for stage, cost in stages.items())
        print(f"{name}: {totals[name]['wall_seconds']:.1f} s ({shares[name]['wall_seconds']:.1%}): {told}")
    if options.place is None:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
