"""SantaCoder's fill-in-the-middle procedure, plainly, from its description alone: one window, one segment at a time.

Written to hold `kringle.training.windows` to it; shares no code with it. Chance comes in as a function, so that both
can be given the same draws, or each its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Chance(Protocol):
    """What is drawn for one segment, in the order of the procedure."""

    def rearrange(self) -> bool: ...
    def places(self, length: int) -> tuple[int, int]: ...
    def suffix_first(self) -> bool: ...


@dataclass
class Outcome:
    """A window after the procedure, and what happened on the way."""

    tokens: list[int]
    before: int  # tokens before cutting or filling
    cuts: list[tuple[int, int, int]] = field(default_factory=list)  # characters: first and second place, length
    spm: int = 0
    psm: int = 0
    bare: int = 0  # rearranged segments without text


class Codec(Protocol):
    """`specials` in the order end-of-text, prefix, middle, suffix, pad."""

    specials: tuple[int, int, int, int, int]

    def decode(self, tokens: Sequence[int]) -> tuple[list[int], str, list[int]]:
        """The text of some tokens, between edge tokens that hold no whole character."""

    def encode(self, text: str) -> list[int]: ...


def procedure(window: Sequence[int], codec: Codec, chance: Callable[[int], Chance]) -> Outcome:
    """One window; `chance(i)` are the draws of its i-th segment that is looked at."""
    eod, fim_prefix, fim_middle, fim_suffix, fim_pad = codec.specials
    outcome = Outcome([], 0)
    result: list[int] = []
    looked_at = 0

    def treat(segment: list[int]) -> list[int]:
        nonlocal looked_at
        draws = chance(looked_at)
        looked_at += 1
        if not draws.rearrange():
            return segment
        head, text, tail = codec.decode(segment)
        a, b = sorted(draws.places(len(text)))
        outcome.cuts.append((a, b, len(text)))
        outcome.bare += not text
        prefix = head + codec.encode(text[:a])
        middle = codec.encode(text[a:b])
        suffix = codec.encode(text[b:]) + tail
        if draws.suffix_first():
            outcome.spm += 1
            return [fim_prefix, fim_suffix, *suffix, fim_middle, *prefix, *middle]
        outcome.psm += 1
        return [fim_prefix, *prefix, fim_suffix, *suffix, fim_middle, *middle]

    current: list[int] = []
    for token in window:
        if token != eod:
            current.append(token)
            continue
        if current:  # an empty segment vanishes together with its end-of-document
            result += treat(current)
            result.append(eod)
        current = []
    result += treat(current)
    outcome.before = len(result)
    size = len(window)
    outcome.tokens = result[:size] + [fim_pad] * (size - len(result))
    return outcome
