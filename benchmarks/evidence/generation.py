"""Evidence for sampling and exchange: `make evidence generation`, or with parts and a trained model as arguments.

    python benchmarks/evidence/generation.py [--model DIR]... [--part greedy,draws,same,int8,exchange,vllm,santacoder]

greedy      200 real prompts, left to right and fill-in-the-middle, batches of 1 to 200, against transformers' generate;
            texts may part only where the two highest logits lie within 1e-4, and those are counted
draws       chi-square of 100,000 draws against exact probabilities for several settings, ties and certainty among them
same        10,000 samples drawn at two numbers of rows and in two orders: how many are equal, fp32, bf16, invariant
int8        bits per byte of source files under int8 and bf16 weights less those under fp32 (needs a trained model)
exchange    every format: the engine that ran it and the largest difference of logits
vllm        what vLLM makes of the same folder (its environment is named with --vllm): the largest difference of the
            log-probabilities of 20 real prompts' tokens, and how many greedy continuations are the same
santacoder  a checkpoint of the released layout and size (1,124,886,528 parameters, float16), written, read by path
            and compared; needs 8 GB of memory

Without --model the models have random weights, of both kinds of attention, and a tokenizer trained on this package.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kringle.generation.engine import generate
from kringle.generation.fim import infilling_prompt, left_to_right_prompt
from kringle.generation.requests import Request
from kringle.generation.selection import Truncation, select
from kringle.machine import machine, versions
from kringle.model import exchange
from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer
from kringle.randomness import stream
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "generation_evidence.json"
PROMPTS, NEW_TOKENS, CLOSE = 200, 32, 1e-4
ROWS = (1, 7, 32, 200)
PARTS = ("greedy", "draws", "same", "int8", "exchange", "vllm", "santacoder")


def own_sources() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / "kringle").rglob("*.py"))]


def sources() -> Iterator[str]:
    """Files of the standard library."""
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > 4000:
            yield text


def random_models(folder: Path) -> list[Path]:
    tokenizer = train_tokenizer(own_sources(), 2048, folder / "tokenizer")
    made = []
    for attention in ("mqa", "mha"):
        config = ModelConfig(4, 128, 4, attention, 256, padded_vocabulary(tokenizer.vocab_size))  # type: ignore[arg-type]
        model = Transformer(config)
        model.initialise(0)
        exchange.save(model, tokenizer, folder / attention)
        made.append(folder / attention)
    return made


def real_prompts(tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Half left to right, half fill-in-the-middle in both orders, cut at places drawn per file."""
    texts, prompts = list(sources()), []
    for i in range(PROMPTS):
        text, random = texts[i % len(texts)], stream(0, "evidence", "prompt", i)
        at = int(random.integers(1000, len(text) - 1000))
        room: dict[str, Any] = {"context": min(context, 192), "new_tokens": NEW_TOKENS}
        if i % 2:
            room["mode"] = "psm" if i % 4 == 1 else "spm"
            prompts.append(infilling_prompt(tokenizer, text[:at], text[at + 80 :], **room))
        else:
            prompts.append(left_to_right_prompt(tokenizer, text[max(0, at - 400) : at], **room))
    return prompts


def greedy(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    theirs = auto.from_pretrained(folder, dtype=torch.float32)
    model, tokenizer = exchange.load(folder)
    prompts, ends = real_prompts(tokenizer, model.config.context), list(vars(tokenizer.specials).values())
    unused = list(range(tokenizer.vocab_size, model.config.vocab_size))
    expected: list[list[int]] = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "eos_token_id": ends, "pad_token_id": ends[-1]}
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), suppress_tokens=unused or None, **settings)
        expected.append(out[0, len(prompt) :].tolist())
    counts = {"compared": 0, "equal": 0, "ties": 0, "different": 0}
    for rows in ROWS:
        requests = [Request(p, max_new_tokens=NEW_TOKENS, temperature=0.0, key=str(i)) for i, p in enumerate(prompts)]
        for completion in generate(model, tokenizer, requests, rows=rows):
            want, got = expected[completion.request], completion.tokens
            counts["compared"] += 1
            if want == got:
                counts["equal"] += 1
                continue
            at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
            with torch.no_grad():
                logits = theirs(torch.tensor([prompts[completion.request] + want[:at]])).logits[0, -1]
            best = logits[: tokenizer.vocab_size].topk(2).values
            counts["ties" if float(best[0] - best[1]) < CLOSE else "different"] += 1
    return {"model": folder.name, "attention": model.config.attention, "new_tokens": NEW_TOKENS, **counts}


