"""Sampling speed: one stream, a batch of 32, and 200 samples of one prompt, beside other engines, in one run.

The model has random weights and 111 million parameters (12 layers, width 768, 12 heads, vocabulary 49,152); the prompt
has 256 tokens, 64 are drawn at temperature 0.8 and top-p 0.95, and nothing ends a sample early. Rates are new tokens
per second of wall time, prefill included. Every peer runs at the type that is fastest for it here.

Where there is a CUDA device, `kringle.bench.gpu.generate` is measured instead: larger models, on the device.

The ceilings are measured in the same run: a single stream must read every weight once a token, so bytes over the
measured bandwidth; many rows must multiply, so the model's own products at the measured rate of one large product.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kringle.bench import Measured, Peers

LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 12, 768, 12, 49_152, 1024
PROMPT, NEW_TOKENS, SAMPLES, BATCH = 256, 64, 200, 32
TEMPERATURE, TOP_P = 0.8, 0.95
PEERS = ("transformers", "ctranslate2", "vllm", "llama-cpp")


class Vocabulary:
    """Ids without a text: what sampling needs of a tokenizer, the last five special."""

    def __init__(self, size: int) -> None:
        from kringle.tokens.tokenizer import Specials

        self.vocab_size, self.specials = size, Specials.after(size - 5)
        self.token_bytes = [b"x"] * size


def make_model(attention: Literal["mqa", "mha"]) -> Any:
    """Random weights; special tokens are made improbable, so that every sample has its 64 tokens."""
    import torch

    from kringle.model.shape import ModelConfig
    from kringle.model.transformer import Transformer

    model = Transformer(ModelConfig(LAYERS, WIDTH, HEADS, attention, CONTEXT, VOCABULARY))
    model.initialise(0)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[VOCABULARY - 5 :, 0] = -5.0
    return model.eval()


def prompt_tokens() -> list[int]:
    from kringle.randomness import stream

    tokens: list[int] = stream(0, "bench", "prompt").integers(0, VOCABULARY - 5, PROMPT).tolist()
    return tokens


def _rate(run: Callable[[], int], repetitions: int = 2) -> float:
    """Tokens per second, the best of a few runs."""
    best = 0.0
    for _ in range(repetitions):
        start = time.perf_counter()
        tokens = run()
        best = max(best, tokens / (time.perf_counter() - start))
    return best


def ours(model: Any, samples: int, precision: str, *, new_tokens: int = NEW_TOKENS, repetitions: int = 2) -> float:
    """Tokens per second; packing the weights, done once per model and not per prompt, is left out."""
    from kringle.generation.decoder import FEW
    from kringle.generation.engine import Engine
    from kringle.generation.requests import Completion, Request

    def request(new: int) -> Request:
        return Request(prompt_tokens(), samples, new, TEMPERATURE, TOP_P)

    vocabulary = Vocabulary(VOCABULARY)
    engine = Engine(
        model,
        vocabulary,
        rows=samples,
        columns=PROMPT + new_tokens,
        precision=precision,  # type: ignore[arg-type]
        few=FEW if samples <= FEW else 0,
    )

    def run(new: int) -> int:
        engine.add(request(new))
        drawn = 0
        while not engine.idle:
            drawn += sum(len(event.tokens) for event in engine.advance() if isinstance(event, Completion))
        return drawn

    run(2)
    return _rate(lambda: run(new_tokens), repetitions)


def decoding(model: Any, precision: str) -> float:
    """Tokens per second of one stream once its prompt has been read: what memory bounds."""
    from kringle.generation.engine import Engine
    from kringle.generation.requests import Request

    engine = Engine(
        model,
        Vocabulary(VOCABULARY),
        rows=1,
        columns=PROMPT + NEW_TOKENS,
        precision=precision,  # type: ignore[arg-type]
    )
    best = 0.0
    for _ in range(3):
        engine.add(Request(prompt_tokens(), 1, NEW_TOKENS, TEMPERATURE, TOP_P))
        list(engine.advance())  # reads the prompt, draws two tokens
        start = time.perf_counter()
        steps = 0
        while not engine.idle:
            list(engine.advance())
            steps += 1
        best = max(best, steps / (time.perf_counter() - start))
    return best


def profile(model: Any, precision: str) -> dict[str, float]:
    """Milliseconds of one step of 200 rows, halfway through: products, choosing tokens, and all the rest."""
    import torch

    from kringle.generation.decoder import Decoder, Sharing
    from kringle.generation.selection import Truncation, select

    decoder = Decoder(model, rows=SAMPLES, columns=NEW_TOKENS, vocab_size=VOCABULARY, precision=precision)  # type: ignore[arg-type]
    prompt = decoder.prefill(prompt_tokens())
    half = NEW_TOKENS // 2
    tokens = torch.arange(SAMPLES)
    positions, columns = torch.full((SAMPLES,), PROMPT + half), torch.full((SAMPLES,), half)
    truncation = Truncation(np.full(SAMPLES, TEMPERATURE), np.full(SAMPLES, TOP_P), np.zeros(SAMPLES, np.int64))
    uniforms = np.linspace(0, 1, SAMPLES, endpoint=False)
    logits = decoder.step(tokens, positions, columns, [Sharing(prompt, None)])

    x, inner = torch.randn(SAMPLES, WIDTH), torch.randn(SAMPLES, 4 * WIDTH)

    def best(run: Callable[[], object]) -> float:
        run()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times) * 1000

    with torch.inference_mode():
        multiply = best(lambda: run_products(decoder, x, inner))
    model_step = best(lambda: decoder.step(tokens, positions, columns, [Sharing(prompt, None)]))
    choose = best(lambda: select(logits, truncation, uniforms))
    return {"products_ms": multiply, "attention_and_rest_ms": model_step - multiply, "selection_ms": choose}


def run_products(decoder: Any, x: Any, inner: Any) -> None:
    """The matrix products of one step, nothing else; x (R, E) and inner (R, 4 E) stand for what they multiply."""
    for layer in decoder.blocked.layers:
        layer.attention_in(x)
        layer.attention_out(x)
        layer.mlp_in(x)
        layer.mlp_out(inner)
    decoder.blocked.output(x)


def bandwidth() -> float:
    """Bytes per second at which one core, or all, read memory: the better of both."""
    import torch

    data = torch.ones(1 << 26)
    threads, best = torch.get_num_threads(), 0.0
    for count in (1, threads):
        torch.set_num_threads(count)
        best = max(best, _rate(lambda: int(data.sum() * 0) + data.numel() * 4, 4))
    torch.set_num_threads(threads)
    return best


def product_rate(precision: str) -> float:
    """Multiply-adds times two per second of one large packed product, 2,048 rows wide."""
    import torch

    from kringle.generation.weights import Matrix

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = Matrix(torch.randn(4 * WIDTH, WIDTH), None, dtype, 2048)
    x = torch.randn(2048, WIDTH).to(dtype)
    with torch.inference_mode():
        matrix(x)
        return _rate(lambda: 2 * matrix(x).numel() * WIDTH, 6)


def measure(peers: Peers) -> Measured:
    import torch

    if torch.cuda.is_available():
        from kringle.bench.gpu.generate import measure as measure_on_gpu

        return measure_on_gpu(peers)
    from kringle.generation.weights import choose_precision

    precision = choose_precision("auto", torch.device("cpu"))
    read, multiply = bandwidth(), product_rate(precision)
    table: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {"precision": precision, "bandwidth_bytes_per_second": read, "flops": multiply}
    attentions: tuple[Literal["mqa", "mha"], ...] = ("mqa", "mha")
    for attention in attentions:
        model = make_model(attention)
        rows: dict[str, float] = {
            f"single {precision}": ours(model, 1, precision),
            f"single {precision}, prompt read": decoding(model, precision),
            "single int8": ours(model, 1, "int8"),
            "single int8, prompt read": decoding(model, "int8"),
            f"batch {BATCH}": ours(model, BATCH, precision),
            f"{SAMPLES} samples": ours(model, SAMPLES, precision),
            f"{SAMPLES} samples fp32": ours(model, SAMPLES, "fp32", new_tokens=16, repetitions=1),
        }
        table[f"kringle {attention}"] = rows
        weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "wpe" not in name)
        size = 2 if precision == "bf16" else 4
        details[attention] = {
            "parameters": model.config.parameters,
            "key_value_bytes_per_token": model.config.key_value_bytes_per_token // 2 * size,
            "single_ceiling": read / (weights * size),
            "single_int8_ceiling": read / weights,
            "many_ceiling": multiply / (2 * weights),
            "profile": profile(model, precision),
        }
    found, absent = _peers(peers) if peers.wanted else ({}, [])
    table |= found
    best = table["kringle mqa"][f"{SAMPLES} samples"]
    return Measured(
        unit="tokens/s",
        ours=best,
        peers={name: rates[f"{SAMPLES} samples"] for name, rates in found.items() if f"{SAMPLES} samples" in rates},
        absent=absent,
        utilisation=best / details["mqa"]["many_ceiling"],
        details={**details, "rates": table},
        lines=_lines(table, details, absent, precision),
    )


def _lines(table: dict[str, dict[str, float]], details: dict[str, Any], absent: list[str], precision: str) -> list[str]:
    read, flops = details["bandwidth_bytes_per_second"] / 1e9, details["flops"] / 1e9
    lines = [f"memory reads {read:.1f} GB/s, products {flops:.0f} GFLOP/s ({precision}); tokens per second:"]
    for name, rates in table.items():
        lines.append(f"  {name:20} " + ", ".join(f"{case} {rate:,.0f}" for case, rate in rates.items()))
    for attention in ("mqa", "mha"):
        d, rates = details[attention], table[f"kringle {attention}"]
        p = d["profile"]
        lines += [
            f"{attention}: {d['key_value_bytes_per_token']:,} bytes of keys and values per token; single stream "
            f"{rates[f'single {precision}, prompt read'] / d['single_ceiling']:.0%} of what memory allows "
            f"({precision}), {rates['single int8, prompt read'] / d['single_int8_ceiling']:.0%} (int8), bound by "
            f"reading weights",
            f"     {SAMPLES} samples at {rates[f'{SAMPLES} samples'] / d['many_ceiling']:.0%} of what products "
            f"allow; a step of {SAMPLES} rows: products {p['products_ms']:.0f} ms, attention and the rest "
            f"{p['attention_and_rest_ms']:.0f} ms, choosing tokens {p['selection_ms']:.0f} ms",
        ]
    return lines + [f"absent: {reason}" for reason in absent]


def _peers(peers: Peers) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Rates of every peer that runs, and the reasons for those that do not."""
    found: dict[str, dict[str, float]] = {}
    absent = []
    with tempfile.TemporaryDirectory(prefix="kringle-bench-") as scratch:
        job = Path(scratch) / "job.json"
        attentions: tuple[Literal["mqa", "mha"], ...] = ("mqa", "mha")
        for attention in attentions:
            folder = Path(scratch) / attention
            _save_for_peers(make_model(attention), folder)
            job.write_text(
                json.dumps(
                    {
                        "model": str(folder),
                        "attention": attention,
                        "prompt": prompt_tokens(),
                        "new_tokens": NEW_TOKENS,
                        "samples": SAMPLES,
                        "batch": BATCH,
                        "temperature": TEMPERATURE,
                        "top_p": TOP_P,
                        "vocabulary": VOCABULARY,
                    }
                )
            )
            for name in PEERS:
                rates, why = peers.run(name, Path(__file__).parent / "peers" / "generate.py", name, str(job))
                if rates is None:
                    absent.append(f"{name} {attention}: {why}")
                else:
                    found[f"{name} {attention}"] = rates
    return found, absent


def save_without_tokenizer(model: Any, folder: Path) -> None:
    """Configuration and weights of a `gpt_bigcode` directory."""
    import safetensors.torch

    from kringle.model.exchange import hugging_face_config

    folder.mkdir(parents=True)
    config = hugging_face_config(model.config, Vocabulary(model.config.vocab_size))  # type: ignore[arg-type]
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name: p.detach().cpu().contiguous() for name, p in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _save_for_peers(model: Any, folder: Path) -> None:
    """A `gpt_bigcode` directory with a tokenizer file that has the right number of entries."""
    import tokenizers

    save_without_tokenizer(model, folder)
    entries = {f"t{i}": i for i in range(VOCABULARY)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(entries, unk_token="t0"))
    backend.save(str(folder / "tokenizer.json"))
    end = f"t{VOCABULARY - 5}"
    roles = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "t0", "bos_token": end, "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
