"""Where a completion ends: special tokens and stop strings.

Stop strings are matched on bytes, so they may span tokens and may end inside one. Looking at the text of every row
after every token would be a Python loop over rows; instead a table says for each token whether any stop string *can* be
completed by it, and only rows whose new token is in the table are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def completing_tokens(token_bytes: Sequence[bytes], stops: Sequence[bytes]) -> np.ndarray:
    """Boolean (V,): True where a stop string can end within the token.

    A stop string ends at byte e of a token either because it lies whole inside the token, or because the token begins
    with the last e bytes of the stop string. Everything else is ruled out by the token alone.
    """
    endings = tuple({stop[-length:] for stop in stops for length in range(1, len(stop) + 1)})
    if not endings:
        return np.zeros(len(token_bytes), dtype=bool)
    return np.fromiter(
        (token.startswith(endings) or any(stop in token for stop in stops) for token in token_bytes),
        dtype=bool,
        count=len(token_bytes),
    )


def first_stop(text: bytes, stops: Sequence[bytes]) -> int:
    """Where the earliest stop string in `text` begins, or -1."""
    return min((at for at in map(text.find, stops) if at >= 0), default=-1)


def tail(token_bytes: Sequence[bytes], tokens: np.ndarray, length: int) -> bytes:
    """The last bytes of the tokens' text: those of the newest token and at least `length` before them, if there are."""
    pieces = [token_bytes[tokens[-1]]]
    for token in tokens[-2::-1]:
        if length <= 0:
            break
        pieces.append(token_bytes[token])
        length -= len(pieces[-1])
    return b"".join(reversed(pieces))


def held_back(text: bytes, stops: Sequence[bytes]) -> int:
    """How many bytes at the end of `text` may be the beginning of a stop string, and must not be shown yet."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
