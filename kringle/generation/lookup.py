"""Prompt lookup: guesses for the next tokens, copied from where the newest ones stood before.

Code repeats itself: names, argument lists, whole lines. If the last few tokens occurred earlier, what followed them
then is a guess worth checking, and checking four tokens at once costs a step that is bound by memory hardly more than
one. Only guesses that equal what greedy decoding draws anyway are kept, so the text is the same (Saxena 2023, "Prompt
lookup decoding").
"""

from __future__ import annotations

import numpy as np

LONGEST_MATCH = 3  # tokens that must agree, at best; a match of three is right more often than one of two or one
SHORTEST_MATCH = 2


def guess(tokens: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` tokens that followed the latest earlier occurrence of the end of `tokens` (n,); often none."""
    n = len(tokens)
    for length in range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1):
        if n <= length or most < 1:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)  # windows that something follows
        found = np.flatnonzero((windows == tokens[n - length :]).all(axis=1))
        if len(found):
            start = int(found[-1]) + length
            return tokens[start : start + most]
    return tokens[:0]
