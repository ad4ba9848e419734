"""Greedy text against `transformers`' GPTBigCode with the same weights, both attentions, many batch sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from kringle.generation.engine import generate
from kringle.generation.requests import Request
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream, torch_seed
from kringle.tokens.tokenizer import Specials

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY, CONTEXT, NEW_TOKENS, PROMPTS = 160, 64, 24, 64
CLOSE = 1e-4  # logits: two engines that add in different orders may take either of two tokens this close


class Vocabulary:
    specials = Specials.after(VOCABULARY - 5)
    token_bytes = tuple(bytes([i % 256]) for i in range(VOCABULARY))
    vocab_size = VOCABULARY


def pair(attention: str, heads: int) -> tuple[Transformer, GPTBigCodeForCausalLM]:
    """Our model with random parameters (biases and LayerNorms too) and theirs holding the same."""
    config = ModelConfig(3, 48, heads, attention, CONTEXT, VOCABULARY)  # type: ignore[arg-type]
    ours = Transformer(config)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            generator = torch.Generator().manual_seed(torch_seed(11, "test", name))
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.25, generator=generator)
    theirs = GPTBigCodeForCausalLM(
        GPTBigCodeConfig(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=48,
            n_layer=3,
            n_head=heads,
            multi_query=attention == "mqa",
            activation_function="gelu_pytorch_tanh",
            layer_norm_epsilon=1e-5,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert set(missing.missing_keys) <= {"lm_head.weight"}  # tied
    return ours, theirs


def greedy_of_transformers(theirs: GPTBigCodeForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """Left-padded, as `generate` needs it; up to and including the token that ends the text."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    ends = list(vars(Vocabulary.specials).values())
    out = theirs.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=ends, pad_token_id=0
    )
    texts = []
    for row in out[:, longest:].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
        texts.append(row[: end + 1])
    return texts


def tie(theirs: GPTBigCodeForCausalLM, prompt: list[int], a: list[int], b: list[int]) -> bool:
    """Whether two texts part at a position where the two highest logits are as good as equal."""
    at = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    with torch.no_grad():
        highest = theirs(torch.tensor([prompt + a[:at]])).logits[0, -1].topk(2).values
    return bool(highest[0] - highest[1] < CLOSE)


@pytest.mark.parametrize(("attention", "heads"), [("mqa", 4), ("mha", 4), ("mqa", 1), ("mha", 6)])
def test_greedy_text_equals_transformers(
    attention: str, heads: int, record_property: Callable[[str, object], None]
) -> None:
    ours, theirs = pair(attention, heads)
    random = stream(0, "test", "parity", attention, heads)
    lengths = random.integers(1, CONTEXT - NEW_TOKENS, PROMPTS)
    prompts = [random.integers(0, VOCABULARY - 5, int(length)).tolist() for length in lengths]
    ties = compared = 0
    expected: dict[int, list[int]] = {}
    for batch in (1, 2, 7, 64):  # theirs in batches, ours in as many rows
        for start in range(0, min(PROMPTS, 4 * batch), batch):
            texts = greedy_of_transformers(theirs, prompts[start : start + batch])
            expected.update(zip(range(start, start + batch), texts, strict=False))
        requests = [
            Request(prompt, max_new_tokens=NEW_TOKENS, temperature=0.0, key=str(i))
            for i, prompt in enumerate(prompts[: 4 * batch])
        ]
        for completion in generate(ours, Vocabulary(), requests, rows=batch):
            theirs_text, number = expected[completion.request], completion.request
            compared += 1
            if completion.tokens != theirs_text:
                assert tie(theirs, prompts[number], completion.tokens, theirs_text)
                ties += 1
    record_property("texts that part at a tie", f"{ties} of {compared}")
    assert compared == 4 + 8 + 28 + 64
    assert len({tuple(text) for text in expected.values()}) > PROMPTS // 2  # the texts are not all one


def test_many_samples_of_one_prompt_are_all_the_greedy_text() -> None:
    """The samples share the prompt's keys and values; at temperature 0 all are the one greedy text."""
    ours, theirs = pair("mha", 4)
    prompt = stream(0, "test", "one prompt").integers(0, VOCABULARY - 5, CONTEXT - NEW_TOKENS).tolist()
    samples = 2 + (1 << 20) // (len(prompt) * 2 * 48 * 4)  # enough that sharing pays
    request = Request(prompt, samples=samples, max_new_tokens=NEW_TOKENS, temperature=0.0)
    texts = {tuple(completion.tokens) for completion in generate(ours, Vocabulary(), [request], rows=50)}
    assert texts == {tuple(greedy_of_transformers(theirs, [prompt])[0])}
