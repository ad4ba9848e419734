"""Training: tokens per second of whole steps, beside what the matrix products alone would allow.

Where there is a GPU, `kringle.bench.gpu.training` measures that; what follows is the CPU's benchmark.

One model (8 layers, width 384, 6 heads, multi-query, vocabulary 16,384: 18.7M parameters), batches of 8 rows of 512
tokens with document masks, two threads: forward, backward, clipping, AdamW. The ceiling is the time of the model's
matrix products in the same precision, each alone, forward and both backward products; attention is left out of it. All
are timed in turns in one run, and the best of each counts, so a busy moment does not decide. The peer is GPTBigCode of
`transformers` under bfloat16 autocast, without document masks, as its users run it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kringle.bench import Measured, Peers
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.settings import TrainingSettings
from kringle.training.batches import Batch
from kringle.training.loss import HALF, Objective, Precision, chosen, rows_of
from kringle.training.optimizer import Optimizers, make_optimizer

CONFIG = ModelConfig(layers=8, width=384, heads=6, attention="mqa", context=512, vocab_size=16_384)
ROWS, THREADS, ROUNDS = 8, 2, 6
PEER = Path(__file__).parent / "peers" / "hf_gpt_bigcode.py"
DOCUMENTS = (300, 130, 82)  # tokens of the three documents of each row
PARTS = {  # what the profiler calls the passes of our own operations
    "linear maps": ("_Linear16", "_Linear16Backward", "aten::linear", "AddmmBackward0"),
    "attention": ("_SpanAttention", "_SpanAttentionBackward"),
    "vocabulary and loss": ("_LinearCrossEntropy16", "_LinearCrossEntropy", "_LinearCrossEntropy16Backward"),
    "GELU": ("_Gelu", "_GeluBackward"),
    "LayerNorm": ("aten::native_layer_norm", "NativeLayerNormBackward0"),
    "optimizer": ("Optimizer.step#AdamW.step",),
    "clipping": ("clip",),
}


def make_batch() -> Batch:
    """Random tokens; every row holds the same three document lengths and no padding."""
    chance = np.random.Generator(np.random.Philox(key=7))
    shape = (ROWS, CONFIG.context)
    tokens = chance.integers(0, CONFIG.vocab_size, shape)
    positions = np.tile(np.concatenate([np.arange(n) for n in DOCUMENTS]), (ROWS, 1))
    segments = np.tile(np.repeat(np.arange(len(DOCUMENTS)), DOCUMENTS), (ROWS, 1))
    return Batch(tokens, chance.integers(0, CONFIG.vocab_size, shape), positions, segments, (), 0, 0)


def make_step(precision: Precision) -> Callable[[], None]:
    """One whole step of training as `kringle.training.trainer` makes it, on one batch."""
    model = Transformer(CONFIG)
    model.initialise(0)
    objective, batch = Objective(model, precision), make_batch()
    optimizer: Optimizers = make_optimizer(model, TrainingSettings(tokens=1, batch_tokens=1))
    parameters = list(model.parameters())

    def step() -> None:
        inputs = rows_of(batch, slice(0, ROWS), torch.device("cpu"), packed=True)
        (objective(inputs) / batch.valid).backward()
        with torch.profiler.record_function("clip"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_products(precision: Precision) -> Callable[[], None]:
    """The matrix products of one step, nothing else."""
    dtype = HALF.get(precision, torch.float32)
    e, kv, n = CONFIG.width, 2 * CONFIG.key_value_heads * CONFIG.head_size, ROWS * CONFIG.context
    shapes = [(e, e + kv), (e, e), (e, 4 * e), (4 * e, e)] * CONFIG.layers + [(e, CONFIG.vocab_size)]
    inputs = {width: torch.randn(n, width).to(dtype) for width in {width for shape in shapes for width in shape}}
    weights = {(a, b): torch.randn(b, a).to(dtype) for a, b in set(shapes)}

    def products() -> None:
        for a, b in shapes:
            x, g, w = inputs[a], inputs[b], weights[a, b]
            torch.mm(x, w.T)
            torch.mm(g, w)
            torch.mm(g.T, x)

    return products


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def profile(step: Callable[[], None]) -> dict[str, float]:
    """Share of one step's time in each part; the rest is embeddings, residual sums, casts and Python."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        whole = seconds(step)
    found: dict[str, float] = {}
    events = {event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages()}
    for part, names in PARTS.items():
        found[part] = round(sum(events.get(name, 0.0) for name in names) / whole, 3)
    return {**found, "rest": round(1 - sum(found.values()), 3)}


def peer_job(
    config: ModelConfig,
    device: str,
    *,
    rows: int,
    micro_batches: int,
    warm: int,
    timed: int,
    ways: Sequence[str],
    threads: int | None = None,
) -> dict[str, Any]:
    """What `PEER` is told: a model's shape, rows of a micro-batch, steps to warm up and steps to time."""
    return {
        "device": device,
        "threads": threads,
        "layers": config.layers,
        "width": config.width,
        "heads": config.heads,
        "context": config.context,
        "vocabulary": config.vocab_size,
        "rows": rows,
        "micro_batches": micro_batches,
        "warm": warm,
        "timed": timed,
        "ways": list(ways),
    }


def measure(peers: Peers) -> Measured:
    """Whole steps, products and (where wanted) the peer, in turns."""
    if torch.cuda.is_available():
        from kringle.bench.gpu.training import measure as measure_gpu

        return measure_gpu(peers)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        precision = chosen("auto", torch.device("cpu"))
        step, products = make_step(precision), make_products(precision)
        for work in (step, products):
            work()
        times: dict[str, list[float]] = {"step": [], "products": []}
        for _ in range(ROUNDS):
            times["step"].append(seconds(step))
            times["products"].append(seconds(products))
        parts = profile(step)
    finally:
        torch.set_num_threads(threads)
    tokens = ROWS * CONFIG.context
    ours, ceiling = (tokens / min(times[name]) for name in ("step", "products"))
    found: dict[str, float] = {}
    absent: list[str] = []
    if peers.wanted:
        job = peer_job(CONFIG, "cpu", rows=ROWS, micro_batches=1, warm=1, timed=ROUNDS, ways=["plain"], threads=THREADS)
        said, why = peers.run("transformers", PEER, json.dumps(job))
        if why is None:
            found["transformers"] = said["rates"]["plain"]
        else:
            absent.append(f"transformers: {why}")
    details: dict[str, Any] = {
        "parameters": CONFIG.parameters,
        "precision": precision,
        "threads": THREADS,
        "ceiling": ceiling,
        "parts": parts,
        "seconds": times,
    }
    lines = [
        f"ours               {ours:8,.0f} tokens/s in {precision}, {ours / ceiling:.0%} of the ceiling, {ceiling:,.0f}",
        *(f"{name:18s} {value:8,.0f} tokens/s, ours is {ours / value:.2f} times that" for name, value in found.items()),
        "a step's time      " + ", ".join(f"{part} {share:.0%}" for part, share in parts.items()),
    ]
    return Measured("tokens/s", ours, found, absent, ours / ceiling, details, lines)
