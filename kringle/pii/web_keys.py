"""Private parts of JSON Web Keys: `"d"`, RSA's primes and what follows from them, and the octets of a symmetric key.

RFC 7518, section 6: they are base 64 in the alphabet of URLs, members of an object that has a `"kty"`.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_FORMAT, Candidate, whole
from kringle.pii.lookalikes import is_documented, is_encoded_text, is_monotonous
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark

ANCHOR = rb"['\"](?:d|p|q|dp|dq|qi|k)['\"][ ]?:[ ]?['\"][A-Za-z0-9_-]{40}"
CONFIDENCE = 0.95
REACH = 7000  # bytes around a member in which its object's type stands; a key of 8,192 bits has 6,000 in all

_VALUE = re.compile(rb"[A-Za-z0-9_-]{40,1400}(?=['\"])")
_TYPE = re.compile(rb"['\"]kty['\"]")
LEAST_RANDOMNESS = 20.0  # see `rarity.randomness`


def at_member(data: bytes, end: int) -> Candidate | None:
    """The private member whose first 40 characters end at `end`."""
    match = _VALUE.match(data, end - 40)
    if match is None or not _TYPE.search(data, max(0, end - REACH), end + REACH):
        return None
    found = Candidate(*match.span(), "key", "json-web-key", CONFIDENCE, RANK_FORMAT, whole(*match.span()))
    value = match[0]
    harmless = (
        randomness(value[:256]) <= LEAST_RANDOMNESS
        or is_monotonous(value[:256])
        or is_encoded_text(value)
        or is_documented(value)
        or carries_mark(data, found)
    )
    return found._replace(confidence=0.0) if harmless else found
