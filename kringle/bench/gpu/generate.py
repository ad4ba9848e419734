"""Sampling speed on one GPU, at SantaCoder's size, beside `transformers`: one stream, 32 rows, 200 samples of a prompt.

The models have random weights in bfloat16 (24 layers, width 2048, 16 heads, context 2048, vocabulary 49,280;
multi-query and multi-head); the prompt has 256 tokens, 64 are drawn at temperature 0.8 and top-p 0.95, and nothing ends
a sample early. Rates are new tokens per second of wall time, prefill included; "prompt read" counts from the third
token on. The peer has the same weights, bfloat16 and scaled-dot-product attention, and its faster cache counts.

Before any rate of the peer counts, greedy texts are compared: those of a small model in fp32 must be equal token for
token (else this ends with an error), those of the large ones in bfloat16 are counted, with the gap between the two
highest logits where they part. The ceilings are measured in the same run: a step must read every weight once and
multiply by it, at the rate of a large copy on the device and of one large bfloat16 product; keys and values are left
out of them.
"""

from __future__ import annotations

import gc
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kringle.bench import Measured, Peers
from kringle.bench.generate import Vocabulary, run_products, save_without_tokenizer
from kringle.errors import UserError
from kringle.generation.selection import chooser
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream, torch_seed

Attention = Literal["mqa", "mha"]

VOCABULARY, CONTEXT = 49_280, 2048
PROMPT, NEW_TOKENS, CASES = 256, 64, {"single": 1, "batch 32": 32, "200 samples": 200}
TEMPERATURE, TOP_P = 0.8, 0.95
SMALL = {"layers": 3, "width": 64, "heads": 4, "context": 256, "vocab_size": 512}
GREEDY_PROMPTS, GREEDY_LENGTH, GREEDY_TOKENS = 8, 48, 32
BUDGET = 140.0  # seconds for all; compiling the peer's step takes up to a minute and is left out where less is left
PEER_AT_MOST, COMPILE_AT_LEAST, COMPILE_AT_MOST = 60.0, 25.0, 60.0
MATRIX = 8192  # rows and columns of the product that is the measure


