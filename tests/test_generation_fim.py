"""Prompts: the order of the special tokens, and what is left out when the text is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.errors import UserError
from kringle.generation.fim import infilling_prompt, left_to_right_prompt, share
from kringle.tokens.tokenizer import Specials


class Letters:
    """One token per character."""

    specials = Specials.after(128)
    token_bytes = tuple(bytes([i]) for i in range(128))
    vocab_size = 133

    def encode(self, text: str) -> list[int]:
        return list(text.encode("ascii"))


TOKENIZER = Letters()
PREFIX, MIDDLE, SUFFIX = TOKENIZER.specials.fim_prefix, TOKENIZER.specials.fim_middle, TOKENIZER.specials.fim_suffix


def test_both_orders() -> None:
    before, after = TOKENIZER.encode("ab"), TOKENIZER.encode("yz")
    psm = infilling_prompt(TOKENIZER, "ab", "yz", mode="psm", context=50, new_tokens=10)
    spm = infilling_prompt(TOKENIZER, "ab", "yz", mode="spm", context=50, new_tokens=10)
    assert psm == [PREFIX, *before, SUFFIX, *after, MIDDLE]
    assert spm == [PREFIX, SUFFIX, *after, MIDDLE, *before]
    assert infilling_prompt(TOKENIZER, "", "", mode="psm", context=5, new_tokens=1) == [PREFIX, SUFFIX, MIDDLE]
    with pytest.raises(UserError, match="'psm' or 'spm'"):
        infilling_prompt(TOKENIZER, "a", "b", mode="pms", context=50, new_tokens=10)  # type: ignore[arg-type]


def test_what_is_cut_lies_far_from_the_cursor() -> None:
    prefix, suffix = "abcdefghijklmnopqrst", "0123456789ABCDEFGHIJ"
    prompt = infilling_prompt(TOKENIZER, prefix, suffix, mode="psm", context=31, new_tokens=8)  # room for 20
    at = prompt.index(SUFFIX)
    assert bytes(prompt[1:at]) == b"fghijklmnopqrst"
    assert bytes(prompt[at + 1 : -1]) == b"01234"
    assert len(prompt) + 8 == 31
    assert bytes(left_to_right_prompt(TOKENIZER, prefix, context=10, new_tokens=6)) == b"qrst"
    assert bytes(left_to_right_prompt(TOKENIZER, "abc", context=10, new_tokens=6)) == b"abc"


@given(prefix=st.integers(0, 60), suffix=st.integers(0, 60), room=st.integers(1, 80))
def test_shares(prefix: int, suffix: int, room: int) -> None:
    kept_prefix, kept_suffix = share(prefix, suffix, room)
    assert 0 <= kept_prefix <= prefix
    assert 0 <= kept_suffix <= suffix
    assert kept_prefix + kept_suffix == min(room, prefix + suffix)  # nothing is left unused
    if kept_prefix < prefix:
        assert kept_prefix >= room * 3 // 4
    if kept_suffix < suffix:
        assert kept_suffix >= room - room * 3 // 4


@pytest.mark.parametrize("new_tokens", [47, 50, 51, 99])
def test_no_room_for_a_prompt(new_tokens: int) -> None:
    with pytest.raises(UserError, match=r"no room.*at most 46 new tokens"):
        infilling_prompt(TOKENIZER, "a", "b", mode="psm", context=50, new_tokens=new_tokens)
    infilling_prompt(TOKENIZER, "a", "b", mode="psm", context=50, new_tokens=46)
    with pytest.raises(UserError, match=r"no room.*at most 49 new tokens"):
        left_to_right_prompt(TOKENIZER, "a", context=50, new_tokens=50)
