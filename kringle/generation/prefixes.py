"""Keys and values of prompts that were run before, so that a prompt that begins like one of them runs only its rest.

An editor asks again at every keystroke, with a prompt that differs from the last one near its end. Keys and values at a
position depend on the tokens up to there and on nothing else, so those of the common beginning are taken over. How
many products are computed at once can change their last bits; where bits must not depend on what ran before
(`--invariant`), prompts are run in blocks at fixed borders, and only whole blocks are taken over.

Bounded in bytes; what was used longest ago goes first. One thread uses it: the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kringle.generation.decoder import Prompt

MOST_ENTRIES = 256  # comparing a prompt with as many takes under a millisecond
RETYPED = 16  # an entry that differs from a new one in its last tokens alone is what was typed a moment ago


class PrefixCache:
    """Prompts by their tokens. `limit` bounds the bytes of keys and values; whole multiples of `block` tokens are
    taken over."""

    def __init__(self, limit: int, block: int = 1) -> None:
        self.limit, self.block = limit, block
        self.bytes = 0
        self._entries: list[tuple[np.ndarray, Prompt]] = []  # used longest ago first

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: Sequence[int]) -> tuple[Prompt | None, int]:
        """The prompt with the longest common beginning, and how many tokens may be taken over: all only if it is the
        same prompt, since the logits after the last token are needed."""
        wanted = np.asarray(tokens, dtype=np.int64)
        best, place = 0, -1
        for number, (held, _) in enumerate(self._entries):
            common = _common(held, wanted)
            if common > best or (common == best and place >= 0 and len(held) == len(wanted) == common):
                best, place = common, number
        if place < 0:
            return None, 0
        held, prompt = self._entries[place]
        if best < len(wanted) or len(held) > best:
            best = min(best, len(wanted) - 1) // self.block * self.block
        self._entries.append(self._entries.pop(place))
        return (prompt, best) if best else (None, 0)

    def keep(self, tokens: Sequence[int], prompt: Prompt) -> None:
        """Hold a prompt, in place of those that it continues; a prompt larger than the limit is not held."""
        kept = np.asarray(tokens, dtype=np.int64)
        size = _size(prompt)
        if size > self.limit:
            return
        self._entries = [entry for entry in self._entries if _common(entry[0], kept) < len(entry[0]) - RETYPED]
        self._entries.append((kept, prompt))
        self.bytes = sum(_size(held) for _, held in self._entries)
        while self.bytes > self.limit or len(self._entries) > MOST_ENTRIES:
            self.bytes -= _size(self._entries.pop(0)[1])

    def clear(self) -> None:
        self._entries, self.bytes = [], 0


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning."""
    shorter = min(len(a), len(b))
    different = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(different[0]) if len(different) else shorter


def _size(prompt: Prompt) -> int:
    return prompt.keys.nbytes + prompt.values.nbytes + prompt.logits.nbytes
