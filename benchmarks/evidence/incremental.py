"""What adding 1% of files costs, with the tokenizer frozen: the data stages of a full run, then again with more files.

A grown corpus (`grown_corpus`) is taken through collect, clean (with all that the default recipe cleans), split,
annotate and encode, and then twice more: with 1% of new files in repositories of their own, and with another 1%
scattered over all repositories. Each run is a process of its own, as `kringle run` is, and begins when the disk has
taken what was written before. It is told by stage, in wall and CPU seconds, and as a share of the full run, the survey
of the files and the process's start included, the tokenizer's training left out. The design asks for at most 5%.

    python benchmarks/evidence/incremental.py --megabytes 250 --out benchmarks/results/incremental.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Kringle is imported where it is used: every worker imports this file, and those of `kringle run` import nothing much.

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
    """Bring a study up to date as far as a stage, in a process of its own; seconds of each stage that was worked on and
    of what is around them: the start of the process and the survey of the corpus above all."""
    os.sync()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_costs, recipe, work, until, time.time()).result()


def _costs(recipe: Path, work: Path, until: str, started: float) -> dict[str, dict[str, float]]:
    from kringle.engine import Engine, cpu_seconds
    from kringle.study import pipeline
    from kringle.study.last_run import recall
    from kringle.study.plan import Options
    from kringle.workspace import Workspace

    engine = Engine()
    pipeline._engine = lambda options, part: engine  # whose workers' time is known afterwards
    result = pipeline.run_study(Options(recipe=str(recipe), work=work, until=until), quiet=True)
    whole = {
        "wall_seconds": time.time() - started,
        "cpu_seconds": cpu_seconds() + engine.cpu_seconds,
    }
    _, plan = recall(Workspace.open(work, create=False))
    stages = {}
    for kind in result["computed"]:
        cost = getattr(plan, kind).manifest()["cost"]
        stages[kind] = {key: cost[key] for key in whole}
    stages["start, survey and planning"] = {
        key: max(0.0, spent - sum(cost[key] for cost in stages.values())) for key, spent in whole.items()
    }
    return stages


def scatter(root: Path, size: int) -> int:
    """Write about `size` bytes of new files, one after the other into the repositories that are there."""
    from grown_corpus import variants

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
    from grown_corpus import grow

    from kringle.machine import machine, versions

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
