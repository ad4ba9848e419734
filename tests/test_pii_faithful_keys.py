"""Keys as BigCode found them; needs the extra `kringle[detect-secrets]`."""

from __future__ import annotations

import pytest

pytest.importorskip("detect_secrets", reason="the extra kringle[detect-secrets] is not installed")
pytest.importorskip("gibberish_detector", reason="the extra kringle[detect-secrets] is not installed")

from kringle.pii.faithful_keys import find_keys, train_gibberish

RANDOM = "Zq3vT9xLwB7kPn2s" + "QhVx8RjKzWcXgYdF"  # in two pieces, so that no scanner takes it for a leak


def always(_value: str) -> bool:
    return True


def lines(text: str) -> str:
    """The text in a file of 200 lines: shorter files have no room for the word "sha"."""
    return text + "\n" * 200


def test_every_occurrence_is_marked() -> None:
    text = lines(f'a = "{RANDOM}"\n# {RANDOM}\n')
    assert [text[s.start : s.end] for s in find_keys(text, always)] == [RANDOM, RANDOM]


def test_what_can_be_pronounced_is_dropped() -> None:
    text = lines(f'a = "{RANDOM}"\n')
    assert find_keys(text, lambda _: False) == []


def test_digests_by_length_and_word() -> None:
    digest = "0f343b0931126a20" + "f133d67c2b018a3b"
    assert find_keys(lines(f'md5 = "{digest}"'), always) == []
    assert len(find_keys(lines(f'key = "{digest}"'), always)) == 1


def test_one_word_in_a_short_file_switches_keys_off() -> None:
    text = f'a = "{RANDOM}"\nx = y.shape\n'
    assert find_keys(text, always) == []
    assert len(find_keys(lines(text), always)) == 1


def test_the_word_is_found_in_capitals_too() -> None:
    assert find_keys(f'a = "{RANDOM}"\nx = "SHA"\n', always) == []


def test_the_line_of_a_value_that_begins_its_line_is_the_one_above() -> None:
    token = "AKIA" + "Q3" * 6 + "ZT4X"  # what a regular expression finds needs no quotes
    key = "ghp_" + "a1B2" * 9
    assert len(find_keys(lines(f"{token}\n{key}\n"), always)) == 2
    long = "eyJhbGciOiJIUzI1NiJ9." + "eyJhIjoxfQ."  # with a signature 40 characters long
    value = long + "Q" * (40 - len(long))
    assert len(value) == 40
    assert len(find_keys(lines(f"# a token\n{value}\n"), always)) == 1
    assert find_keys(lines(f"# md5 of a token\n{value}\n"), always) == []


def test_the_model_tells_words_from_letters() -> None:
    gibberish = train_gibberish(
        ["the quick brown fox jumps over the lazy dog and runs through the other letters"] * 200
    )
    assert not gibberish("the letters and the others")
    assert gibberish("xqzjkvwpqxzjvkqw")


def test_the_default_model() -> None:
    text = lines(f'a = "{RANDOM}"\nb = "thisIsTheNameOfAnotherFunction12"\n')
    assert [text[s.start : s.end] for s in find_keys(text)] == [RANDOM]
