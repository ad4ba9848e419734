"""Prompts: left to right, and fill-in-the-middle in both of SantaCoder's orders.

Covers: where the special tokens go and what is left out when the text is longer than the context. Does not cover:
splitting documents for training (`kringle.training.fim`) and moving the cursor to a token border (token healing).

PSM is `<fim_prefix> prefix <fim_suffix> suffix <fim_middle>`; SPM is `<fim_prefix> <fim_suffix> suffix <fim_middle>
prefix`, the second variant of Bavarian et al. (arXiv 2207.14255), in which the BigCode Megatron fork puts half of the
documents that it transforms. In both the model goes on with the middle.

Prefix and suffix are encoded apart, as in training. What does not fit is cut in tokens, far from the cursor first: the
prefix keeps its end, the suffix its beginning. Room is kept for `new_tokens`; of the rest three quarters belong to the
prefix and one to the suffix, and what one does not need the other may have.
"""

from __future__ import annotations

from typing import Literal, Protocol

from kringle.errors import UserError
from kringle.generation.requests import Vocabulary

SENTINELS = 3
PREFIX_SHARE = (3, 4)  # the text before the cursor tells more about the next token than the text after it


class Encoder(Vocabulary, Protocol):
    """A vocabulary that also encodes plain text."""

    def encode(self, text: str) -> list[int]: ...


def left_to_right_prompt(tokenizer: Encoder, text: str, *, context: int, new_tokens: int) -> list[int]:
    """Ids of the end of `text`, as much as leaves room for `new_tokens`. UserError if there is room for nothing."""
    return _end(tokenizer.encode(text), _room(context, new_tokens, 0))


def infilling_prompt(
    tokenizer: Encoder, prefix: str, suffix: str, *, mode: Literal["psm", "spm"], context: int, new_tokens: int
) -> list[int]:
    """Ids that ask for the text between `prefix` and `suffix`. UserError if there is no room for prefix or suffix."""
    room = _room(context, new_tokens, SENTINELS)
    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    prefix_room, suffix_room = share(len(before), len(after), room)
    before, after = _end(before, prefix_room), after[:suffix_room]
    special = tokenizer.specials
    if mode == "psm":
        return [special.fim_prefix, *before, special.fim_suffix, *after, special.fim_middle]
    if mode == "spm":
        return [special.fim_prefix, special.fim_suffix, *after, special.fim_middle, *before]
    raise UserError(f"mode is 'psm' or 'spm', not '{mode}'", where="fill-in-the-middle")


def share(prefix: int, suffix: int, room: int) -> tuple[int, int]:
    """Tokens that a prefix and a suffix of the given lengths may keep of `room` tokens."""
    quota = room * PREFIX_SHARE[0] // PREFIX_SHARE[1]
    kept = min(prefix, max(quota, room - suffix))
    return kept, min(suffix, room - kept)


def _end(tokens: list[int], room: int) -> list[int]:
    return tokens[max(0, len(tokens) - room) :]


def _room(context: int, new_tokens: int, special: int) -> int:
    room = context - new_tokens - special
    if room < 1:
        raise UserError(
            f"a context of {context} tokens leaves no room for a prompt beside {new_tokens} new tokens",
            where="prompt",
            hint=f"ask for at most {context - special - 1} new tokens",
        )
    return room
