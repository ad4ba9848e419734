"""Whether a value that stands under a secret's name is one: weighed by how it is written, its name, and randomness.

A value counts when randomness explains it better than the vocabulary of code does (`rarity`), by a margin that what
surrounds it sets. Under a password's name, with letters of both cases, digits and marks, a value needs no randomness:
people choose passwords from words.

Not covered: passwords without marks that are words, and values that are put together at run time.
"""

from __future__ import annotations

import base64
import binascii
import re
from enum import Enum

from kringle.pii.candidates import RANK_NAMED, Candidate, whole
from kringle.pii.lookalikes import (
    UUID,
    classes,
    is_digest,
    is_documented,
    is_encoded_text,
    is_format,
    is_hexadecimal,
    is_identifier,
    is_path,
    is_public_identifier,
    is_template,
    made_up,
)
from kringle.pii.names import is_about_secret, is_certain, is_password, may_hold_marks
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import between_escapes, line_before


class Written(Enum):
    """How a value stands in the text."""

    QUOTED = "in quotes, or between marks that end it as surely"
    QUERY = "in a query or connection string"
    BARE = "without quotes: may be an expression"
    OPTION = "as an argument that can be nothing but a password"


PASSWORD, KEY = b"password", b"api_key"  # names under which a value without one is judged
LEAST_TOKEN = 12  # characters of a secret that is no password
LEAST_CHOSEN = 8  # characters of a password that somebody chose
_CODE = frozenset(b"{}<>[];,|")
_TOKEN = re.compile(rb"[A-Za-z0-9+/_.~:%-]+={0,2}")  # what tokens are made of; passwords may hold any mark
_WORDS_JOINED = re.compile(rb"[A-Za-z]?[a-z]*(?:[-_.:/ ][A-Za-z]?[a-z]*)*|[A-Z]+(?:[-_.:/ ][A-Z]+)*")
_RARE_MARK = re.compile(rb"[!@#^*~%]")  # marks that names and expressions hold rarely
_CHOSEN_MARK = re.compile(rb"[!@#$%^&*~?+]")
_LOWER, _UPPER, _DIGIT = re.compile(rb"[a-z]"), re.compile(rb"[A-Z]"), re.compile(rb"[0-9]")
_DIGEST_LINE = re.compile(rb"sha-?[0-9]|md5|hash|digest|checksum|crc32|fingerprint|hmac", re.IGNORECASE)

# Log odds that a value must reach, by what speaks for it; see `rarity.randomness`
QUOTED_LEAST = 8.0  # in quotes under a secret's name
BARE_LEAST = 10.0  # without quotes: may be an expression
QUERY_LEAST = 5.0  # in a query or connection string
PARENTHESES_LEAST = 30.0  # with parentheses, as code has
WORD_LEAST = 6.0  # under a password's name
BARE_PASSWORD_LEAST = 5.0  # under a password's name, without quotes, with three classes of characters
PASSWORD_LEAST = 0.0  # under a password's name, with three classes of characters
CLEAR, UNDENIABLE = 8.0, 40.0  # log odds at which a value is no name, and no template, whatever it looks like
CHOSEN_LEAST = -24.0  # under a password's name, with all four classes and a mark that names have not
OPTION_LEAST = -8.0  # as a password's argument, with letters of both cases and digits


def judge(data: bytes, start: int, end: int, name: bytes, written: Written) -> Candidate | None:
    """The value `data[start:end]` under a name: a finding, a shield, or None."""
    if written is not Written.QUOTED:
        end = start + len(data[start:end].rstrip(b".,"))
    value = data[start:end]
    least = _least(value, name, written)
    if least is None:
        return None
    odds = randomness(value) - least
    if UUID.fullmatch(value):  # its hyphens hide that it is hexadecimal
        odds = max(odds, 0.1)
    if odds <= 0 or _is_harmless(value, name, written, odds) or is_about_secret(name):
        return None
    groups = whole(start, end) if written is Written.QUOTED else (between_escapes(data, start, end),)
    found = Candidate(start, end, "key", "secret", _confidence(odds), RANK_NAMED, groups)
    if carries_mark(data, found) or (is_digest(value) and _DIGEST_LINE.search(line_before(data, start, 80))):
        return found._replace(confidence=0.0)
    if UUID.search(value):
        return found._replace(confidence=0.6 if is_certain(name) else 0.0)
    return found


def _least(value: bytes, name: bytes, written: Written) -> float | None:
    """The log odds that the value must reach; None where it is not what such a name holds."""
    bare = written is Written.BARE
    if not bare and may_hold_marks(name) and (b"(" in value or b")" in value):
        return PARENTHESES_LEAST
    if is_password(name):
        marks = (_RARE_MARK if bare else _CHOSEN_MARK).search(value)
        if classes(value) == 4 and marks and len(value) >= LEAST_CHOSEN:
            return CHOSEN_LEAST
        mixed = _LOWER.search(value) and _UPPER.search(value) and _DIGIT.search(value)
        if written is Written.OPTION and mixed:
            return OPTION_LEAST
        if not bare:
            return PASSWORD_LEAST if classes(value) >= 3 else WORD_LEAST
        if len(value) >= LEAST_CHOSEN and mixed:
            return BARE_PASSWORD_LEAST
    if written is Written.QUOTED and may_hold_marks(name) and classes(value) == 4 and _RARE_MARK.search(value):
        return PASSWORD_LEAST if len(value) >= LEAST_TOKEN else None
    if (not may_hold_marks(name) and not _TOKEN.fullmatch(value)) or len(value) < LEAST_TOKEN:
        return None
    return {Written.QUOTED: QUOTED_LEAST, Written.QUERY: QUERY_LEAST}.get(written, BARE_LEAST)


def _is_harmless(value: bytes, name: bytes, written: Written, odds: float) -> bool:
    """Too short, a template, a URL, words or a placeholder, or without what a secret is made of."""
    if len(value) < 6 or set(value) & _CODE or b"://" in value or _WORDS_JOINED.fullmatch(value):
        return True
    if (
        (is_identifier(value) and odds < CLEAR)
        or (is_template(value) and odds < UNDENIABLE)
        or is_path(value)
        or (is_format(value) and odds < UNDENIABLE)
        or is_public_identifier(value)
        or (is_encoded_text(value) and not (is_password(name) and _is_encoded_password(value)))
    ):
        return True
    if not (_LOWER.search(value) or _UPPER.search(value)) or (is_hexadecimal(value) and len(value) < 16):
        return True
    if written is not Written.QUOTED and not _DIGIT.search(value):
        return True
    return made_up(value[:256]) or is_documented(value)


def _is_encoded_password(value: bytes) -> bool:
    """Base 64 of what is a password itself: how manifests write it."""
    try:
        decoded = base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    least = PASSWORD_LEAST if classes(decoded) >= 3 else WORD_LEAST
    return randomness(decoded) > least and not made_up(decoded) and b" " not in decoded


def _confidence(odds: float) -> float:
    """From 0.5 at the limit towards 0.9: a name and randomness convince, but prove nothing."""
    return round(0.5 + 0.4 * min(1.0, odds / 20), 3)
