"""What a model must beat: two predictors of code that need no neural network, given the very same training data.

- `KneserNey`: an interpolated 5-gram model of exactly the token sequences that a model was trained on, in the order
  and with the sentinels that it saw.
- `zstd_bits`: zstd at its highest level with the bytes of those tokens as a dictionary, so that it can point back at
  everything the model was shown.

Both return bits file by file, as `kringle.evaluation.bits_per_byte` does for a model, so all three are compared on the
same files. Both hold their data in memory (the 5-gram model about 150 bytes per training token), so of a long training
they get the end: `MOST_TOKENS`, and zstd `ZSTD_DICTIONARY_BYTES` of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from kringle.evaluation.bits_per_byte import DocumentBits

ORDER = 5
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Where counts of counts give no estimate (a tiny or a repeated corpus), these: KenLM's `--discount_fallback`
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

MOST_TOKENS = 100_000_000  # 15 GB; of a longer training the last that were shown
ZSTD_LEVEL = 22  # the highest
ZSTD_DICTIONARY_BYTES = 1 << 26  # 64 MiB; the search tables take eight times that


# -- n-grams -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length. A history (the n-gram without its last token) has the number that the previous
    order gives to it; `keys` = history * base + token, sorted, and an n-gram's position there is its own number.

    share: discounted count over the history's total, per n-gram. left: mass of each history (by number) that goes to
    the next shorter history; 1 where the history was never followed by anything.
    """

    keys: Ints
    share: Floats
    left: Floats
    discounts: tuple[float, float, float]