def draws() -> list[dict[str, Any]]:
    """Settings, and the probability of a chi-square as large as the one found."""
    random = stream(0, "evidence", "logits")
    smooth = random.normal(0, 3, 1000)
    tied = np.repeat(random.normal(0, 3, 40), 25)
    certain = np.full(1000, -40.0)
    certain[123] = 60.0
    found = []
    for name, logits in (("smooth", smooth), ("ties", tied), ("certain", certain)):
        for temperature, top_p, top_k in ((1.0, 1.0, 0), (0.8, 0.95, 0), (0.2, 0.95, 0), (1.5, 0.5, 0), (1.0, 0.9, 40)):
            found.append({"logits": name, **_chi_square(logits, temperature, top_p, top_k)})
    return found


def _chi_square(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> dict[str, Any]:
    n, width = 100_000, len(logits)
    rounded = logits.astype(np.float32).astype(np.float64)
    probabilities = np.exp((rounded - rounded.max()) / temperature)
    kept = np.argsort(-probabilities, kind="stable")[: top_k or width]
    mass = probabilities[kept].cumsum()
    kept = kept[: int((mass < top_p * mass[-1]).sum()) + 1] if top_p < 1 else kept
    exact = np.zeros(width)
    exact[kept] = probabilities[kept] / probabilities[kept].sum()
    shape = Truncation(np.full(n, temperature), np.full(n, top_p), np.full(n, top_k))
    uniforms = stream(1, "evidence", "draws", str(temperature), str(top_p), top_k).random(n)
    tokens, _ = select(torch.tensor(logits, dtype=torch.float32)[None], shape, uniforms)
    counts, expected = np.bincount(tokens, minlength=width), exact * n
    big = expected >= 5
    seen = np.append(counts[big], counts[~big].sum())
    wanted = np.append(expected[big], expected[~big].sum())
    some = wanted > 1
    statistic, freedom = float(((seen[some] - wanted[some]) ** 2 / wanted[some]).sum()), int(some.sum()) - 1
    # Wilson and Hilferty's cube-root approximation of the chi-square distribution's tail
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom)) if freedom else 0.0
    return {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "kept": len(kept),
        "outside": int(counts[exact == 0].sum()),
        "chi_square": statistic,
        "degrees_of_freedom": freedom,
        "p_value": 0.5 * math.erfc(z / math.sqrt(2)),
    }


def same(folder: Path) -> list[dict[str, Any]]:
    """100 prompts, 100 samples each."""
    model, tokenizer = exchange.load(folder)
    prompts = real_prompts(tokenizer, model.config.context)[:100]
    requests = [Request(p, 100, NEW_TOKENS, 0.8, 0.95, key=str(i), seed=1) for i, p in enumerate(prompts)]
    found = []
    for precision, invariant in (("fp32", False), ("bf16", False), ("fp32", True)):
        texts = []
        for rows, order in ((256, 1), (37, -1)):
            asked = requests[::order]
            settings: dict[str, Any] = {"rows": rows, "precision": precision, "invariant": invariant}
            texts.append(
                {(asked[c.request].key, c.sample): c.tokens for c in generate(model, tokenizer, asked, **settings)}
            )
        equal = sum(texts[0][key] == texts[1][key] for key in texts[0])
        found.append({"precision": precision, "invariant": invariant, "samples": len(texts[0]), "equal": equal})
        print(folder.name, found[-1], flush=True)
    return found


def int8(folder: Path) -> dict[str, Any]:
    """Teacher-forced bits of source files in windows; the matrices' rounding alone."""
    from kringle.generation.weights import effective

    model, tokenizer = exchange.load(folder)
    context, bits, size = model.config.context - 8, {}, 0
    windows = []
    for text in list(sources())[:60]:
        ids = [tokenizer.specials.end_of_text, *tokenizer.encode(text[:6000])]
        windows += [ids[i : i + context] for i in range(0, len(ids) - context, context)]
    for precision in ("fp32", "bf16", "int8"):
        copy = Transformer(model.config)
        with torch.no_grad():
            for (name, p), q in zip(model.named_parameters(), copy.parameters(), strict=True):
                matrix = p.dim() == 2 and "wpe" not in name
                q.copy_(effective(p, precision).float() if matrix else p)  # type: ignore[arg-type]
            total, size = 0.0, 0
            for window in windows:
                tokens = torch.tensor([window])
                scores = torch.log_softmax(copy(tokens)[0, :-1, : tokenizer.vocab_size], -1)
                total -= float(scores.gather(1, tokens[0, 1:, None]).double().sum()) / math.log(2)
                size += len(tokenizer.decode_bytes(window[1:]))
        bits[precision] = total / size
    loss = {f"loss_{name}": bits[name] - bits["fp32"] for name in ("bf16", "int8")}
    return {"parameters": model.config.parameters, "bytes": size, "bits_per_byte": bits, **loss}


