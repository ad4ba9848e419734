"""Token healing: a prompt that ends inside a token is continued as if it did not.

A byte-level BPE vocabulary joins letters across the place where a cursor happens to stand: `retu|rn` was one token in
training, and a model that is shown `ret`, `u` has never seen what follows. So the prompt's last tokens are taken back,
and the tokens drawn first must spell their bytes again before anything new: at each draw only tokens are allowed that
agree with the bytes still required, longer ones included. The completion's text leaves those bytes out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

LONGEST = 64  # bytes taken back at most: several tokens, since `    ret` may end a longer token than its last piece


class Vocabulary:
    """The tokens by their bytes, for finding those that begin with given ones."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self.token_bytes = token_bytes
        texts = sorted((raw, token) for token, raw in enumerate(token_bytes) if raw)
        self.sorted, self.ids = [raw for raw, _ in texts], np.array([token for _, token in texts], dtype=np.int64)

    def beginning(self, start: bytes) -> np.ndarray:
        """Ids of all tokens that begin with `start`."""
        low = bisect_left(self.sorted, start)
        high = bisect_left(self.sorted, True, low, key=lambda raw: not raw.startswith(start))
        return self.ids[low:high]

    def allowed(self, required: bytes) -> np.ndarray:
        """Ids of the tokens that agree with `required`: they begin with it, or it begins with them."""
        shorter = [self.ids[i] for end in range(1, len(required)) for i in self._exactly(required[:end])]
        return np.concatenate([np.array(shorter, dtype=np.int64), self.beginning(required)])

    def _exactly(self, raw: bytes) -> range:
        return range(bisect_left(self.sorted, raw), bisect_right(self.sorted, raw))

    def heal(self, prompt: Sequence[int]) -> tuple[list[int], bytes]:
        """(the prompt without its last tokens, the bytes that must be spelled again).

        Tokens are taken back as long as their bytes together are the beginning of some longer token; a prompt that no
        token could bridge comes back whole. Special tokens are never taken back, nor is the prompt's first token.
        """
        best, taken = 0, b""
        for back in range(1, len(prompt)):
            raw = self.token_bytes[prompt[-back]] if prompt[-back] < len(self.token_bytes) else b""
            taken = raw + taken
            if not raw or len(taken) > LONGEST:
                break
            longer = self.beginning(taken)
            if any(len(self.token_bytes[token]) > len(taken) for token in longer.tolist()):
                best = back
        if not best:
            return list(prompt), b""
        return list(prompt[:-best]), b"".join(self.token_bytes[token] for token in prompt[-best:])