def make_model(config: ModelConfig, dtype: torch.dtype, spread: float | None = None) -> Transformer:
    """Random weights drawn on the GPU, as `Transformer.initialise` spreads them or all by `spread`; special tokens are
    made improbable, so that every sample has its tokens."""
    with torch.device("cuda"):
        model = Transformer(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator("cuda").manual_seed(torch_seed(0, "bench", name))
            scale = spread or 0.022 / ((2 * config.layers) ** 0.5 if name.endswith("c_proj.weight") else 1.0)
            norm, bias = ".ln_" in name, name.endswith("bias")
            parameter.normal_(float(norm and not bias), scale, generator=generator)
            if spread is None and (norm or bias):
                parameter.fill_(0.0 if bias else 1.0)
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[config.vocab_size - 5 :, 0] = -5.0
    return model.eval()


def large(attention: Attention) -> Transformer:
    return make_model(ModelConfig(24, 2048, 16, attention, CONTEXT, VOCABULARY), torch.bfloat16)


def small(attention: Attention) -> Transformer:
    return make_model(ModelConfig(attention=attention, **SMALL), torch.float32, spread=0.25)  # type: ignore[arg-type]


def prompts(count: int, length: int, vocabulary: int) -> list[list[int]]:
    random = stream(0, "bench", "prompts")
    return [random.integers(0, vocabulary - 5, length).tolist() for _ in range(count)]


def engine(model: Transformer, rows: int, graphs: bool = True) -> Any:
    from kringle.generation.engine import Engine

    vocabulary = Vocabulary(model.config.vocab_size)
    return Engine(model, vocabulary, rows=rows, columns=PROMPT + NEW_TOKENS, graphs=graphs)


def finish(runner: Any) -> list[Any]:
    """Every completion of what was added."""
    from kringle.generation.requests import Completion

    found: list[Any] = []
    while not runner.idle:
        found += [event for event in runner.advance() if isinstance(event, Completion)]
    return found


def greedy(model: Transformer, wanted: Sequence[Sequence[int]]) -> list[list[int]]:
    from kringle.generation.requests import Request

    runner = engine(model, len(wanted))
    for prompt in wanted:
        runner.add(Request(prompt, 1, GREEDY_TOKENS, 0.0))
    return [done.tokens for done in sorted(finish(runner), key=lambda done: done.request)]


def rates(model: Transformer, rows: int, graphs: bool) -> dict[str, float]:
    """Tokens per second, whole and once the prompt has been read, and the largest memory in bytes."""
    from kringle.generation.requests import Request

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    runner = engine(model, rows, graphs)
    prompt = prompts(1, PROMPT, model.config.vocab_size)[0]
    runner.add(Request(prompt, rows, 6, TEMPERATURE, TOP_P))  # makes kernels and recordings
    finish(runner)
    whole = decoding = 0.0
    for _ in range(2):
        torch.cuda.synchronize()
        runner.add(Request(prompt, rows, NEW_TOKENS, TEMPERATURE, TOP_P))
        start = time.perf_counter()
        list(runner.advance())  # the prompt, and two tokens
        second = time.perf_counter()
        drawn = sum(len(done.tokens) for done in finish(runner))
        end = time.perf_counter()
        assert drawn == rows * NEW_TOKENS
        whole, decoding = max(whole, drawn / (end - start)), max(decoding, (drawn - 2 * rows) / (end - second))
    return {"whole": whole, "decoding": decoding, "peak_bytes": float(torch.cuda.max_memory_allocated())}


def milliseconds(run: Callable[[], object], repetitions: int = 20) -> float:
    """Of the device for one run, recorded so that launches do not count."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        run()
    graph.replay()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repetitions):
        graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repetitions


@torch.inference_mode()
def profile(model: Transformer, rows: int, decoding: float) -> dict[str, float]:
    """Milliseconds of one step, halfway through: the model's products, its attention and rest, choosing tokens (with
    the transfer of ids, its launches not hidden as they are in a run), and what is left of a step's wall time at
    `decoding` tokens per second: the host."""
    from kringle.generation.decoder import NONE_SHARED, Decoder, Shared
    from kringle.generation.selection import Truncation, select

    c, device = model.config, torch.device("cuda")
    decoder = Decoder(model, rows=rows, columns=PROMPT + NEW_TOKENS, vocab_size=c.vocab_size)
    alone = rows == 1  # then the prompt lies in the row itself
    used = PROMPT + NEW_TOKENS if alone else NEW_TOKENS
    tokens = torch.arange(rows, device=device)
    columns = torch.full((rows,), used - NEW_TOKENS // 2, device=device)
    positions = torch.full((rows,), PROMPT + NEW_TOKENS // 2, device=device)
    owners = torch.full((rows,), NONE_SHARED if alone else 0, device=device)
    shared = None
    if not alone:
        prompt = decoder.prefill(prompts(1, PROMPT, c.vocab_size)[0])
        shared = Shared(prompt.keys, prompt.values, torch.zeros(PROMPT, dtype=torch.int64, device=device))
    x = torch.randn(rows, c.width, device=device, dtype=torch.bfloat16)
    inner = torch.randn(rows, 4 * c.width, device=device, dtype=torch.bfloat16)

    multiply = milliseconds(lambda: run_products(decoder, x, inner))
    step = milliseconds(lambda: decoder.fixed_step(tokens, positions, columns, owners, used, shared))
    logits = decoder.fixed_step(tokens, positions, columns, owners, used, shared)
    truncation = Truncation(np.full(rows, TEMPERATURE), np.full(rows, TOP_P), np.zeros(rows, np.int64))
    uniforms, times = np.linspace(0, 1, rows, endpoint=False), []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        select(logits, truncation, uniforms)
        times.append(time.perf_counter() - start)
    choose, wall = min(times) * 1000, 1000 * rows / decoding
    return {
        "products_ms": multiply,
        "attention_and_rest_ms": step - multiply,
        "selection_ms": choose,
        "host_ms": max(0.0, wall - step - choose),
        "step_ms": wall,
    }


def bandwidth() -> float:
    """Bytes per second of a copy on the device, read and written ones."""
    source = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), 10) * 1000


def product_rate() -> float:
    """Multiply-adds times two per second of one large bfloat16 product."""
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * MATRIX**3 / milliseconds(lambda: torch.mm(a, b, out=out), 10) * 1000


def compare(ours: list[list[int]], theirs: dict[str, Any]) -> dict[str, Any]:
    """How many greedy texts are equal, and the gap of the two highest logits where the others part."""
    gaps = []
    for text, other, gap in zip(ours, theirs["tokens"], theirs["gaps"], strict=True):
        if text != other:
            at = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), -1)
            gaps.append(float(gap[at]))
    return {"texts": len(ours), "equal": len(ours) - len(gaps), "gaps": gaps}


def peer_job(folder: Path, model: Transformer, **more: Any) -> dict[str, Any]:
    return {
        "model": str(folder),
        "prompt": prompts(1, PROMPT, VOCABULARY)[0],
        "new_tokens": NEW_TOKENS,
        "cases": CASES,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "greedy_tokens": GREEDY_TOKENS,
        "greedy": prompts(GREEDY_PROMPTS, GREEDY_LENGTH, model.config.vocab_size),
        **more,
    }


def run_peer(peers: Peers, job: dict[str, Any], scratch: Path, timeout: float = PEER_AT_MOST) -> tuple[Any, str | None]:
    """`Peers.run` of the peer's script on a job; too slow is a reason too."""
    file = scratch / "job.json"
    file.write_text(json.dumps(job))
    script = Path(__file__).parents[1] / "peers" / "generate_cuda.py"
    try:
        return peers.run("transformers", script, str(file), timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, f"not done after {timeout:.0f} seconds"


def measure(peers: Peers) -> Measured:
    begun = time.perf_counter()
    read, multiply = bandwidth(), product_rate()
    details: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "bandwidth_bytes_per_second": read,
        "flops": multiply,
        "selection": chooser(torch.device("cuda")).__name__,
    }
    lines = [
        f"{details['device']}: copies {read / 1e9:,.0f} GB/s, bf16 products {multiply / 1e12:,.0f} TFLOP/s; "
        f"tokens: {details['selection']}"
    ]
    found: dict[str, dict[str, float]] = {}
    absent: list[str] = []
    attentions: tuple[Attention, ...] = ("mqa", "mha")
    with tempfile.TemporaryDirectory(prefix="kringle-bench-") as scratch:
        for attention in attentions:
            model = large(attention)
            if peers.wanted:
                theirs = _beside(peers, attention, model, Path(scratch), absent, lines, details)
                if theirs is not None:
                    found[f"transformers {attention}"] = theirs
            details[attention] = _ours(model, attention, read, multiply, lines)
            del model
            torch.cuda.empty_cache()
        left = min(COMPILE_AT_MOST, BUDGET - (time.perf_counter() - begun))
        if "transformers mqa" in found and left >= COMPILE_AT_LEAST:
            job = json.loads((Path(scratch) / "mqa.json").read_text()) | {"compile": True}
            said, why = run_peer(peers, job, Path(scratch), left)
            if why is None:
                found["transformers mqa"]["single, compiled"] = said["rates"]["single"]
            else:
                absent.append(f"transformers mqa, compiled: {why}")
        elif found:
            absent.append("transformers mqa, compiled: no time left")
    for name, theirs in found.items():
        lines.append(f"  {name:18} " + ", ".join(f"{case} {rate:,.0f}" for case, rate in theirs.items()))
        for case, rate in theirs.items():
            details[name.split()[1]].setdefault("times_theirs", {})[case] = (
                details[name.split()[1]]["cases"][case.split(",")[0]]["whole"] / rate
            )
        ratios = details[name.split()[1]]["times_theirs"]
        lines.append("    ours " + ", ".join(f"{case} {ratio:.1f} times that" for case, ratio in ratios.items()))
    details["seconds"] = time.perf_counter() - begun
    best, case = details["mqa"]["cases"]["200 samples"], "200 samples"
    return Measured(
        unit="tokens/s",
        ours=best["whole"],
        peers={name: theirs[case] for name, theirs in found.items()},
        absent=absent,
        utilisation=best["decoding"] / best["ceiling"],
        details={**details, "peers": found},
        lines=[*lines, *(f"absent: {reason}" for reason in absent), f"all of it took {details['seconds']:.0f} s"],
    )


