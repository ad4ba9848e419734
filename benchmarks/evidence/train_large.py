"""Large models on a CPU: one real step of SantaCoder's size (batch 1, recomputation), and the largest that fits.

    python benchmarks/evidence/train_large.py --layers 24        SantaCoder: 1,124,886,528 parameters, needs about 20 GB
    python benchmarks/evidence/train_large.py --layers 20 --steps 2

A step is forward and backward pass of one row of 2,048 tokens, clipping and AdamW, with float32 weights and products in
bfloat16 where the processor has them. Prints and writes parameters, seconds, losses and the process' peak memory to
benchmarks/results/train_large.json (one entry for each number of layers).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from kringle.engine import peak_memory
from kringle.machine import machine, versions
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.settings import TrainingSettings
from kringle.training.batches import Batch
from kringle.training.loss import Objective, chosen, rows_of
from kringle.training.optimizer import make_optimizer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "train_large.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--steps", type=int, default=1)
    asked = parser.parse_args()
    config = ModelConfig(asked.layers, 2048, 16, "mqa", 2048, 49_280)
    precision = chosen("auto", torch.device("cpu"))
    model = Transformer(config)
    model.initialise(1234)
    model.recompute = True
    chance = np.random.Generator(np.random.Philox(key=1))
    shape = (1, config.context)
    tokens, targets = (chance.integers(0, 49_152, shape) for _ in range(2))
    batch = Batch(tokens, targets, np.arange(config.context)[None], np.zeros(shape, np.int64), (), 0, 0)
    optimizer = make_optimizer(model, TrainingSettings(tokens=1, batch_tokens=1))
    objective, losses, seconds = Objective(model, precision), [], []
    for _ in range(asked.steps):
        started = time.perf_counter()
        loss = objective(rows_of(batch, slice(0, 1), torch.device("cpu"), packed=True)) / batch.valid
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    row = {
        "layers": asked.layers, "parameters": config.parameters, "precision": precision, "losses": losses,
        "seconds": seconds, "peak_memory": peak_memory(), "machine": asdict(machine()), "versions": versions(),
    }  # fmt: skip
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({**known, str(asked.layers): row}, indent=1) + "\n")
    print(f"{config.parameters:,} parameters: {seconds} s a step, loss {losses}, peak {peak_memory() / 1e9:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
