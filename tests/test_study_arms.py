"""What an arm is measured with: its header as history, a suite's solutions, as many epochs as the base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_fixtures import tokenizer, write_store

from kringle.evaluation.bits_per_byte import score_documents, token_bits
from kringle.evaluation.measure import measure_solutions
from kringle.evaluation.suites import load_suite
from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer
from kringle.settings import TrainingSettings
from kringle.study.arm import at_equal_epochs


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = Transformer(ModelConfig(2, 32, 2, "mqa", 512, padded_vocabulary(tokenizer().vocab_size)))
    made.initialise(0)
    made.eval()
    return made


def test_a_header_is_history_and_costs_nothing(model: Transformer) -> None:
    header, text = tokenizer().encode_batch(["python src/cart.py\n", "def f():\n    return 1\n"])
    end = tokenizer().specials.end_of_text
    (plain,) = score_documents(model, end, [("a", "python", 22, text)])
    (headed,) = score_documents(model, end, [("a", "python", 22, text)], headers=[header])
    whole = token_bits(model, [np.concatenate(([end], header, text))])[0]
    assert headed.bits == pytest.approx(float(whole[len(header) :].sum()), rel=1e-6)
    assert plain.bits == pytest.approx(float(token_bits(model, [np.concatenate(([end], text))])[0].sum()), rel=1e-6)
    assert headed.bits != plain.bits
    assert headed.bytes == plain.bytes == 22


def test_a_solution_is_charged_and_its_prompt_is_not(model: Transformer) -> None:
    suite = load_suite("starter")
    rows = measure_solutions(model, tokenizer(), suite)
    assert [row["task_id"] for row in rows] == [problem.task_id for problem in suite.problems]
    end = tokenizer().specials.end_of_text
    for row, problem in list(zip(rows, suite.problems, strict=True))[:6]:
        ids = np.array([end, *tokenizer().encode(problem.prompt + problem.canonical_solution)])
        bits = token_bits(model, [ids])[0]
        ends = np.cumsum([len(tokenizer().token_bytes[token]) for token in ids[1:]])
        charged = float(bits[ends > len(problem.prompt.encode())].sum())  # tokens that reach into the solution
        assert row["model"] == pytest.approx(charged, rel=1e-5)
        assert row["bytes"] == len(problem.canonical_solution.encode())
    headed = measure_solutions(model, tokenizer(), suite, "python solution.py\n")
    assert [row["bytes"] for row in headed] == [row["bytes"] for row in rows]
    assert headed[0]["model"] != rows[0]["model"]


def test_equal_epochs_are_as_many_passes(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store")
    lengths = np.diff(store.offsets)
    settings = TrainingSettings(tokens=10_000, batch_tokens=100, budget="epochs")
    pool, kept = np.arange(len(store)), np.arange(0, len(store), 3)
    changed = at_equal_epochs(settings, store, pool, kept)
    assert changed.tokens / lengths[kept].sum() == pytest.approx(10_000 / lengths.sum(), rel=1e-3)
    assert at_equal_epochs(settings, store, pool, pool) == settings
    shorter = at_equal_epochs(replace(settings, decay_tokens=20_000), store, pool, kept)
    assert shorter.decay_tokens == pytest.approx(2 * shorter.tokens, abs=1)  # its rate falls as far as the base's
