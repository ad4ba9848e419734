"""What is looked for and by which rule: a setting of the recipe as shingles, bands and a way to choose survivors."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.near_duplicates.bands import Bands, balanced_bands, sure_bands
from kringle.data.near_duplicates.minhash import SHORTEST, Signatures, legacy_signatures, word_signatures
from kringle.data.near_duplicates.shingles import ASCII_WORD, REAL_WORD
from kringle.errors import UserError

Fidelity = Literal["faithful", "corrected"]
Rule = Literal["verified", "components", "extremes"]

# datasketch's default, which the base step's script used, and the seed of the stronger step's script.
_BASE_SEED, _STRONGER_SEED = 1, 42


class Method(NamedTuple):
    """One way of looking for near-duplicates.

    `verified`: of all documents, the best first, one goes when an exact Jaccard similarity of `threshold` or more with
    one that stays is found; notices of copyright and licence at the top do not count. `components` (BigCode's stronger
    step): of documents connected by shared bands the first stays, unverified, and those shorter than `shortest` tokens
    go. `extremes` (its base step): in each cluster, grown in the order of the documents, one goes when its similarity
    with one that stays reaches the threshold.
    """

    ngram: int
    threshold: float
    rule: Rule
    bands: Bands
    shortest: int

    @classmethod
    def of(cls, ngram: int, threshold: float, fidelity: Fidelity) -> Method:
        """Raises `UserError` for a faithful n-gram that is longer than the shortest file."""
        if fidelity == "corrected":
            return cls(ngram, threshold, "verified", sure_bands(threshold), max(SHORTEST, ngram))
        if ngram > SHORTEST:
            what = f"the original takes files of {SHORTEST} tokens and more, so no n-gram may be longer than that"
            raise UserError(what, where="near_dedup.ngram", hint=f"got {ngram}; use fidelity: corrected")
        return cls(ngram, threshold, "extremes" if ngram == 1 else "components", balanced_bands(threshold), SHORTEST)

    @property
    def name(self) -> str:
        """Names files: `corrected-n5-t0.7`."""
        kind = "corrected" if self.rule == "verified" else "faithful"
        return f"{kind}-n{self.ngram}-t{self.threshold:g}"

    @property
    def word(self) -> NDArray[np.bool_]:
        """Which bytes belong to words (256,)."""
        return REAL_WORD if self.rule == "verified" else ASCII_WORD

    @property
    def criterion(self) -> str:
        """What keeps a document, in words."""
        if self.rule == "components":
            return f"first of those sharing one of {self.bands.bands} bands, {self.shortest} tokens"
        return f"similarity < {self.threshold:g}"

    def signatures(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Signatures:
        """Band keys and token counts of the texts data[offsets[i] : offsets[i + 1]]."""
        if self.rule == "verified":
            return word_signatures(data, offsets, self.ngram, self.shortest, self.bands)
        seed = _BASE_SEED if self.rule == "extremes" else _STRONGER_SEED
        return legacy_signatures(data, offsets, self.ngram, self.rule == "components", seed, self.bands)
