"""Smoothed BLEU-4 of one-line docstrings, as CodeXGLUE's code-to-text task scores them (Lu et al., 2021).

The scorer of that task (code-to-text/evaluator, itself from Moses) in its own words: both sides are lower-cased, split
into words and single signs, and split once more by NIST's mteval-v13a rules, of which only one still matters after that
(an underscore stands alone). Each sentence gets a BLEU of its own, where 1 is added to matches and totals of n-grams
longer than one word (Lin & Och, 2004), and the score is the mean over sentences times 100. A detail that moves numbers:
the brevity penalty compares lengths plus one.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

_LONGEST = 4
_WORDS = re.compile(r"\w+|[^\s\w]")
_TINY = sys.float_info.min  # in place of the logarithm of zero


def tokens(text: str) -> list[str]:
    """The tokens that are compared."""
    return " ".join(_WORDS.findall(text.strip().lower())).replace("_", " _ ").split()


def sentence_bleu(reference: str, hypothesis: str) -> float:
    """BLEU of one sentence against one reference, in [0, 1]."""
    wanted, given = tokens(reference), tokens(hypothesis)
    total = 0.0
    for size in range(1, _LONGEST + 1):
        there, made = _ngrams(wanted, size), _ngrams(given, size)
        matched = sum(min(count, there[ngram]) for ngram, count in made.items())
        added = 1 if size > 1 else 0
        guessed = max(0, len(given) - size + 1)
        total += math.log(matched + added + _TINY) - math.log(guessed + added + _TINY)
    brevity = min(0.0, 1 - (len(wanted) + 1) / (len(given) + 1))
    return math.exp(total / _LONGEST + brevity)


def mean_bleu(pairs: Sequence[tuple[str, str]]) -> float:
    """100 times the mean over (reference, hypothesis) pairs: the number that papers print."""
    if not pairs:
        raise ValueError("no sentences")
    return 100 * math.fsum(sentence_bleu(*pair) for pair in pairs) / len(pairs)


def _ngrams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
