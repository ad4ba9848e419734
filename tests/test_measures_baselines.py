"""The 5-gram model against the formulas worked out with dictionaries; zstd against itself without a dictionary."""

from __future__ import annotations

import random as standard_random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.evaluation import baselines
from kringle.evaluation.baselines import FALLBACK_DISCOUNTS, ORDER, KneserNey, zstd_bits

START = "start mark"


class SlowKneserNey:
    """Chen & Goodman's recursion, one dictionary of counts per history; nothing shared with the fast one."""

    def __init__(self, shown: list[list[int]], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.counts: list[dict[tuple[object, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(ORDER)]
        longest: Counter[tuple[object, ...]] = Counter()
        for sequence in shown:
            padded = [START] * (ORDER - 1) + sequence
            for i in range(ORDER - 1, len(padded)):
                longest[tuple(padded[i - ORDER + 1 : i + 1])] += 1
        grams: dict[tuple[object, ...], int] = dict(longest)
        for order in range(ORDER, 0, -1):
            for gram, count in grams.items():
                self.counts[order - 1][gram[:-1]][gram[-1]] = count  # type: ignore[index]
            grams = Counter(gram[1:] for gram in grams)  # distinct longer n-grams: one each
        self.discounts = [self._discounts(counts) for counts in self.counts]

    @staticmethod
    def _discounts(counts: dict[tuple[object, ...], Counter[int]]) -> tuple[float, ...]:
        n = Counter(count for followers in counts.values() for count in followers.values())
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            d = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
            if 0 <= d[0] <= 1 and 0 <= d[1] <= 2 and 0 <= d[2] <= 3:
                return d
        return FALLBACK_DISCOUNTS

    def probability(self, token: int, history: tuple[object, ...]) -> float:
        """P(token | the last four of history)."""
        if len(history) > ORDER - 1:
            return self.probability(token, history[1 - ORDER :])
        shorter = self.probability(token, history[1:]) if history else 1 / self.vocabulary
        followers = self.counts[len(history)].get(history)
        if not followers:
            return shorter
        discounts, total = self.discounts[len(history)], sum(followers.values())
        freed = sum(discounts[min(count, 3) - 1] for count in followers.values())
        count = followers[token]
        kept = count - discounts[min(count, 3) - 1] if count else 0.0
        return kept / total + freed / total * shorter


def chatter(seed: int, tokens: int, vocabulary: int) -> list[int]:
    """Tokens with something to learn: each likely follows from the two before it."""
    draw = standard_random.Random(seed)
    row = [0, 1]
    for _ in range(tokens - 2):
        row.append(
            (3 * row[-1] + row[-2]) % vocabulary if draw.random() < 0.7 else int(vocabulary * draw.random() ** 3)
        )
    return row


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=6).filter(any),
    st.lists(st.integers(0, 8), min_size=1, max_size=20),
)
def test_probabilities_are_those_of_the_formula(shown: list[list[int]], tokens: list[int]) -> None:
    fast = KneserNey([np.array(s, dtype=np.int64) for s in shown], vocab_size=9)
    slow = SlowKneserNey(shown, 9)
    expected = [slow.probability(t, (START,) * (ORDER - 1) + tuple(tokens[:i])) for i, t in enumerate(tokens)]
    assert fast.probabilities(np.array(tokens)) == pytest.approx(expected, rel=1e-12)


def test_probabilities_with_estimated_discounts_are_those_of_the_formula() -> None:
    shown = [chatter(seed, 400, 30) for seed in range(5)]
    fast = KneserNey([np.array(s, dtype=np.uint16) for s in shown], vocab_size=32)
    slow = SlowKneserNey(shown, 32)
    assert np.array(fast.discounts) == pytest.approx(np.array(slow.discounts))
    assert fast.discounts[1:] != [FALLBACK_DISCOUNTS] * 4
    tokens = chatter(99, 300, 32)
    expected = [slow.probability(t, (START,) * (ORDER - 1) + tuple(tokens[:i])) for i, t in enumerate(tokens)]
    assert fast.probabilities(np.array(tokens)) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 39), max_size=200), min_size=1, max_size=4).filter(any),
    st.lists(st.integers(0, 39), max_size=6),
)
def test_every_distribution_sums_to_one(shown: list[list[int]], history: list[int]) -> None:
    """After any history, seen or not, over all ids, those that never occurred included."""
    model = KneserNey([np.array(s, dtype=np.int64) for s in shown], vocab_size=40)
    histories = [np.array(history, dtype=np.int64), np.array(shown[0][:4], dtype=np.int64)]
    for before in histories:
        total = sum(model.probabilities(np.array([token]), before)[0] for token in range(40))
        assert total == pytest.approx(1, abs=1e-12)


def test_the_discounts_are_those_of_the_counts_of_counts() -> None:
    """n1 = 6, n2 = 3, n3 = 2, n4 = 1: Y = 6/12, so D = 1 - 1/2, 2 - 1, 3 - 1."""
    assert baselines._discounts(np.array([1] * 6 + [2] * 3 + [3] * 2 + [4] + [9])) == pytest.approx((0.5, 1.0, 2.0))
    assert baselines._discounts(np.array([2, 2, 4])) == FALLBACK_DISCOUNTS  # everything shown twice
    assert baselines._discounts(np.array([1] * 10 + [2, 3])) == FALLBACK_DISCOUNTS  # D2 would be negative


