"""The oracle of SantaCoder's procedure with a tokenizer of ours and with chance of two kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kringle.tokens.tokenizer import Tokenizer
from kringle.training.windows import WindowDraw


class OurCodec:
    """Byte-exact decoding: incomplete characters at the edges stay tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        s = tokenizer.specials
        self.tokenizer = tokenizer
        self.specials = (s.end_of_text, s.fim_prefix, s.fim_middle, s.fim_suffix, s.fim_pad)

    def decode(self, tokens: Sequence[int]) -> tuple[list[int], str, list[int]]:
        """The longest stretch of whole tokens that is valid UTF-8, by trying."""
        tokens = list(tokens)
        for dropped in range(8):  # a character has at most four bytes, so at most three tokens stick out at each end
            for start in range(min(dropped, 3), -1, -1):
                end = len(tokens) - (dropped - start)
                if end < start:
                    continue
                try:
                    text = self.tokenizer.decode_bytes(tokens[start:end]).decode("utf-8")
                except UnicodeDecodeError:
                    continue
                if text:
                    return tokens[:start], text, tokens[end:]
        return tokens, "", []

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)


class Given:
    """The draws that our own code made, for an exact comparison."""

    def __init__(self, draw: WindowDraw) -> None:
        self.draw = draw

    def rearrange(self) -> bool:
        return self.draw.chosen

    def places(self, length: int) -> tuple[int, int]:
        return int(self.draw.draw.first * (length + 1)), int(self.draw.draw.second * (length + 1))

    def suffix_first(self) -> bool:
        return self.draw.draw.suffix_first


class Stateful:
    """One generator for everything, drawn from in order, as the original does."""

    def __init__(self, state: np.random.RandomState, rate: float, spm: float) -> None:
        self.state, self.rate, self.spm = state, rate, spm

    def rearrange(self) -> bool:
        return bool(self.state.binomial(1, self.rate))

    def places(self, length: int) -> tuple[int, int]:
        a, b = self.state.randint(0, length + 1, size=2)
        return int(a), int(b)

    def suffix_first(self) -> bool:
        return bool(self.state.binomial(1, self.spm))
