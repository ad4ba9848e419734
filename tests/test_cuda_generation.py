"""Sampling on a CUDA device: greedy text against `transformers`, recorded steps against plain ones, choosing tokens.

These need a GPU, and nothing but pytest, torch, numpy and transformers beside Kringle (`pytest --noconftest` where
hypothesis is missing)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from kringle.bench.generate import Vocabulary
from kringle.generation.decoder import NONE_SHARED, Decoder
from kringle.generation.engine import Engine, generate
from kringle.generation.graphs import Steps
from kringle.generation.requests import Completion, Piece, Request
from kringle.generation.selection import Truncation, choose_by_sorting, chooser, place, select, select_on_device
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream, torch_seed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, this machine has none")

SIZE, CONTEXT = 400, 256
TOKENS = Vocabulary(SIZE)


def make_model(attention: str, positions: str = "learned") -> Transformer:
    """Every parameter at random, special tokens improbable."""
    model = Transformer(ModelConfig(3, 64, 4, attention, CONTEXT, SIZE, positions))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(torch_seed(7, "test", name))
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.2, generator=generator)
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[SIZE - 5 :, 0] = -5.0
    return model.cuda().eval()


@pytest.fixture(scope="module", params=["mqa", "mha"])
def model(request: pytest.FixtureRequest) -> Transformer:
    return make_model(request.param)


def prompts(count: int, longest: int = 150) -> list[list[int]]:
    random = stream(0, "test", "prompts")
    return [random.integers(0, SIZE - 5, int(random.integers(1, longest))).tolist() for _ in range(count)]


def texts(model: Transformer, wanted: Sequence[Request], rows: int, graphs: bool = True) -> dict[Any, list[int]]:
    done = list(generate(model, TOKENS, wanted, rows=rows, graphs=graphs))
    assert len(done) == sum(request.samples for request in wanted)
    return {(c.request, c.sample): c.tokens for c in done}


def different(a: dict[Any, list[int]], b: dict[Any, list[int]]) -> float:
    """Share of texts: a uniform may fall within a rounding of a border."""
    assert a.keys() == b.keys()
    return sum(a[name] != b[name] for name in a) / len(a)


def mixed(samples: int = 12) -> list[Request]:
    chance = stream(1, "test", "mixed")
    return [
        Request(
            prompt,
            samples=int(chance.integers(1, samples)),
            max_new_tokens=int(chance.integers(1, 40)),
            temperature=float(chance.choice([0.0, 0.8, 1.1])),
            top_p=float(chance.choice([0.9, 1.0])),
            top_k=None if chance.random() < 0.7 else 20,
            key=f"{i}",
        )
        for i, prompt in enumerate(prompts(14))
    ]


@pytest.mark.parametrize("rows", [1, 5, 32])
def test_greedy_text_equals_transformers(model: Transformer, rows: int) -> None:
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    theirs = GPTBigCodeForCausalLM(
        GPTBigCodeConfig(
            vocab_size=SIZE,
            n_positions=CONTEXT,
            n_embd=64,
            n_layer=3,
            n_head=4,
            multi_query=model.config.attention == "mqa",
            activation_function="gelu_pytorch_tanh",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=SIZE - 5,
            eos_token_id=SIZE - 5,
            pad_token_id=SIZE - 1,
        )
    )
    assert not theirs.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    theirs.tie_weights()
    theirs = theirs.cuda().eval()
    wanted = prompts(12)
    ours = texts(model, [Request(prompt, max_new_tokens=24, temperature=0.0) for prompt in wanted], rows)
    for number, prompt in enumerate(wanted):
        ids = torch.tensor([prompt], device="cuda")
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        assert ours[number, 0] == out[0, len(prompt) :].tolist()
    assert len({tuple(text) for text in ours.values()}) > 6


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_recorded_steps_have_the_logits_of_plain_ones(model: Transformer, positions: str) -> None:
    if positions == "rotary":
        model = make_model(model.config.attention, "rotary")
    plain, recorded = (Decoder(model, rows=7, columns=12, vocab_size=SIZE) for _ in range(2))
    steps, chance = Steps(recorded, record=True), stream(0, "test", "recorded")
    owners = np.full(5, NONE_SHARED)
    for count in range(8):
        arrays = (chance.integers(0, SIZE, 5), np.full(5, count), np.full(5, count))
        expected = plain.step(*(place(array, plain.device) for array in arrays), [], count + 1)
        found = steps.step(*arrays, owners, [])
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert [graph is not None for graph in steps.graphs.values()] == [True]


def test_200_samples_of_one_prompt(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kringle.generation.memory.SHARED_BYTES", 1)
    wanted = [Request(prompts(1)[0], samples=200, max_new_tokens=40, temperature=0.8, top_p=0.95, seed=4)]
    recorded, plain = (texts(model, wanted, 200, graphs) for graphs in (True, False))
    assert different(recorded, plain) <= 0.01
    assert different(recorded, texts(model, wanted, 200)) == 0
    assert different(recorded, texts(model, wanted, 64)) <= 0.01
    assert len({tuple(text) for text in recorded.values()}) > 100


@pytest.mark.parametrize("shared", [1, 40_000, 1 << 40])
def test_many_prompts_at_once(model: Transformer, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end and begin all the time; all prompts are shared by their samples, some are, none is."""
    monkeypatch.setattr("kringle.generation.memory.SHARED_BYTES", shared)
    wanted = mixed()
    recorded = texts(model, wanted, 24)
    assert different(recorded, texts(model, wanted, 24, graphs=False)) <= 0.02
    # Without numba: its versions and numpy's must fit each other, which is not what is tested here.
    monkeypatch.setattr("kringle.generation.selection._is_installed", lambda package: package != "numba")
    on_cpu = Transformer(model.config)
    on_cpu.load_state_dict(model.state_dict())
    assert different(recorded, texts(on_cpu.eval(), wanted, 24)) <= 0.05


