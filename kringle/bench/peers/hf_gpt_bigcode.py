"""Peer of `kringle bench train`: GPTBigCode of transformers, bfloat16 autocast, fused AdamW. Run by its path.

Argument: the job as JSON. Prints one line of JSON: tokens per second by way of running it, and why another way failed.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

job = json.loads(sys.argv[1])
device = torch.device(job["device"])
if job["threads"]:
    torch.set_num_threads(job["threads"])
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
model.to(device)  # type: ignore[arg-type]
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
tokens = torch.randint(0, job["vocabulary"], (job["rows"], job["context"]), device=device)


def now() -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def step(forward: Callable[..., Any]) -> float:
    started = now()
    for _ in range(job["micro_batches"]):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = forward(input_ids=tokens, labels=tokens).loss / job["micro_batches"]
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return now() - started


rates: dict[str, float] = {}
failed: dict[str, str] = {}
for way in job["ways"]:
    try:
        forward = torch.compile(model) if way == "compiled" else model
        times = [step(forward) for _ in range(job["warm"] + job["timed"])]
        rates[way] = job["rows"] * job["context"] * job["micro_batches"] / min(times[job["warm"] :])
    except Exception as error:  # whatever it is, another way of running it may do
        failed[way] = f"{type(error).__name__}: {str(error)[:200]}"
if not rates:
    sys.exit("; ".join(f"{way}: {why}" for way, why in failed.items()))
print(json.dumps({"rates": rates, "failed": failed}))
