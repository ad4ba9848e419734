"""Training on a GPU: tokens per second of whole steps of 125M, 350M and 1.1B parameters, beside `transformers`.

Every row is the trainer's own step (`kringle.training.run`): loader, document masks, bf16, four micro-batches,
clipping, fused AdamW; context 2,048, SantaCoder's vocabulary, multi-query attention. Documents have 1,200, 520 and 328
tokens, so masks matter. The peer is GPTBigCode under bf16 autocast with fused AdamW, without document masks,
plain and compiled, as its users run it. MFU is that of `kringle.training.speed`, whose formula does not halve attention
for being causal.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kringle.bench import Measured, Peers
from kringle.bench.train import PEER, peer_job
from kringle.model.shape import ModelConfig
from kringle.settings import TrainingSettings
from kringle.training.batches import Batch
from kringle.training.parallel import World
from kringle.training.run import Loader, Run

CONTEXT, VOCABULARY = 2048, 49_280
DOCUMENTS = (1200, 520, 328)  # tokens of the three documents of each row
MICRO_BATCHES = 4
WARM, TIMED = 2, 5  # steps; the first one compiles
GOALS = {"125M": 450_000, "350M": 160_000, "1.1B": 56_000}  # tokens/s, set before any of them was measured


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    rows: int  # of a micro-batch
    peer_rows: int

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(self.layers, self.width, self.heads, "mqa", CONTEXT, VOCABULARY)


SHAPES = {
    "125M": Shape(12, 768, 12, 16, 16),
    "350M": Shape(24, 1024, 16, 16, 8),
    "1.1B": Shape(24, 2048, 16, 8, 4),
}
KERNELS = {  # parts of a step by what their kernels are called; first match counts
    "optimizer and clipping": ("multi_tensor", "FusedAdam", "fused_adam", "adamw"),
    "attention": ("flex_attention", "triton_tem", "flash", "fmha", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "splitK"),
    "LayerNorm, GELU, loss, sums, casts": ("triton_", "elementwise", "reduce", "layer_norm", "embedding", "cub::"),
}


class RandomBatches:
    """Random tokens in documents of the same three lengths in each row: a `BatchSource` without a corpus."""

    context, fim_rate, fim_spm = CONTEXT, 0.0, 0.0
    tokenizer: Any = None

    def __init__(self, rows: int) -> None:
        self.rows, self.batch_tokens = rows, rows * CONTEXT
        chance = np.random.Generator(np.random.Philox(key=7))
        self._tokens = chance.integers(0, VOCABULARY, (rows, CONTEXT + 1))

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        rows = self.rows if count is None else count
        positions = np.tile(np.concatenate([np.arange(n) for n in DOCUMENTS]), (rows, 1))
        segments = np.tile(np.repeat(np.arange(len(DOCUMENTS)), DOCUMENTS), (rows, 1))
        tokens = np.roll(self._tokens, step, axis=1)[first : first + rows]
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), positions, segments, (), 0, 0)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {}

    def epochs(self, steps: int) -> float:
        return float(steps)


def steps_of(shape: Shape, scratch: Path) -> dict[str, Any]:
    """The speed of whole steps, their memory, and where the time of one goes."""
    torch.cuda.reset_peak_memory_stats()
    batches = RandomBatches(shape.rows * MICRO_BATCHES)
    settings = TrainingSettings(
        tokens=batches.batch_tokens * (WARM + TIMED + 1), batch_tokens=batches.batch_tokens, learning_rate=2e-4
    )
    world = World(device=torch.device("cuda", 0))
    started = time.perf_counter()
    run = Run(shape.config, settings, batches, 0, world, shape.rows * CONTEXT, scratch, None)
    drawn = time.perf_counter() - started
    with Loader(batches, 0, WARM + TIMED + 1, world) as loader:
        times, losses = [], []
        for _ in range(WARM + TIMED):
            record = run.update(loader)
            torch.cuda.synchronize()
            times.append(record.seconds)
            losses.append(record.loss)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            begun = time.perf_counter()
            run.update(loader)
            torch.cuda.synchronize()
            profiled = time.perf_counter() - begun
    speed = batches.batch_tokens / float(np.median(times[WARM:]))
    return {
        "parameters": shape.config.parameters,
        "micro_batch_rows": shape.rows,
        "tokens_per_second": speed,
        "mfu": speed * run.flops / run.peak if run.peak else None,
        "memory_bytes": torch.cuda.max_memory_allocated(),
        "seconds": times,
        "losses": losses,
        "draw_weights_seconds": drawn,
        "parts": parts_of(profiler, profiled),
    }


def parts_of(profiler: Any, whole: float) -> dict[str, Any]:
    """Share of a step's time in each kind of kernel; the rest is the device waiting, and kernels without a kind."""
    found = dict.fromkeys((*KERNELS, "other kernels"), 0.0)
    costs: list[tuple[float, str]] = []
    for event in profiler.key_averages():
        seconds = event.self_device_time_total / 1e6
        if seconds <= 0:
            continue
        kind = next((kind for kind, names in KERNELS.items() if any(n in event.key for n in names)), "other kernels")
        found[kind] += seconds
        costs.append((seconds, event.key))
    shares: dict[str, Any] = {kind: round(seconds / whole, 3) for kind, seconds in found.items()}
    shares["the device waits"] = round(1 - sum(shares.values()), 3)
    shares["dearest"] = [f"{seconds / whole:.3f} {name[:90]}" for seconds, name in sorted(costs, reverse=True)[:12]]
    return shares


def measure(peers: Peers) -> Measured:
    table: dict[str, dict[str, Any]] = {}
    found: dict[str, float] = {}
    absent: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kringle-bench-") as scratch:
        for name, shape in SHAPES.items():
            table[name] = steps_of(shape, Path(scratch))
            gc.collect()
            torch.cuda.empty_cache()
            if peers.wanted:
                rows = {"rows": shape.peer_rows, "micro_batches": MICRO_BATCHES}
                job = peer_job(shape.config, "cuda", **rows, warm=WARM, timed=3, ways=["plain", "compiled"])
                said, why = peers.run("transformers", PEER, json.dumps(job))
                if why is None:
                    table[name]["transformers"] = said
                    found[f"transformers {name}"] = max(said["rates"].values())
                else:
                    absent.append(f"transformers {name}: {why}")
    largest = table["1.1B"]
    lines = [f"{torch.cuda.get_device_name()}; tokens per second of whole steps, context {CONTEXT}, bf16:"]
    for name, row in table.items():
        utilised = f", MFU {row['mfu']:.0%}" if row["mfu"] else ""
        peer = found.get(f"transformers {name}")
        beside = f"; transformers {peer:,.0f}, ours is {row['tokens_per_second'] / peer:.2f} times that" if peer else ""
        lines.append(
            f"  {name}  {row['tokens_per_second']:9,.0f} (goal {GOALS[name]:,}){utilised}, "
            f"{row['memory_bytes'] / 1e9:.0f} GB{beside}"
        )
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in row["parts"].items() if kind != "dearest")
        lines.append(f"        {shares}")
    return Measured(
        "tokens/s",
        largest["tokens_per_second"],
        found,
        absent,
        largest["mfu"],
        {"goals": GOALS, "shapes": table},
        lines,
    )
