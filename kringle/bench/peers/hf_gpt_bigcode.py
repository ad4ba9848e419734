"""Peer of `kringle bench train`: GPTBigCode of transformers, bfloat16 autocast, fused AdamW. Run by its path.

Arguments: threads, rounds. Prints one line of JSON.
"""

import json
import sys
import time

import torch
import transformers

THREADS, ROUNDS = (int(x) for x in sys.argv[1:])
ROWS, CONTEXT, VOCABULARY = 8, 512, 16_384

torch.set_num_threads(THREADS)
torch.manual_seed(0)
model = transformers.GPTBigCodeForCausalLM(
    transformers.GPTBigCodeConfig(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=384,
        n_layer=8,
        n_head=6,
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
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
tokens = torch.randint(0, VOCABULARY, (ROWS, CONTEXT))
times = []
for _ in range(ROUNDS + 1):
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - started)
print(json.dumps({"tokens_per_second": ROWS * CONTEXT / min(times[1:]), "seconds": times}))
