"""Kill and resume: a training run that dies at random steps ends with the weights of an uninterrupted one, bit for bit.

    python benchmarks/evidence/train_kills.py                 20 kills, 80 steps

Every kill is a SIGKILL a random moment after a random step. Compared are all weights and, but for times and memory,
every line of the log. Writes benchmarks/results/train_kills.json; exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import training_fixtures as shared  # noqa: E402

from kringle.machine import machine, versions  # noqa: E402
from kringle.training.trainer import train  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "train_kills.json"
TIMES = ("seconds", "tokens_per_second", "memory_bytes")


def child(folder: Path, steps: int) -> None:
    torch.set_num_threads(1)
    settings = shared.Settings(steps=steps)
    train(
        shared.model_config(dropout=0.1),
        settings,
        shared.batches(settings=settings),
        folder / "out",
        seed=0,
        checkpoints=folder / "checkpoints",
        checkpoint_every=3,
        on_step=lambda *_: time.sleep(0.01),
    )


def result(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    lines = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    weights = safetensors.torch.load_file(folder / "out" / "model" / "model.safetensors")
    return weights, [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=80)
    asked = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "training_fixtures", "kringle.training.trainer"])
    chance = random.Random(6)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        child(whole, asked.steps)
        goals = sorted(chance.sample(range(1, asked.steps), asked.kills))
        deaths = []
        for goal in goals:
            process = context.Process(target=child, args=(killed, asked.steps))
            process.start()
            log = killed / "checkpoints" / "log.jsonl"
            while process.is_alive() and not (log.exists() and log.read_bytes().count(b"\n") >= goal):
                time.sleep(0.001)
            time.sleep(chance.random() * 0.02)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            deaths.append({"after_step": goal, "exit": process.exitcode})
        child(killed, asked.steps)
        (weights, lines), (same_weights, same_lines) = result(whole), result(killed)
    equal = weights.keys() == same_weights.keys() and all(torch.equal(w, same_weights[n]) for n, w in weights.items())
    said = {
        "steps": asked.steps,
        "kills": deaths,
        "weights_equal_to_the_bit": equal,
        "logs_equal": lines == same_lines,
        "machine": asdict(machine()),
        "versions": versions(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")
    died = sum(death["exit"] == -signal.SIGKILL for death in deaths)
    print(f"{died} kills; weights equal: {equal}; logs equal: {lines == same_lines}")
    return 0 if equal and lines == same_lines else 1


if __name__ == "__main__":
    sys.exit(main())
