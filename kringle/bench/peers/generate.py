"""One engine's sampling rates: `python generate.py ENGINE JOB.json` prints them as one line of JSON.

Runs in the engine's own environment and imports nothing of Kringle. Each case is run at the types that the engine has
on this processor, with what it offers for samples of one prompt, and the best rate counts; transformers draws the many
samples in the type alone that was faster for the batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rates = dict[str, float]


def best(cases: dict[str, Callable[[], int]]) -> float:
    """Tokens per second of the fastest case."""
    return max(map(rate_of, cases.values()))


def rate_of(run: Callable[[], int]) -> float:
    """Tokens per second of a case, after one run to warm up and one that counts."""
    run()
    start = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - start)


def transformers(job: dict[str, Any]) -> Rates:
    import torch
    from transformers import AutoModelForCausalLM

    kinds = (torch.float32, torch.bfloat16)
    models: Any = {dtype: AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype) for dtype in kinds}
    prompt = torch.tensor([job["prompt"]])

    def run(dtype: torch.dtype, samples: int, chunk: int) -> int:
        drawn = 0
        for _ in range(0, samples, chunk):
            out = models[dtype].generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                temperature=job["temperature"],
                top_p=job["top_p"],
                top_k=0,
                num_return_sequences=min(chunk, samples),
                max_new_tokens=job["new_tokens"],
                min_new_tokens=job["new_tokens"],
            )
            drawn += out.shape[0] * (out.shape[1] - prompt.shape[1])
        return drawn

    faster: dict[str, Any] = {}  # the type that won at the batch: the samples take minutes, and are run in that one

    def rate(samples: int) -> float:
        kinds = faster.values() if samples == job["samples"] else models
        rates = {d: rate_of(lambda d=d: run(d, samples, samples)) for d in kinds}  # type: ignore[misc]
        faster["type"] = max(rates, key=rates.__getitem__)
        return rates[faster["type"]]

    return _cases(job, rate)


def ctranslate2(job: dict[str, Any]) -> Rates:
    import ctranslate2 as engine

    if job["attention"] == "mha":
        raise SystemExit("its loader of gpt_bigcode knows multi-query attention only")
    folder = job["model"] + "-ct2"
    engine.converters.TransformersConverter(job["model"]).convert(folder, force=True)
    tokens = [f"t{i}" for i in job["prompt"]]
    kinds = sorted({"float32", "int8_float32", "bfloat16"} & engine.get_supported_compute_types("cpu"))
    generators = {kind: engine.Generator(folder, compute_type=kind, intra_threads=2) for kind in kinds}

    def run(kind: str, samples: int) -> int:
        out = generators[kind].generate_batch(
            [tokens] * samples,
            max_batch_size=min(samples, job["batch"]),
            max_length=job["new_tokens"],
            min_length=job["new_tokens"],
            sampling_temperature=job["temperature"],
            sampling_topk=0,
            sampling_topp=job["top_p"],
            include_prompt_in_result=False,
        )
        return sum(len(result.sequences_ids[0]) for result in out)

    def rate(samples: int) -> float:
        return best({kind: lambda kind=kind: run(kind, samples) for kind in kinds})  # type: ignore[misc]

    return _cases(job, rate)


def vllm(job: dict[str, Any]) -> Rates:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    model = LLM(model=job["model"], dtype="bfloat16", max_model_len=512, max_num_seqs=256, skip_tokenizer_init=True)

    def run(samples: int) -> int:
        settings = SamplingParams(
            n=samples,
            temperature=job["temperature"],
            top_p=job["top_p"],
            max_tokens=job["new_tokens"],
            min_tokens=job["new_tokens"],
            ignore_eos=True,
            detokenize=False,
        )
        out = model.generate([{"prompt_token_ids": job["prompt"]}], settings, use_tqdm=False)
        return sum(len(sample.token_ids) for sample in out[0].outputs)

    return _cases(job, lambda samples: best({"bfloat16": lambda: run(samples)}))


def llama_cpp(job: dict[str, Any]) -> Rates:
    import llama_cpp  # noqa: F401

    raise SystemExit("its Python interface samples one stream at a time and needs a GGUF file of this model")


def _cases(job: dict[str, Any], rate: Callable[[int], float]) -> Rates:
    return {
        "single": rate(1),
        f"batch {job['batch']}": rate(job["batch"]),
        f"{job['samples']} samples": rate(job["samples"]),
    }


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[2]).read_text())
    run = {"transformers": transformers, "ctranslate2": ctranslate2, "vllm": vllm, "llama-cpp": llama_cpp}
    print(json.dumps(run[sys.argv[1]](settings)))
