"""Random strings in quotes whose name or line leans towards a secret without naming one: `key`, `sign(...)`, `account`.

Digests, commits, traces, test vectors and encoded data are random too and far more frequent than keys: in 1.1 GB of
code by other people, random strings with no such word near them were never keys. So a word is required, hexadecimal
must be assigned to it, and one of several long strings in a row is never reported.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_FORMAT, RANK_RANDOM, Candidate, whole
from kringle.pii.format_checks import base58_bytes
from kringle.pii.lookalikes import (
    UUID,
    is_documented,
    is_encoded_text,
    is_hexadecimal,
    is_identifier,
    is_public_identifier,
    is_template,
    made_up,
)
from kringle.pii.names import is_public, leans
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import line_after, line_before

ANCHOR = rb"['\"`][A-Za-z0-9+/_=-]{20}"
_STRING = re.compile(rb"(?P<quote>['\"`])(?P<value>[A-Za-z0-9+/_=-]{20,140})(?P=quote)")
# Read backwards from the quote: a string prefix, what assigns, closing quotes and brackets, the name.
_NAME_BACKWARDS = re.compile(
    rb"[bBrRuUfF]{0,2}\s{0,8}(?:>=|[:=(]|,(?=\s{0,8}['\"`])|==|\?\?|\|\|)\s{0,8}['\"`\])]{0,3}([\w$-]{0,60}[A-Za-z_$])"
)
_DIGIT, _LOWER, _UPPER = re.compile(rb"[0-9]"), re.compile(rb"[a-z]"), re.compile(rb"[A-Z]")

LEAST_HEXADECIMAL = 32  # shorter ones are row ids: 24 digits in MongoDB
LEANING_LEAST, UNNAMED_LEAST = 8.0, 18.0  # see `rarity.randomness`; for a leaning name, and for a leaning line


def at_event(data: bytes, end: int) -> Candidate | None:
    """The quoted string that begins with an anchor ending at `end`: a finding, a shield, or None."""
    start = end - 21
    match = _STRING.match(data, start)
    if match is None:
        return None
    value, span = match["value"], match.span("value")
    if not _DIGIT.search(value):
        return None
    if len(value) in (51, 52) and is_wallet_key(value):
        return Candidate(*span, "key", "bitcoin-private-key", 0.99, RANK_FORMAT, whole(*span))
    odds = randomness(value) - LEANING_LEAST
    if odds <= 0:
        return None
    before = line_before(data, start, 100)
    named = _NAME_BACKWARDS.match(before[::-1])
    name = named[1][::-1] if named else b""
    leaning = leans(name)
    if not leaning:
        odds += LEANING_LEAST - UNNAMED_LEAST
        if odds <= 0 or not leans(before) or is_public(before):
            return None
    if value == name or is_public(name) or _is_harmless(value, leaning) or _in_a_row(data, *match.span()):
        return None
    confidence = round(0.3 + 0.4 * min(1.0, odds / 20), 3)
    found = Candidate(*span, "key", "random-string", confidence, RANK_RANDOM, whole(*span))
    return None if carries_mark(data, found) else found


def _is_harmless(value: bytes, leaning: bool) -> bool:
    if is_hexadecimal(value):
        if not (leaning and len(value) >= LEAST_HEXADECIMAL):
            return True
    elif not leaning and not (_LOWER.search(value) and _UPPER.search(value)):
        return True
    return (
        UUID.search(value) is not None
        or is_template(value)
        or is_documented(value)
        or is_public_identifier(value)
        or is_identifier(value)
        or made_up(value)
        or is_encoded_text(value)
    )


def _in_a_row(data: bytes, start: int, end: int) -> bool:
    """Another long string stands right before or after: a table or a text in pieces, not a key."""
    before, after = line_before(data, start, 8), line_after(data, end, 8)
    return before.rstrip(b" +,").endswith((b"'", b'"')) and after.lstrip(b" +,").startswith((b"'", b'"'))


def is_wallet_key(value: bytes) -> bool:
    """A Bitcoin private key in wallet import format: version 0x80, and a checksum that agrees."""
    raw = base58_bytes(value)
    return raw is not None and raw[:1] == b"\x80"