class KneserNey:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1998, TR-10-98 Harvard, section 3).

        p(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.) + left(h) p(w | h'),   h' = h without its first token
        left(h) = (D1 N1(h.) + D2 N2(h.) + D3 N3+(h.)) / c(h.)

    c is the number of occurrences for the longest n-grams, and for shorter ones the number of different tokens seen
    before them. Three discounts per order: D1 = 1 - 2Y n2/n1, D2 = 2 - 3Y n3/n2, D3+ = 3 - 4Y n4/n3 with
    Y = n1/(n1 + 2 n2), where n_i n-grams have the count i. The recursion ends in the uniform distribution over the
    vocabulary; a history never seen gives way to the next shorter one. Every distribution sums to 1 over the
    `vocab_size` ids.

    Before a sequence stand `ORDER` - 1 start marks that are never predicted themselves.
    """

    def __init__(self, shown: Iterable[np.ndarray], vocab_size: int) -> None:
        """Train on `shown`: each array is one sequence of token ids below `vocab_size`, as the model was shown it."""
        self.vocab_size = vocab_size
        self._base = vocab_size + 1  # the last id is the start mark
        tokens, events = self._with_marks(list(shown))
        if not events.any():
            raise ValueError("no tokens to train on")
        if int(tokens.max()) > vocab_size or int(tokens.min()) < 0 or (tokens[events] == vocab_size).any():
            raise ValueError(f"token ids must lie between 0 and {vocab_size - 1}")
        numbers = [np.zeros_like(tokens)]  # [k][j]: number of the k-gram that ends at position j
        keys = []
        for _ in range(ORDER):
            history = np.concatenate(([0], numbers[-1][:-1]))
            found, number = np.unique(history * self._base + tokens, return_inverse=True)
            keys.append(found)
            numbers.append(number.astype(np.int64))
        self._orders = [self._fit(order, keys, numbers, events) for order in range(1, ORDER + 1)]

    def _with_marks(self, sequences: Sequence[np.ndarray]) -> tuple[Ints, NDArray[np.bool_]]:
        """All sequences in one row, each after its start marks; and which positions are tokens."""
        marks = np.full(ORDER - 1, self.vocab_size, dtype=np.int64)
        row = np.concatenate([part for s in sequences for part in (marks, s)] or [marks]).astype(np.int64)
        events = np.concatenate(
            [part for s in sequences for part in (np.zeros(ORDER - 1, bool), np.ones(len(s), bool))]
            or [np.zeros(ORDER - 1, bool)]
        )
        return row, events

    def _fit(self, order: int, keys: Sequence[Ints], numbers: Sequence[Ints], events: NDArray[np.bool_]) -> _Order:
        """Discounted counts of the n-grams of length `order`."""
        size = len(keys[order - 1])
        if order == ORDER:
            counts = np.bincount(numbers[order][events], minlength=size)
        else:  # how many n-grams one longer end with this one
            _, first = np.unique(numbers[order + 1][events], return_index=True)
            counts = np.bincount(numbers[order][events][first], minlength=size)
        discounts = _discounts(counts)
        taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
        history = keys[order - 1] // self._base
        histories = 1 if order == 1 else len(keys[order - 2])
        total = np.bincount(history, counts, histories)
        left = np.ones(histories)
        np.divide(np.bincount(history, taken, histories), total, out=left, where=total > 0)
        share = np.zeros(size)
        np.divide(counts - taken, total[history], out=share, where=total[history] > 0)
        return _Order(keys[order - 1], share, left, discounts)

    @property
    def discounts(self) -> list[tuple[float, float, float]]:
        """D1, D2 and D3+ of the orders 1 to 5."""
        return [order.discounts for order in self._orders]

    def probabilities(self, tokens: np.ndarray, history: np.ndarray | None = None) -> Floats:
        """Probability (T,) of each token given those before it and, before the first, `history` or the start marks."""
        row, _ = self._with_marks([np.concatenate((history, tokens)) if history is not None else tokens])
        start = len(row) - len(tokens)
        probability = np.full(len(row), 1 / self.vocab_size)
        before: Ints = np.zeros_like(row)  # number of the history that precedes each position, -1 if never seen
        for order in self._orders:
            seen = before >= 0
            keys = np.where(seen, before * self._base + row, -1)
            at = _find(order.keys, keys)
            probability[seen] *= order.left[before[seen]]
            probability[at >= 0] += order.share[at[at >= 0]]
            before = np.concatenate(([-1], at[:-1]))
        return probability[start:]

    def score_documents(
        self, end_of_text: int, documents: Iterable[tuple[str, str, int, np.ndarray]]
    ) -> list[DocumentBits]:
        """Bits of each document (id, language, size in bytes, tokens), its first token after an end-of-text token.

        As for a model, the end-of-text after the document is not charged.
        """
        listed = list(documents)
        marks = np.full(ORDER - 2, self.vocab_size)
        rows = [np.concatenate((marks, [end_of_text], tokens)) for *_, tokens in listed]
        probability = self.probabilities(np.concatenate(rows)) if rows else np.zeros(0)
        bits = -np.log2(probability, out=np.zeros_like(probability), where=probability > 0)
        ends = np.cumsum([len(row) for row in rows])
        return [
            DocumentBits(name, language, math.fsum(bits[end - len(tokens) : end]), size)
            for (name, language, size, tokens), end in zip(listed, ends, strict=True)
        ]


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Position of each wanted key among sorted keys, -1 where absent. Sorting first makes the search walk forward."""
    order = np.argsort(wanted)
    at = np.empty_like(wanted)
    at[order] = np.searchsorted(keys, wanted[order])
    return np.where(keys[np.minimum(at, len(keys) - 1)] == wanted, at, -1)


def _discounts(counts: Ints) -> tuple[float, float, float]:
    """D1, D2, D3+ from how many n-grams have the counts 1 to 4 (Chen & Goodman 1998)."""
    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= d <= count for count, d in enumerate(found, start=1)):
            return found
    return FALLBACK_DISCOUNTS


# -- compression -------------------------------------------------------------------------------------------------------


def zstd_bits(documents: Sequence[tuple[str, str, bytes]], shown: bytes) -> list[DocumentBits]:
    """Bits of each document (id, language, content), compressed alone by zstd with `shown` as its raw dictionary.

    Level 22, a window that reaches back over the whole dictionary, no magic number, checksum, length or dictionary
    number in the frame. Of more than `ZSTD_DICTIONARY_BYTES` the last ones are taken, the most recent that were shown.
    An empty `shown` means no dictionary.
    """
    largest = max((len(content) for *_, content in documents), default=0)
    dictionary = shown[-ZSTD_DICTIONARY_BYTES:]
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        source_size=max(1, largest),
        dict_size=len(dictionary),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    raw = None
    if dictionary:
        raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        raw.precompute_compress(compression_params=parameters)
    compressor = zstandard.ZstdCompressor(dict_data=raw, compression_params=parameters)
    return [
        DocumentBits(name, language, 8.0 * len(compressor.compress(content)), len(content))
        for name, language, content in documents
    ]
