"""Which harness falls for which trick: every gaming attack that ships, in each peer's own code and in ours.

    python benchmarks/evidence/harness_tricks.py human-eval=CHECKOUT bigcode=CHECKOUT [languages=python,java]

No peer has a jail, so each runs inside an outer one: namespaces of its own without a network, everything read-only but
an empty /tmp, limits of memory and processes. `exit code` is MultiPL-E's rule with the bare runtimes (its Java executor
needs a jar at a fixed place). A harness has fallen where it counts a program that solves nothing as passed.
Writes benchmarks/results/harness_tricks.json and prints a table.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

from kringle.evaluation.jail import attack as attacks
from kringle.evaluation.jail.java_worker import worker_folder
from kringle.evaluation.jail.levels import probe
from kringle.evaluation.jail.runner import missing_runtime

PEER = common.ROOT / "benchmarks" / "peers" / "score_peer.py"
PATIENCE = 600
# Everything that is mounted becomes read-only, /tmp a file system of its own; the peer's checkout is seen at /mnt.
OUTER = """
[ -d "$PLACE" ] && mount --bind "$PLACE" /mnt
for place in $(awk '{print $5}' /proc/self/mountinfo); do mount -o remount,bind,ro "$place" 2>/dev/null; done
mount -t tmpfs -o size=256m tmpfs /tmp && mount -t proc proc /proc
cat > /tmp/programs.json
ulimit -u 256 -v 8000000 2>/dev/null
exec "$@"
"""


def main() -> None:
    peers = dict(argument.split("=", 1) for argument in sys.argv[1:])
    wanted = peers.pop("languages", ",".join(attacks.LANGUAGES)).split(",")
    tricks = [one for one in attacks.shipped_attacks() if one.kind == "gaming" and one.language in wanted]
    tricks = [one for one in tricks if not missing_runtime(one.language)]
    ours = {(o.language, o.name): not o.blocked for o in attacks.attack(probe().level, tricks)}
    fallen: dict[str, dict[tuple[str, str], bool]] = {"kringle": ours}
    for name, kind, place, languages in (
        ("human-eval", "human-eval", peers.get("human-eval"), ("python",)),
        ("bigcode (MultiPL-E)", "multipl-e", peers.get("bigcode"), ("python", "javascript")),
        ("exit code", "plain", None, ("python", "javascript", "java")),
    ):
        if place is None and kind != "plain":
            print(f"{name}: no checkout named, left out")
            continue
        fallen[name] = {}
        for language in languages:
            own = [one for one in tricks if one.language == language]
            tuples = str(worker_folder() / "tuples") if language == "java" else "-"
            passed = run(kind, place or tuples, [row(one) for one in own])
            fallen[name] |= {(language, one.name): bool(p) for one, p in zip(own, passed, strict=True)}
            print(f"{name}, {language}: falls for {sum(passed)} of {len(passed)}", flush=True)
    table = [
        {"language": one.language, "trick": one.name}
        | {name: f.get((one.language, one.name)) for name, f in fallen.items()}
        for one in tricks
    ]
    counts = {name: f"{sum(f.values())} of {len(f)}" for name, f in fallen.items()}
    for line in table:
        marks = "  ".join(f"{'FALLS' if line[name] else '-' if line[name] is None else 'ok':<20}" for name in fallen)
        print(f"{line['language']:<11} {str(line['trick'])[:52]:<52} {marks}")
    print(f"{'':<64} " + "  ".join(f"{name:<20}" for name in fallen))
    print(counts, common.write("harness_tricks", {"fallen": counts, "tricks": table}))


def row(one: attacks.Attack) -> dict[str, Any]:
    """A trick as a program of a peer's."""
    problem, program = attacks.problem_and_program(one)
    whole = problem.program(program)
    fields = {"task_id": problem.task_id, "prompt": problem.prompt, "entry_point": problem.entry_point}
    return {
        "language": one.language,
        "text": whole + problem.tests,
        "problem": fields | {"test": problem.test},
        "completion": program,
    }


def run(kind: str, place: str, rows: list[dict[str, Any]]) -> list[bool]:
    """Which of the programs a peer counts as passed; each alone in an outer jail, because a trick may end the peer."""
    passed = []
    for one in rows:
        words = [sys.executable, str(PEER), kind, "/mnt", "/tmp/programs.json", "1"]
        outer = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount", "--ipc"]
        with tempfile.TemporaryFile("w+") as programs:
            json.dump([one], programs)
            programs.seek(0)
            try:
                done = subprocess.run(
                    [*outer, "sh", "-c", OUTER, "outer", *words],
                    stdin=programs,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PLACE": place, "PYTHONDONTWRITEBYTECODE": "1"},
                )
                lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
                passed.append(bool(lines) and json.loads(lines[-1])["passed"][0])
                if not lines:
                    print(f"  {kind}, {shlex.quote(str(one['text'][:40]))}: {done.stderr.strip()[-200:]}")
            except subprocess.TimeoutExpired:
                passed.append(False)
    return passed


if __name__ == "__main__":
    if not Path("/proc/self/ns/user").exists():
        raise SystemExit("this needs Linux namespaces")
    main()
