"""Run in vLLM's own environment by `benchmarks/evidence/generation.py`: what vLLM makes of a model and some prompts.

    ENV/bin/python vllm_scores.py MODEL < {"prompts": [[ids]], "new_tokens": N}

Prints one line of JSON: for each prompt the log-probabilities of its tokens (but the first) and the tokens of its
greedy continuation, in float32.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def main() -> None:
    from vllm import LLM, SamplingParams

    job: dict[str, Any] = json.load(sys.stdin)
    longest = max(map(len, job["prompts"])) + job["new_tokens"]
    model = LLM(model=sys.argv[1], dtype="float32", max_model_len=longest, max_num_seqs=8, skip_tokenizer_init=True)
    settings = SamplingParams(
        temperature=0, max_tokens=job["new_tokens"], prompt_logprobs=0, ignore_eos=True, detokenize=False
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    found = []
    for prompt, out in zip(job["prompts"], model.generate(prompts, settings, use_tqdm=False), strict=True):
        scores = [float(given[id].logprob) for id, given in zip(prompt[1:], out.prompt_logprobs[1:], strict=True)]
        found.append({"scores": scores, "tokens": list(out.outputs[0].token_ids)})
    print("SCORES " + json.dumps(found))


if __name__ == "__main__":
    main()