def run(engine: Engine) -> list[Completion | Piece]:
    events: list[Any] = []
    while not engine.idle:
        events += engine.advance()
    return events


def test_the_engine_records_and_is_used_again(model: Transformer) -> None:
    engine = Engine(model, TOKENS, rows=8, columns=100)
    assert engine.steps is not None
    found = []
    for _ in range(3):
        engine.add(Request([1, 2, 3], samples=8, max_new_tokens=20, temperature=0.9))
        found.append({e.sample: e.tokens for e in run(engine) if isinstance(e, Completion)})
    assert different(found[1], found[2]) == 0
    assert different(found[0], found[1]) <= 0.125
    assert any(graph is not None for graph in engine.steps.graphs.values())


def test_a_stop_string_ends_a_text(model: Transformer) -> None:
    done = list(generate(model, TOKENS, [Request([5, 6], samples=9, max_new_tokens=30, stops=(b"xxxx",))], rows=4))
    assert [(c.finish, len(c.tokens), c.text) for c in done] == [("stop", 4, b"")] * 9


def test_one_request_is_cancelled_and_the_others_go_on(model: Transformer) -> None:
    engine = Engine(model, TOKENS, rows=8, columns=60)
    first, second = (engine.add(Request([9, i], samples=4, max_new_tokens=30, key=str(i))) for i in (1, 2))
    for _ in range(5):
        list(engine.advance())
    ended = engine.cancel(first)
    assert [c.finish for c in ended] == ["cancelled"] * 4
    assert all(len(c.tokens) == 6 for c in ended)
    rest = [e for e in run(engine) if isinstance(e, Completion)]
    assert [(c.request, c.finish, len(c.tokens)) for c in rest] == [(second, "length", 30)] * 4
    alone = texts(model, [Request([9, 2], samples=4, max_new_tokens=30, key="2")], 4)
    assert sum(alone[0, c.sample] != c.tokens for c in rest) <= 1