def test_sequences_do_not_run_into_each_other() -> None:
    whole = KneserNey([np.array([1, 2, 3, 4])], 6).probabilities(np.array([3]), np.array([1, 2]))
    apart = KneserNey([np.array([1, 2]), np.array([3, 4])], 6).probabilities(np.array([3]), np.array([1, 2]))
    assert apart[0] < whole[0]


def test_what_was_shown_is_predicted_and_order_matters() -> None:
    text = chatter(0, 20_000, 30)
    shuffled = text.copy()
    standard_random.Random(1).shuffle(shuffled)
    model = KneserNey([np.array(text)], 32)
    new = np.array(chatter(5, 5000, 30))
    cost = [-np.log2(m.probabilities(new)).mean() for m in (model, KneserNey([np.array(shuffled)], 32))]
    # 0.7 of the tokens follow a rule: that coin's 0.88 bits, and the draws' bits for the other 0.3
    assert cost[0] < 2.6
    assert cost[1] > 4.4


def test_documents_are_scored_alone_and_without_their_end() -> None:
    model = KneserNey([np.array([0, *chatter(3, 500, 20), 0])], 24)
    tokens = [np.array(chatter(seed, 30, 20)) for seed in range(3)] + [np.zeros(0, dtype=np.int64)]
    found = model.score_documents(0, [(f"id {i}", "python", 70 + i, t) for i, t in enumerate(tokens)])
    assert [(d.id, d.language, d.bytes) for d in found] == [(f"id {i}", "python", 70 + i) for i in range(4)]
    for document, row in zip(found, tokens, strict=True):
        alone = model.probabilities(row, np.array([0]))
        assert document.bits == pytest.approx(-np.log2(alone).sum())
    assert found[3].bits == 0.0
    assert model.score_documents(0, []) == []


def test_training_data_must_be_tokens() -> None:
    for bad, message in (([], "no tokens"), ([[]], "no tokens"), ([[1, 9]], "between 0 and 8"), ([[-1]], "between 0")):
        with pytest.raises(ValueError, match=message):
            KneserNey([np.array(s, dtype=np.int64) for s in bad], 9)


# -- zstd --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def code() -> bytes:
    """A few hundred kilobytes of real code: the modules of the running Python's standard library."""
    files = sorted(Path(standard_random.__file__).parent.glob("*.py"))
    return b"".join(path.read_bytes() for path in files[:60])


def test_a_dictionary_reaches_back_over_all_that_was_shown() -> None:
    """Copies from the beginning, the middle and the end of 3 MB cost next to nothing, alone or together."""
    noise = standard_random.Random(0).randbytes(3_000_000)
    pieces = [noise[:20_000], noise[1_500_000:1_520_000], noise[-20_000:], noise[:10_000] + noise[2_000_000:2_010_000]]
    found = zstd_bits([(str(i), "python", piece) for i, piece in enumerate(pieces)], noise)
    assert all(d.bits / 8 < 40 for d in found)
    without = zstd_bits([(str(i), "python", piece) for i, piece in enumerate(pieces)], b"")
    assert all(d.bits / 8 > 19_990 for d in without)
    assert [d.bytes for d in found] == [20_000] * 4


def test_a_dictionary_of_code_helps_on_other_code(code: bytes) -> None:
    shown, new = code[:-60_000], [code[-60_000:-30_000], code[-30_000:]]
    documents = [(str(i), "python", content) for i, content in enumerate(new)]
    plain, primed = zstd_bits(documents, b""), zstd_bits(documents, shown)
    for without, with_ in zip(plain, primed, strict=True):
        assert with_.bits < 0.95 * without.bits


def test_frames_can_be_read_back_and_carry_nothing_else(code: bytes) -> None:
    """What is counted is a whole code: a reader with the dictionary gets the bytes back from exactly that many."""
    content, shown = code[-5000:], code[:100_000]
    (found,) = zstd_bits([("a", "python", content)], shown)
    raw = zstandard.ZstdCompressionDict(shown, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    options = {"write_content_size": False, "write_checksum": False, "write_dict_id": False}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        baselines.ZSTD_LEVEL,
        source_size=len(content),
        dict_size=len(shown),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        **options,
    )
    frame = zstandard.ZstdCompressor(dict_data=raw, compression_params=parameters).compress(content)
    reader = zstandard.ZstdDecompressor(dict_data=raw, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    assert reader.decompress(frame, max_output_size=5000) == content
    assert abs(found.bits / 8 - len(frame)) < 20


def test_only_the_last_bytes_fit_a_long_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "ZSTD_DICTIONARY_BYTES", 50_000)
    noise = standard_random.Random(2).randbytes(200_000)
    early, late = zstd_bits([("a", "java", noise[:10_000]), ("b", "java", noise[-10_000:])], noise)
    assert early.bits / 8 > 9990
    assert late.bits / 8 < 40
    assert zstd_bits([], noise) == []
