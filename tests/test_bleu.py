"""BLEU of docstrings against numbers worked out by hand, and what must not change it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.evaluation.bleu import mean_bleu, sentence_bleu, tokens

SENTENCES = st.text(alphabet="ab c_.,D9-", max_size=30)


def test_the_same_sentence_is_perfect() -> None:
    assert sentence_bleu("Return the sum of a list.", "return the SUM of a list .") == pytest.approx(1)


def test_worked_out_by_hand() -> None:
    """Reference "a b c d", given "a b x": 2 of 3 words, (1+1)/(2+1) pairs, (0+1)/(1+1) triples, (0+1)/(0+1) of four."""
    expected = math.exp(math.log(2 / 3 * 2 / 3 * 1 / 2 * 1) / 4 + 1 - 5 / 4)
    assert sentence_bleu("a b c d", "a b x") == pytest.approx(expected)


def test_repeated_words_count_once_each() -> None:
    expected = math.exp(math.log(1 / 3 * 1 / 3 * 1 / 2) / 4)
    assert sentence_bleu("the cat", "the the the") == pytest.approx(expected)


def test_nothing_written() -> None:
    assert sentence_bleu("a b", "") == pytest.approx(math.exp(1 - 3 / 1))
    assert sentence_bleu("a b", "x y") < 1e-70


def test_tokens() -> None:
    assert tokens(" Get_name() of x.y, 3.5%") == [
        "get",
        "_",
        "name",
        "(",
        ")",
        "of",
        "x",
        ".",
        "y",
        ",",
        "3",
        ".",
        "5",
        "%",
    ]


@given(SENTENCES, SENTENCES)
def test_bounds_and_white_space(reference: str, given_text: str) -> None:
    value = sentence_bleu(reference, given_text)
    assert 0 <= value <= 1 + 1e-12
    assert sentence_bleu(f"  {reference}\n", given_text.upper()) == pytest.approx(value)
    assert mean_bleu([(reference, given_text)] * 3) == pytest.approx(100 * value)