def test_streamed_tokens_come_with_alternatives(model: Transformer) -> None:
    engine = Engine(model, TOKENS, rows=2, columns=40)
    engine.add(Request([4], samples=2, max_new_tokens=5, temperature=0.0, alternatives=3), streaming=True)
    events = run(engine)
    pieces = [e for e in events if isinstance(e, Piece)]
    assert len(pieces) == 10
    for piece in pieces:
        (best, score), second, third = piece.alternatives
        assert best == piece.token
        assert abs(score - piece.log_probability) < 1e-4
        assert score >= second[1] >= third[1]


def test_log_probabilities_in_bfloat16_are_near_those_of_the_uncached_model(model: Transformer) -> None:
    half = Transformer(model.config).cuda().eval()
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16)
    exact = Transformer(model.config).cuda().eval()
    exact.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    wanted = [
        Request(prompt, samples=5, max_new_tokens=16, temperature=0.8, key=str(i))
        for i, prompt in enumerate(prompts(5))
    ]
    for done in generate(half, TOKENS, wanted, rows=16):
        prompt = list(wanted[done.request].prompt)
        with torch.no_grad():
            logits = exact(torch.tensor([prompt + done.tokens[:-1]], device="cuda"))[0, len(prompt) - 1 :]
        expected = torch.log_softmax(logits, -1)[range(len(done.tokens)), done.tokens].cpu().numpy()
        assert np.abs(expected - done.log_probabilities).mean() < 0.2


@pytest.mark.parametrize("width", [400, 49_280])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_tokens_are_chosen_as_on_a_cpu(width: int, spread: float) -> None:
    rows = 64
    random = stream(2, "test", "choice", str(width), str(spread))
    logits = torch.from_numpy((np.round(random.standard_normal((rows, width)) * 8) / 8 * spread).astype(np.float32))
    truncation = Truncation(
        random.choice([0.0, 0.2, 0.8, 1.0, 1.7], rows),
        random.choice([0.5, 0.95, 1.0], rows),
        random.choice([0, 1, 40, 700], rows),
    )
    uniforms = random.random(rows)
    ids, log_probabilities = select(logits.cuda(), truncation, uniforms)
    expected, expected_log_probabilities = select_on_device(logits, truncation, uniforms)
    assert (ids != expected).sum() <= 2  # exponentials differ by a rounding, which moves the borders a little
    same = ids == expected
    assert np.abs(log_probabilities - expected_log_probabilities)[same].max() < 1e-4


def test_bisection_and_sorting_choose_the_same() -> None:
    choose_by_bisection = chooser(torch.device("cuda"))
    if choose_by_bisection is choose_by_sorting:
        pytest.skip("triton is not installed or cannot build its kernels here: tokens are chosen by sorting")
    random = stream(3, "test", "bisection")
    for width in (1, 61, 256, 1000, 49_280):
        logits = np.round(random.standard_normal((50, width)) * 16) / 8
        weights = torch.from_numpy(np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float32)).cuda()
        p, u = (torch.from_numpy(x).cuda() for x in (random.choice([1e-9, 0.5, 0.95, 1.0], 50), random.random(50)))
        k = torch.from_numpy(random.choice([0, 1, 7, 300, 60_000], 50)).cuda()
        chosen = choose_by_bisection(weights, p, k, u)
        assert int((chosen != choose_by_sorting(weights, p, k, u)).sum()) == 0


def test_logits_that_are_not_numbers_are_refused() -> None:
    from kringle.errors import UserError

    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(3, 10, device="cuda")
        logits[1, 4] = bad
        with pytest.raises(UserError, match="not finite"):
            select(logits, Truncation(np.full(3, 0.8), np.full(3, 0.95), np.zeros(3, np.int64)), np.full(3, 0.5))
