"""`transformers`' sampling rates on a GPU: `python generate_cuda.py JOB.json` prints them as one line of JSON.

Runs in its own environment and imports nothing of Kringle. Greedy texts of both models of the job come first. Then each
case is run with a cache that grows and with one of fixed size, and the best rate counts; with `compile`, the single
stream alone, with its compiled step.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def load(folder: str, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return model.to("cuda").eval()


def greedy(model: Any, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    """The texts of prompts of one length, and the gap between the two highest logits at each token."""
    import torch

    ids = torch.tensor(prompts, device="cuda")
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        return_dict_in_generate=True,
        output_logits=True,
    )
    highest = torch.stack([logits.float().topk(2).values for logits in out.logits], dim=1)  # (B, T, 2)
    return {
        "tokens": out.sequences[:, ids.shape[1] :].tolist(),
        "gaps": (highest[..., 0] - highest[..., 1]).tolist(),
    }


def rate(model: Any, job: dict[str, Any], samples: int, settings: dict[str, Any], warm: int) -> float:
    """Tokens per second after runs of `warm` tokens."""
    import torch

    prompt = torch.tensor([job["prompt"]], device="cuda")

    def run(new: int) -> int:
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            temperature=job["temperature"],
            top_p=job["top_p"],
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=new,
            min_new_tokens=new,
            **settings,
        )
        torch.cuda.synchronize()
        return int(out.shape[0] * (out.shape[1] - prompt.shape[1]))

    run(warm)
    start = time.perf_counter()
    tokens = run(job["new_tokens"])
    return tokens / (time.perf_counter() - start)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    if job.get("compile"):
        model = load(job["model"], torch.bfloat16)
        settings = {"cache_implementation": "static"}  # compiles the step by itself
        return {"rates": {"single": rate(model, job, 1, settings, job["new_tokens"])}}
    little = load(job["small"], torch.float32)
    found: dict[str, Any] = {"small": greedy(little, job["small_greedy"], job["greedy_tokens"])}
    model = load(job["model"], torch.bfloat16)
    found["large"] = greedy(model, job["greedy"], job["greedy_tokens"])
    caches: dict[str, dict[str, Any]] = {
        "dynamic": {},
        "static": {"cache_implementation": "static", "disable_compile": True},
    }
    found |= {"rates": {}, "caches": {}, "peak_bytes": {}}
    for case, samples in job["cases"].items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        tried = {}
        for name, settings in caches.items():
            try:
                tried[name] = rate(model, job, samples, settings, 4)
            except Exception as error:  # one kind of cache may be missing: the other one counts
                print(f"{case}, {name}: {error}", file=sys.stderr)
        found["rates"][case] = max(tried.values())
        found["caches"][case] = tried
        found["peak_bytes"][case] = torch.cuda.max_memory_allocated()
    return found


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
