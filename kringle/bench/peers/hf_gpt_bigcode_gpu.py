"""Peer of `kringle bench train` on a GPU: GPTBigCode of transformers, bf16 autocast, fused AdamW. Run by its path.

Argument: the job as JSON. Prints one line of JSON: tokens per second, plain and compiled.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

job = json.loads(sys.argv[1])
torch.manual_seed(0)
model = transformers.GPTBigCodeForCausalLM(
    transformers.GPTBigCodeConfig(
        vocab_size=job["vocabulary"],
        n_positions=job["context"],
        n_embd=job["width"],
        n_layer=job["layers"],
        n_head=job["heads"],
        multi_query=True,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )
)
model.to(torch.device("cuda"))  # type: ignore[arg-type]
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
tokens = torch.randint(0, job["vocabulary"], (job["rows"], job["context"]), device="cuda")


def step(forward: Callable[..., Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(job["micro_batches"]):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = forward(input_ids=tokens, labels=tokens).loss / job["micro_batches"]
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    return time.perf_counter() - started


rates: dict[str, float] = {}
failed: dict[str, str] = {}
for kind in ("plain", "compiled"):
    try:
        forward = model if kind == "plain" else torch.compile(model)
        times = [step(forward) for _ in range(job["warm"] + job["timed"])]
        rates[kind] = job["rows"] * job["context"] * job["micro_batches"] / min(times[job["warm"] :])
    except Exception as error:  # whatever it is, the other way of running it may do
        failed[kind] = f"{type(error).__name__}: {str(error)[:200]}"
print(json.dumps({"rates": rates, "failed": failed, "memory_bytes": torch.cuda.max_memory_allocated()}))
