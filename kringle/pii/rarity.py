"""How unlike names and words a string is: the log-likelihood ratio between randomness and source code's own vocabulary.

Two explanations of a string compete: every character drawn evenly from its alphabet, or letter after letter as in the
identifiers and words of source code. The second is a table of pair frequencies (`letter_pairs.csv`), counted over the
distinct identifiers that occur in at least two files of public Python, Java and JavaScript (`count_letter_pairs`).
The ratio grows with length, so it needs no separate length rule, and unlike Shannon entropy it does not take a long
camel-case name for a key.
"""

from __future__ import annotations

import functools
import math
import string
from importlib.resources import files
from itertools import pairwise

import numpy as np

# Classes of characters: 26 small letters, 26 capitals, any digit, anything that joins the words of a name.
_DIGIT, _JOINER, CLASSES = 52, 53, 54
_JOINERS = "_-.$/"
CLASS_OF = bytes(
    string.ascii_letters.index(chr(c))
    if chr(c) in string.ascii_letters
    else _DIGIT
    if chr(c) in string.digits
    else _JOINER
    for c in range(256)
)
# Names hold no other marks, words next to none: one in fifty characters, spread over the 27 other visible ones.
_LOG_MARK = math.log(0.02 / 27)
_NO_MARKS = (string.ascii_letters + string.digits + _JOINERS).encode()


@functools.cache
def _log_text() -> list[float]:
    """Log probability of a character after another in code's vocabulary, flattened (54 x 54)."""
    text = files("kringle.pii").joinpath("letter_pairs.csv").read_text(encoding="ascii")
    rows = [[int(cell) for cell in line.split(",")] for line in text.splitlines() if not line.startswith("#")]
    counts = np.array(rows, dtype=np.float64) + 1  # one pair of each kind, so that none is impossible
    log = np.log(counts / counts.sum(axis=1, keepdims=True))
    log[:, _DIGIT] -= math.log(10)
    log[:, _JOINER] -= math.log(len(_JOINERS))
    return [float(x) for x in log.ravel()]


def _alphabet_size(value: bytes) -> int:
    """Size of the smallest usual alphabet that holds the value: hexadecimal, 36, 62 or all 94 visible characters."""
    letters = value.translate(None, b"0123456789")
    if value.strip(b"0123456789abcdefABCDEF") == b"" and letters in (letters.lower(), letters.upper()):
        return 16
    if value.translate(None, b"+/_=.-").isalnum():
        return 62 if letters.lower() != letters and letters.upper() != letters else 36
    return 94


def randomness(value: bytes) -> float:
    """Log of P(value | random) / P(value | names and words), natural logarithm; above 0 randomness explains it better.

    Random strings of letters and digits score about 1.5 per character, random hexadecimal about 1.1; names score
    below 0.
    """
    if value[:2] in (b"0x", b"0X"):
        value = value[2:]
    if len(value) < 2:
        return 0.0
    size = _alphabet_size(value)
    if value.upper() == value:  # SCREAMING_NAMES follow the same pairs as small ones
        value = value.lower()
    codes = value.translate(CLASS_OF)
    log = _log_text()
    text = sum(log[a * CLASSES + b] for a, b in pairwise(codes))
    if marks := value.translate(None, _NO_MARKS):
        text += sum(
            _LOG_MARK - log[a * CLASSES + _JOINER] for a, c in zip(codes, value[1:], strict=False) if c in marks
        )
    return -math.log(size) * (len(value) - 1) - text
