"""Steps of fixed sizes: padded rows, columns and prompts change nothing, and many requests come out the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_generation_engine import TOKENS, by_name, random_model

from kringle.generation import graphs
from kringle.generation.decoder import NOBODY, NONE_SHARED, Decoder, Shared, Sharing
from kringle.generation.engine import Engine
from kringle.generation.graphs import Steps, padded_columns, padded_rows, padded_shared
from kringle.generation.requests import Completion, Request
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream, torch_seed

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, COLUMNS, VOCABULARY = 7, 12, 50


def make_model(attention: str, positions: str = "learned") -> Transformer:
    model = Transformer(ModelConfig(3, 48, 4, attention, 200, VOCABULARY, positions))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(torch_seed(5, "test", name))
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.25, generator=generator)
    return model


def test_sizes_hold_what_they_are_for_and_are_few() -> None:
    for most in (1, 5, 64, 200, 1000):
        sizes = [padded_rows(rows, most) for rows in range(1, most + 1)]
        assert all(rows <= size <= most for rows, size in enumerate(sizes, 1))
        assert len(set(sizes)) <= 7 + most // 64
    for most in (1, 63, 64, 200):
        assert all(used <= padded_columns(used, most) <= most for used in range(1, most + 1))
    assert [padded_shared(tokens) for tokens in (0, 1, 64, 65, 256, 257, 4096)] == [0, 64, 64, 128, 256, 512, 4096]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("attention", ["mqa", "mha"])
@pytest.mark.parametrize("sharing", ["none", "one", "two", "one and own"])
@torch.inference_mode()
def test_steps_of_fixed_sizes_equal_plain_ones(attention: str, positions: str, sharing: str) -> None:
    model, chance = make_model(attention, positions), stream(0, "test", "fixed", attention, sharing)
    for active in (1, 3, 5, 7):
        plain, fixed = (Decoder(model, rows=ROWS, columns=COLUMNS, vocab_size=VOCABULARY) for _ in range(2))
        steps = Steps(fixed, record=False)
        prompts = [plain.prefill(chance.integers(0, VOCABULARY, length).tolist()) for length in (9, 70)]
        members = {
            "none": [],
            "one": [np.arange(active)],
            "two": [np.arange(0, active, 2), np.arange(1, active, 2)],
            "one and own": [np.arange(1, active)],
        }[sharing]
        owners, start = np.full(active, NONE_SHARED), np.zeros(active, np.int64)
        for number, rows in enumerate(members):
            owners[rows], start[rows] = number, prompts[number].length
        together = [Sharing(prompts[i], torch.from_numpy(rows)) for i, rows in enumerate(members) if len(rows)]
        # What is left in rows and columns that no row uses must not matter.
        for cache in (fixed.keys, fixed.values):
            cache[active:] = 1e4
            cache[:, :, :, 8:] = -1e4
        for count in range(6):
            own = np.arange(active) % 3 + count  # rows start at different columns
            tokens = chance.integers(0, VOCABULARY, active)
            if count == 0:  # all must hold something before their first column
                for cache, other in ((plain.keys, fixed.keys), (plain.values, fixed.values)):
                    cache[:, :active, :, :2] = torch.randn(cache[:, :active, :, :2].shape)
                    other[:, :active, :, :2] = cache[:, :active, :, :2]
            arrays = (tokens, start + own, own)
            expected = plain.step(*(torch.from_numpy(array) for array in arrays), together)
            found = steps.step(*arrays, owners, prompts[: len(members)])
            assert found is not None
            assert found.shape == (active, VOCABULARY)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_masked_columns_have_no_weight_at_all() -> None:
    """Bit for bit: other finite numbers in columns that nobody owns, the same logits."""
    model = make_model("mqa")
    decoder = Decoder(model, rows=2, columns=COLUMNS, vocab_size=VOCABULARY)
    zero = torch.zeros((3, 1, 64, 12))
    owners = torch.full((64,), NOBODY)
    inputs = [torch.tensor(x) for x in ([3, 4], [0, 0], [0, 0], [NONE_SHARED, 0])]
    found = []
    for filling in (0.0, 100.0):
        decoder.keys[:, :, :, 1:] = filling
        decoder.values[:, :, :, 1:] = filling
        found.append(decoder.fixed_step(*inputs, COLUMNS, Shared(zero + filling, zero + filling, owners)))
    assert (found[0] == found[1]).all()


def completions(engine: Engine, wanted: list[Request]) -> list[Completion]:
    found: list[Completion] = []
    while not engine.idle:
        found += [event for event in engine.advance() if isinstance(event, Completion)]
    assert len({c.request for c in found}) == len(wanted)
    return found


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_requests_come_out_the_same(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end and begin all the time, prompts are shared or not: the texts are those of plain steps."""
    model = random_model(attention, context=80)
    monkeypatch.setattr("kringle.generation.memory.SHARED_BYTES", 10_000 if attention == "mqa" else 40_000)
    chance = stream(0, "test", "prompts")
    wanted = [
        Request(
            chance.integers(0, 10, int(chance.integers(1, 50))).tolist(),
            samples=int(chance.integers(1, 12)),
            max_new_tokens=int(chance.integers(1, 25)),
            temperature=float(chance.choice([0.0, 0.8])),
            top_p=0.95,
            key=f"{i}",
        )
        for i in range(12)
    ]
    plain = Engine(model, TOKENS, rows=10, requests=wanted, few=0)
    assert 2 <= sum(plan.shared for plan in plain.plans.values()) < len(wanted)
    fixed = Engine(model, TOKENS, rows=10, requests=wanted, few=0)
    fixed.steps = Steps(fixed.decoder, record=False)
    expected, found = (by_name(completions(engine, wanted), wanted) for engine in (plain, fixed))
    assert {name: c.tokens for name, c in found.items()} == {name: c.tokens for name, c in expected.items()}
    for name, completion in found.items():
        assert np.allclose(completion.log_probabilities, expected[name].log_probabilities, atol=1e-4)


def test_too_much_that_is_shared_is_left_to_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_SHARED", 8)
    decoder = Decoder(make_model("mqa"), rows=2, columns=COLUMNS, vocab_size=VOCABULARY)
    prompt, steps = decoder.prefill(list(range(9))), Steps(decoder, record=False)
    one = np.zeros(1, np.int64)
    assert steps.step(one, one, one, one, [prompt]) is None
    assert steps.step(one, one, one, one - 1, []) is not None