def _ours(model: Transformer, attention: str, read: float, multiply: float, lines: list[str]) -> dict[str, Any]:
    """All cases of one model, with graphs and without."""
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "wpe" not in name)
    lines.append(f"{attention}, {model.config.parameters:,} parameters; tokens per second:")
    cases: dict[str, Any] = {}
    for case, rows in CASES.items():
        one: dict[str, Any] = rates(model, rows, graphs=True)
        one["ceiling"] = rows / max(2 * weights / read, 2 * weights * rows / multiply)
        one["eager"] = rates(model, rows, graphs=False)["whole"]
        one["profile"] = p = profile(model, rows, one["decoding"])
        cases[case] = one
        lines += [
            f"  kringle, {case:12} {one['whole']:,.0f}; prompt read {one['decoding']:,.0f}, "
            f"{one['decoding'] / one['ceiling']:.0%} of what {'memory' if rows == 1 else 'hardware'} allows "
            f"({one['ceiling']:,.0f}); without graphs {one['eager']:,.0f}; {one['peak_bytes'] / 2**30:.1f} GiB at most",
            f"    a step of {p['step_ms']:.2f} ms: products {p['products_ms']:.2f}, attention and rest "
            f"{p['attention_and_rest_ms']:.2f}, choosing tokens {p['selection_ms']:.2f}, host {p['host_ms']:.2f}",
        ]
    return {"parameters": model.config.parameters, "weights": weights, "cases": cases}