def exchanged(folder: Path) -> list[dict[str, Any]]:
    from kringle.errors import UserError
    from kringle.model.engines import export_model, import_model

    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for format in ("gpt_bigcode", "santacoder", "ctranslate2", "gguf"):
            try:
                done = export_model(folder, format, Path(scratch) / format)
                found.append({"model": folder.name, **asdict(done), "out": "", "direction": "export"})
            except UserError as error:
                found.append({"model": folder.name, "format": format, "refused": str(error)})
        for format in ("gpt_bigcode", "santacoder"):
            done = import_model(Path(scratch) / format, Path(scratch) / f"{format}-back")
            found.append({"model": folder.name, **asdict(done), "out": "", "direction": "import"})
    return found


def scored_by_vllm(folder: Path, environment: Path) -> dict[str, Any]:
    model, tokenizer = exchange.load(folder)
    prompts = real_prompts(tokenizer, model.config.context)[:20]
    script = ROOT / "benchmarks" / "peers" / "vllm_scores.py"
    done = subprocess.run(
        [environment / "bin" / "python", script, folder],
        input=json.dumps({"prompts": prompts, "new_tokens": NEW_TOKENS}),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SCORES ")]
    if done.returncode or not lines:
        return {"model": folder.name, "failed": done.stderr.strip().splitlines()[-1:]}
    difference, counts = 0.0, {"equal": 0, "ties": 0, "different": 0}
    for prompt, theirs in zip(prompts, json.loads(lines[0].removeprefix("SCORES ")), strict=True):
        whole = prompt + theirs["tokens"]
        with torch.no_grad():
            scores = model(torch.tensor([whole]))[0].log_softmax(-1)
        ours = scores[: len(prompt) - 1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        difference = max(difference, float((ours - torch.tensor(theirs["scores"])).abs().max()))
        chosen = scores[len(prompt) - 1 : -1]
        away = chosen.max(1).values - chosen.gather(1, torch.tensor(theirs["tokens"])[:, None])[:, 0]
        furthest = float(away.max())  # how far the token that vLLM chose lies below the best one, at its worst step
        counts["equal" if not furthest else "ties" if furthest < CLOSE else "different"] += 1
    return {
        "model": folder.name,
        "attention": model.config.attention,
        "prompts": len(prompts),
        "tokens": sum(map(len, prompts)),
        "difference": difference,
        "greedy": counts,
    }


def santacoder_size() -> dict[str, Any]:
    from kringle.model import santacoder
    from kringle.model.engines import TOLERANCE

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "santacoder"
        tokenizer = train_tokenizer(own_sources(), 8000, Path(scratch) / "tokenizer")
        model = Transformer(ModelConfig(24, 2048, 16, "mqa", 2048, 49_280))
        model.initialise(0)
        santacoder.write(model, tokenizer, folder, dtype=torch.float16)
        del model
        loaded, _ = santacoder.read(folder)
        tensors, raw = santacoder.read_tensors(folder), json.loads((folder / "config.json").read_text())
        prompt = tokenizer.encode(own_sources()[0])[:48]
        with torch.no_grad():
            ours = loaded(torch.tensor([prompt]))[0]
        theirs = santacoder.reference_logits(tensors, raw, torch.tensor(prompt))
        difference = float((ours - theirs).abs().max())
        del tensors
        size = (folder / "model.safetensors").stat().st_size
    return {
        "parameters": sum(p.numel() for p in loaded.parameters()),
        "file_bytes": size,
        "difference": difference,
        "within": difference < TOLERANCE,
        "seconds": time.perf_counter() - start,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="append", type=Path, default=[])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--part", default=",".join(part for part in PARTS if part not in ("int8", "vllm")))
    parser.add_argument("--vllm", type=Path, help="a virtual environment with vLLM for CPUs, for the part vllm")
    arguments = parser.parse_args()
    out: Path = arguments.out
    record: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        models = arguments.model or random_models(Path(scratch))
        for part in arguments.part.split(","):
            if part == "draws":
                record[part] = draws()
            elif part == "santacoder":
                record[part] = santacoder_size()
            elif part == "exchange":
                record[part] = [row for model in models for row in exchanged(model)]
            elif part == "vllm":
                if arguments.vllm is None:
                    parser.error("part vllm needs --vllm ENV")
                record[part] = [scored_by_vllm(model, arguments.vllm) for model in models]
            else:
                run: Any = {"greedy": greedy, "same": same, "int8": int8}[part]
                record[part] = [run(model) for model in models]
            print(part, json.dumps(record[part]), flush=True)
            record |= {"machine": asdict(machine()), "versions": versions()}
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n")
    bad = [row for row in record.get("greedy", []) if row["different"]]
    bad += [row for row in record.get("vllm", []) if row.get("failed") or row["greedy"]["different"]]
    bad += [row for row in record.get("draws", []) if row["p_value"] < 1e-4 or row["outside"]]
    least = {True: 1.0, False: 0.999}  # of all samples, with `invariant` and without
    bad += [r for rows in record.get("same", []) for r in rows if r["equal"] < least[r["invariant"]] * r["samples"]]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
