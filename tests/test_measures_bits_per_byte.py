"""Bits per byte against one forward pass per token, and its bookkeeping."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.evaluation import bits_per_byte as module
from kringle.evaluation.bits_per_byte import (
    DocumentBits,
    bits_per_byte,
    score_documents,
    token_bits,
)
from kringle.evaluation.kept import choose_documents
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer

END_OF_TEXT = 60


def small_model(context: int = 16, seed: int = 0) -> Transformer:
    """Two layers, 64 ids, weights half as large again as usual: far from uniform, and sensitive to history."""
    model = Transformer(ModelConfig(layers=2, width=16, heads=2, attention="mqa", context=context, vocab_size=64))
    model.initialise(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def random_tokens(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60, length).astype(np.uint16)


def last_bits(model: Transformer, rows: np.ndarray) -> np.ndarray:
    """Bits (B,) of each row's last token given all the others; rows (B, T + 1), in one plain forward pass."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    with torch.inference_mode():
        logs = torch.log_softmax(model(tokens[:, :-1])[:, -1].double(), -1)
    return -logs.gather(1, tokens[:, -1:])[:, 0].numpy() / math.log(2)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.sampled_from([1, 2, 5, 16]))
def test_every_token_is_scored_once_with_the_history_that_is_promised(lengths: list[int], context: int) -> None:
    """Each token's bits are those of one forward pass over exactly the history that the windows give it: everything
    before it within the first context, and at least half a context afterwards."""
    model = small_model(context)
    sequences = [random_tokens(seed, length) for seed, length in enumerate(lengths)]
    half = context // 2
    for sequence, bits in zip(sequences, token_bits(model, sequences), strict=True):
        assert bits.shape == (len(sequence) - 1,)
        histories: dict[int, list[int]] = defaultdict(list)
        for position in range(1, len(sequence)):
            history = position
            if position > context:  # half a context, and what was scored in this window before
                history = half + 1 + (position - context - 1) % (context - half)
            assert min(position, half + 1) <= history <= context
            histories[history].append(position)
        for history, positions in histories.items():
            rows = np.stack([sequence[position - history : position + 1] for position in positions])
            expected = last_bits(model, rows)
            assert bits[np.array(positions) - 1] == pytest.approx(expected, abs=1e-4)


def test_batches_do_not_change_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    sequences = [random_tokens(seed, 3 + 11 * seed) for seed in range(12)]
    together = token_bits(model, sequences)
    monkeypatch.setattr(module, "POSITIONS_AT_ONCE", 1)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 64 * 3)
    alone = token_bits(model, sequences)
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert max(b.max() for b in alone) - min(b.min() for b in alone) > 1  # a model that tells tokens apart


def test_a_model_that_knows_nothing_pays_the_whole_vocabulary() -> None:
    """All weights zero: log2(64) = 6 bits for every token, rows of the vocabulary that no token has included."""
    model = small_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    documents = [("a", "python", 10, random_tokens(0, 40)), ("b", "java", 7, random_tokens(1, 5))]
    found = score_documents(model, END_OF_TEXT, documents)
    assert [(d.id, d.language, d.bytes) for d in found] == [("a", "python", 10), ("b", "java", 7)]
    assert [d.bits for d in found] == pytest.approx([240.0, 30.0], abs=1e-5)


def test_a_document_starts_after_end_of_text_and_does_not_pay_for_its_own() -> None:
    model = small_model()
    tokens = random_tokens(4, 12)
    (found,) = score_documents(model, END_OF_TEXT, [("a", "python", 30, tokens)])
    row = torch.tensor([[END_OF_TEXT, *tokens.tolist()]])
    with torch.inference_mode():
        logs = torch.log_softmax(model(row)[0].double(), -1)
    expected = -sum(float(logs[i, token]) for i, token in enumerate(tokens.tolist())) / math.log(2)
    assert found.bits == pytest.approx(expected, abs=1e-4)
    (empty,) = score_documents(model, END_OF_TEXT, [("b", "python", 0, tokens[:0])])
    assert empty.bits == 0.0


def test_aggregates_are_sums_over_sums() -> None:
    documents = [
        DocumentBits("a", "python", 100.0, 50),
        DocumentBits("b", "java", 30.0, 10),
        DocumentBits("c", "python", 2.0, 1),
    ]
    found = bits_per_byte(documents)
    assert found.languages == {"java": 3.0, "python": 102 / 51}
    assert (found.total, found.files, found.bytes) == (132 / 61, 3, 61)
    with pytest.raises(ValueError, match="no bytes"):
        bits_per_byte([DocumentBits("d", "python", 0.0, 0)])


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from("abc")), min_size=1, max_size=40),
    st.integers(1, 50_000),
    st.randoms(),
)
def test_the_same_files_are_chosen_in_any_order(files: list[tuple[int, str]], cap: int, shuffle: object) -> None:
    sizes, repos = [size for size, _ in files], [repo for _, repo in files]
    ids = [f"{i:040x}" for i in range(len(sizes))]
    chosen = choose_documents(ids, repos, sizes, cap)
    order = list(range(len(ids)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    again = choose_documents([ids[i] for i in order], [repos[i] for i in order], [sizes[i] for i in order], cap)
    assert [ids[i] for i in chosen] == [ids[order[i]] for i in again]
    total = sum(sizes[i] for i in chosen)
    assert all(sizes[i] for i in chosen)
    assert total <= cap or len(chosen) == 1
    assert len(set(chosen)) == len(chosen)
    everything = choose_documents(ids, repos, sizes, sum(sizes) + 1)
    assert sorted(everything) == [i for i, size in enumerate(sizes) if size]
    assert everything[: len(chosen)] == chosen  # a larger cap only adds files


def test_another_seed_chooses_other_files() -> None:
    ids, sizes = [f"{i:040x}" for i in range(100)], [100] * 100
    first = choose_documents(ids, ids, sizes, 2000)
    assert len(first) == 20
    assert set(first) != set(choose_documents(ids, ids, sizes, 2000, seed=1))


def test_every_repository_has_its_turn_before_one_has_a_second() -> None:
    repos = ["large"] * 80 + [f"small{i}" for i in range(19)] + ["twice"]
    ids, sizes = [f"{i:040x}" for i in range(100)], [100] * 100
    chosen = [repos[i] for i in choose_documents(ids, repos, sizes, 2100)]
    assert len(chosen) == 21
    assert set(chosen) == set(repos)
    assert chosen.count("large") == 1
