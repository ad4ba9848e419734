"""What adding 1% of files costs, with the tokenizer frozen: the data stages of a full run, then again with more files.

A corpus is written by rule (repositories of Python, JavaScript and Java under a permissive licence, no two files
alike), taken through collect, clean (with all that the default recipe cleans), split, annotate and encode, and then
twice more: with 1% of new files in repositories of their own, and with another 1% scattered over all repositories. Each
run is told by stage, in wall and CPU seconds, and as a share of the full run. The design asks for at most 5%.

    python benchmarks/evidence/incremental.py --megabytes 250 --out benchmarks/results/incremental.json
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from kringle.engine import Engine, cpu_seconds
from kringle.machine import machine, versions
from kringle.progress import Reporter
from kringle.study.pipeline import run_study
from kringle.study.plan import Options
from kringle.workspace import ShardStore

FILE_BYTES = 8_000  # on average: The Stack's files of these languages have about as much
FILES_IN_REPO = 60
ENDINGS = (".py", ".js", ".java")
MIT = (Path(__file__).resolve().parents[2] / "LICENSE").read_text(encoding="utf-8")
_WORDS = """
load save merge split parse format check build fetch count rank apply clear store trim sort wrap scan order invoice
parcel ticket reader writer buffer record window branch ledger sensor route season margin garden engine planet
"""
WORDS = _WORDS.split()
GOAL = 0.05


def text_of(ending: str, seed: str) -> str:
    """A file of about `FILE_BYTES`, the same for the same seed."""
    rng = random.Random(seed)
    lines: list[str] = []
    size = 0
    wanted = rng.expovariate(1 / FILE_BYTES) + 200
    comment = "#" if ending == ".py" else "//"
    if ending == ".java":
        lines.append(f"public class {rng.choice(WORDS).title()}{rng.randrange(10**6)} {{")
    while size < wanted:
        a, b, c = rng.choice(WORDS), rng.choice(WORDS), rng.choice(WORDS)
        number = rng.randrange(10**6)
        body = _body(ending, comment, a, b, c, number)
        lines.append(body)
        size += len(body)
    if ending == ".java":
        lines.append("}\n")
    return "\n".join(lines)


def _body(ending: str, comment: str, a: str, b: str, c: str, number: int) -> str:
    """One function in the language of the ending."""
    small = number % 13
    if ending == ".py":
        return (
            f"def {a}_{b}_{number}({c}, limit={number % 97}):\n    {comment} {a} the {b} of a {c}\n"
            f"    for {b}_{small} in {c}:\n        if {b}_{small} > limit:\n            return {a}({number})\n"
        )
    if ending == ".js":
        return (
            f"function {a}{b.title()}{number}({c}, limit) {{\n  {comment} {a} the {b} of a {c}\n"
            f"  const {b}{small} = {c}.filter((x) => x > {number});\n  return {b}{small}.length < limit;\n}}\n"
        )
    return (
        f"  public int {a}{b.title()}{number}(int {c}, int limit) {{\n    {comment} {a} the {b} of a {c}\n"
        f"    return {c} > {number} ? {c} - limit : {number % 97};\n  }}\n"
    )


def write_files(root: Path, repo: str, names: list[str]) -> int:
    """Write files of one repository; returns their bytes."""
    folder = root / repo
    total = 0
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text_of(path.suffix, f"{repo}/{name}")
        path.write_text(text, encoding="utf-8")
        total += len(text)
    (folder / "LICENSE").write_text(MIT, encoding="utf-8")
    return total


def names(prefix: str, count: int) -> list[str]:
    return [f"src/{prefix}{n // 20}/{prefix}{n}{ENDINGS[n % 3]}" for n in range(count)]


RECIPE = """
name: incremental
corpus: {{sources: [{{folder: {root}}}], licenses: permissive}}
clean: {{near_dedup: {{ngram: 1, threshold: 0.85}}, pii: true}}
tokenizer: {{vocab_size: 1024}}
model: {{layers: 1, width: 64, heads: 2, context: 256}}
training: {{tokens: 10k, batch_tokens: 1024}}
ablations: {{base: {{}}}}
evaluation: {{suites: [], held_out: 2%}}
"""


def data_stages(recipe: Path, work: Path, tokenizer: Path | None) -> tuple[dict[str, dict[str, float]], Path]:
    """Bring the data up to date; seconds by stage, the survey's among them, and the tokenizer's folder."""
    from kringle.study.arm import split_of
    from kringle.study.pipeline import recall
    from kringle.tokens.encode import encode
    from kringle.workspace import Workspace

    before = time.monotonic(), cpu_seconds()
    options = Options(recipe=str(recipe), work=work, until="tokenizer" if tokenizer is None else "annotate")
    result = run_study(options, quiet=True)
    _, plan = recall(Workspace.open(work, create=False))
    stages = {}
    for kind in ("collect", "clean", "split", "annotate"):
        manifest = getattr(plan, kind).manifest()
        done = kind in {name.partition("@")[0] for name in result["computed"]}
        cost = manifest["cost"]
        stages[kind] = {k: cost[k] if done else 0.0 for k in ("wall_seconds", "cpu_seconds")}
    tokenizer = tokenizer or plan.tokenizer.folder
    trained = plan.tokenizer.manifest() if plan.tokenizer.folder == tokenizer else None
    left_out = trained["cost"] if trained else {"wall_seconds": 0.0}
    stages["survey and planning"] = {
        "wall_seconds": max(
            0.0,
            time.monotonic() - before[0] - sum(s["wall_seconds"] for s in stages.values()) - left_out["wall_seconds"],
        ),
        "cpu_seconds": 0.0,
    }
    engine = Engine()
    started, cpu = time.monotonic(), cpu_seconds()
    out = work / "frozen"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    store = ShardStore(work / "shards" / "frozen-encode", "evidence")
    encode(
        plan.documents,
        split_of(plan.split.folder),
        tokenizer,
        out,
        store,
        engine,
        Reporter(quiet=True),
    )
    stages["encode"] = {
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": cpu_seconds() - cpu + engine.cpu_seconds,
    }
    return stages, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/incremental.json"))
    parser.add_argument("--place", type=Path, help="a folder to work in; a temporary one by default")
    options = parser.parse_args()
    place = options.place or Path(tempfile.mkdtemp(prefix="kringle-incremental-"))
    root, work = place / "corpus", place / "work"
    repos = max(2, round(options.megabytes * 1e6 / FILE_BYTES / FILES_IN_REPO))
    size = sum(write_files(root, f"repo{r:05d}", names("m", FILES_IN_REPO)) for r in range(repos))
    files = repos * FILES_IN_REPO
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root), encoding="utf-8")
    runs: dict[str, Any] = {}
    runs["full"], tokenizer = data_stages(recipe, work, None)
    more = max(1, files // 100)
    for r in range(max(1, more // FILES_IN_REPO)):
        write_files(root, f"added{r:05d}", names("m", min(more, FILES_IN_REPO)))
    runs["1% in new repositories"], _ = data_stages(recipe, work, tokenizer)
    for n in range(more):
        repo = f"repo{(n * 37) % repos:05d}"
        write_files(root, repo, [f"src/added/a{n}{ENDINGS[n % 3]}"])
    runs["1% scattered over all repositories"], _ = data_stages(recipe, work, tokenizer)
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
