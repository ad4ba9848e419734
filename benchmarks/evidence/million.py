"""A million samples: flat memory, killed on the way, resumed, and every line there at the end.

    make evidence million                     a million samples of starter, one killed run and one that ends
    python benchmarks/evidence/million.py N   fewer of them

Every 200th program is new, the rest are copies, as they are at a low temperature; the run is killed with SIGKILL when
it has judged about a third of them. Memory is the resident set of the scoring process (its jails have limits of their
own), read every half second; what counts is that its second half is no higher than its first. Writes
benchmarks/results/million.json.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

from kringle.evaluation.suites import load_suite

NEW_EVERY = 200


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_samples(folder / "samples.jsonl", count)
        print(f"{count:,} samples written")
        first, _ = run(folder, kill_at=count // NEW_EVERY // 3)
        second, seconds = run(folder, kill_at=None)
        lines = passed = 0
        with (folder / "verdicts.jsonl").open() as file:
            for line in file:
                lines += 1
                passed += json.loads(line)["passed"]
    half = len(second) // 2
    record = {
        "samples": count,
        "lines": lines,
        "passed": passed,
        "killed_after_readings": len(first),
        "seconds_of_the_second_run": round(seconds, 1),
        "memory_first_half_mib": round(max(second[:half]) / 1024, 1),
        "memory_second_half_mib": round(max(second[half:]) / 1024, 1),
    }
    if lines != count:
        raise SystemExit(f"{lines} lines for {count} samples")
    print(json.dumps(record), common.write("million", record))


def write_samples(path: Path, count: int) -> None:
    problems = load_suite("starter").problems
    with path.open("w") as file:
        for number in range(count):
            problem = problems[number % len(problems)]
            text = problem.canonical_solution if number % 7 == 0 else "    return None\n"
            text += f"    # {number // NEW_EVERY // len(problems)}\n"
            file.write(json.dumps({"task_id": problem.task_id, "completion": text}) + "\n")


def run(folder: Path, kill_at: int | None) -> tuple[list[int], float]:
    """Resident sizes (KiB) of one run, and how long it took; killed once that many programs have been judged."""
    command = [sys.executable, "-m", "kringle", "score", str(folder / "samples.jsonl"), "--suite", "starter"]
    environment = os.environ | {"PYTHONPATH": str(common.ROOT)}
    started = time.monotonic()
    process = subprocess.Popen([*command, "--out", str(folder / "verdicts.jsonl")], env=environment)
    sizes: list[int] = []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
        sizes += [int(size) for size in found]
        if kill_at is not None and judged(folder) >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return sizes, time.monotonic() - started
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return sizes, time.monotonic() - started


def judged(folder: Path) -> int:
    """Verdicts kept so far, by the size of the journal: each takes over a hundred bytes."""
    files = [folder / f"verdicts.jsonl.judged{suffix}" for suffix in ("", "-wal")]
    return sum(file.stat().st_size for file in files if file.exists()) // 200


if __name__ == "__main__":
    main()