def _beside(
    peers: Peers,
    attention: Attention,
    model: Transformer,
    scratch: Path,
    absent: list[str],
    lines: list[str],
    details: dict[str, Any],
) -> dict[str, float] | None:
    """The peer's rates with the same weights, after greedy texts were compared. UserError where fp32's differ."""
    little = small(attention)
    save_without_tokenizer(little, scratch / f"small-{attention}")
    save_without_tokenizer(model, scratch / attention)
    job = peer_job(scratch / attention, model, small=str(scratch / f"small-{attention}"))
    job["small_greedy"] = prompts(GREEDY_PROMPTS, GREEDY_LENGTH, SMALL["vocab_size"])
    (scratch / f"{attention}.json").write_text(json.dumps(job))
    said, why = run_peer(peers, job, scratch)
    if why is not None:
        absent.append(f"transformers {attention}: {why}")
        return None
    exact = compare(greedy(little, job["small_greedy"]), said["small"])
    if exact["gaps"]:
        raise UserError(
            f"{len(exact['gaps'])} of {exact['texts']} greedy texts in fp32 differ from transformers', where the two "
            f"highest logits are {', '.join(f'{gap:.1e}' for gap in exact['gaps'])} apart",
            where=f"bench generate, {attention}",
        )
    near = compare(greedy(model, job["greedy"]), said["large"])
    details[f"greedy {attention}"] = {"fp32": exact, "bf16": near}
    apart = f", the others part at gaps of {', '.join(f'{gap:.2f}' for gap in near['gaps'])}" if near["gaps"] else ""
    lines.append(
        f"{attention}: greedy texts equal to transformers' {exact['equal']} of {exact['texts']} (small model, fp32), "
        f"{near['equal']} of {near['texts']} (large model, bf16{apart})"
    )
    theirs: dict[str, float] = said["rates"]
    details[f"transformers {attention}"] = {"caches": said["caches"], "peak_bytes": said["peak_bytes"]}
    return theirs
