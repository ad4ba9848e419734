"""Values assigned to a secret's name.

A value counts when randomness explains it better than the vocabulary of code does (`rarity`), weighed with what its
name says. Names are read around a keyword in any notation: `api_key = "..."`, `"apiKey": "..."`, `setPassword("...")`,
`config['secret'] = "..."`, `password: str = "..."`, `?token=...`, `export KEY=...`, `AccountKey=...;`, `Authorization:
Bearer ...`.

Not covered: passwords that are words, and values that are put together at run time.
"""

from __future__ import annotations

import base64
import binascii
import re

from kringle.pii.candidates import RANK_FORMAT, RANK_NAMED, Candidate, whole
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
from kringle.pii.names import KEYWORD, NAME, is_about_secret, is_certain, is_password, may_hold_marks
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import between_escapes, line_after, line_before

ANCHOR = rb"(?:" + KEYWORD + rb")"
SCHEME_ANCHOR = rb"(?:bearer|basic|token|ssws) [A-Za-z0-9+/_=.~-]{16}"
SHORT_ANCHOR = rb"(?:pass|pw|psw)['\"]?[ ]?[=:(,]"
SIGNATURE_ANCHOR = rb"[?&;]sig=[A-Za-z0-9%]{8}"
NAME_LIMIT = 48

_QUOTED = re.compile(
    rb"""[\])'"`]{0,3}(?:[ ]?:[ ]?[A-Za-z_][\w.|\[\]<>]{0,40}(?=[ ]?=))?[\s=:,(!>?+|\[{&]{1,60}[bBrRuUfF@]{0,2}"""
    rb"""(?:[A-Za-z_][\w.]{0,40}\([bBrRuUfF]{0,2})?(?P<quote>["'`])(?:\{[a-z0-9]{2,10}\})?(?P<value>[^\s"'`\\]{6,600})(?P=quote)""",
)
_BARE = re.compile(
    rb"""["']?[ ]?(?:=|:|=>)[ ]?(?P<quote>['"]?)(?P<value>[A-Za-z0-9+/_.~%!@#^*$=-]{8,600})(?=[\s&;,'"`)<>|}\\\]]|\Z)"""
)
_NEXT_ARGUMENT = re.compile(
    rb"""[\])'"`]{0,3}\([^()\n]{0,120}?,\s{0,40}(?P<quote>["'`])(?P<value>[^\s"'`\\]{6,600})(?P=quote)\s{0,4}[,)]"""
)
_SCHEME = re.compile(rb"(?:\A|[^A-Za-z])(bearer|basic|token|ssws) \Z", re.IGNORECASE)
_CREDENTIALS = re.compile(rb"[A-Za-z0-9+/_=.~-]{16,2000}(?![A-Za-z0-9+/_~-])")
_SIGNATURE = re.compile(rb"([A-Za-z0-9%+/]{43,70}(?:%3[Dd]|=)?)(?![A-Za-z0-9%])")
_SIGNED_LINK = re.compile(rb"(?:[?&;](?:se|sv|sp|sr|st)=[A-Za-z0-9%:.-]*){1}")
LEAST_TOKEN = 12  # characters of a secret that is no password
_CODE = frozenset(b"{}<>[];,|")
_TOKEN = re.compile(rb"[A-Za-z0-9+/_.~:%-]+={0,2}")  # what tokens are made of; passwords may hold any mark
_SEPARATOR = frozenset(b"=:,(|?+!>[")
_WORDS_JOINED = re.compile(rb"[A-Za-z]?[a-z]*(?:[-_.:/ ][A-Za-z]?[a-z]*)*|[A-Z]+(?:[-_.:/ ][A-Z]+)*")
_RARE_MARK = re.compile(rb"[!@#^*~%]")
_LETTER, _DIGIT = re.compile(rb"[A-Za-z]"), re.compile(rb"[0-9]")
_DIGEST_LINE = re.compile(rb"sha-?[0-9]|md5|hash|digest|checksum|crc32|fingerprint|hmac", re.IGNORECASE)

# Log odds that a value must reach, by what speaks for it; see `rarity.randomness`
QUOTED_LEAST = 8.0  # in quotes under a secret's name
BARE_LEAST = 10.0  # without quotes: may be an expression
QUERY_LEAST = 5.0  # in a query or connection string
PARENTHESES_LEAST = 30.0  # with parentheses, as code has
WORD_LEAST = 6.0  # under a password's name
RARE_MARK_LEAST = 3.0  # under a password's name, without quotes, with all four classes and a mark that names have not
PASSWORD_LEAST = 0.0  # under a password's name, with three classes of characters


def at_event(data: bytes, end: int) -> Candidate | None:
    """The value of the name that holds the keyword ending at `end`: a finding, a shield, or None."""
    low = max(0, end - NAME_LIMIT)
    start = end - (len(data[low:end]) - len(data[low:end].rstrip(NAME)))
    tail = data[end : end + NAME_LIMIT]
    stop = end + len(tail) - len(tail.lstrip(NAME + b"."))
    match, least, direct = _QUOTED.match(data, stop), QUOTED_LEAST, True
    if match is not None and not set(data[stop : match.start("quote")]) & _SEPARATOR:
        match = None
    if match is None:
        match, direct = _NEXT_ARGUMENT.match(data, stop), False
    if match is None:
        match, least = (
            _BARE.match(data, stop),
            QUERY_LEAST if data[start - 1 : start] in (b"?", b"&", b";") else BARE_LEAST,
        )
        if match is None or data[match.end() : match.end() + 1] == b"(":
            return None
    name = data[start:stop].rstrip(b".")
    if data[start - 2 : start] == b"::":
        return None  # a type's name, as in "AWS::IAM::AccessKey"
    if not direct and UUID.fullmatch(match["value"]):
        return None
    return _judge(data, match.start("value"), match.end("value"), name, least)


def at_short_name(data: bytes, end: int) -> Candidate | None:
    """As `at_event`, for the short names `pass` and `pw`, whose anchor includes what separates them from the value."""
    head = data[max(0, end - 8) : end]
    return at_event(data, end - (len(head) - len(head.rstrip(b"'\" =:(,"))))


def at_signature(data: bytes, end: int) -> Candidate | None:
    """The signature of an Azure link with shared access (`...&se=...&sig=...`) whose anchor ends at `end`."""
    match = _SIGNATURE.match(data, end - 8)
    around = line_before(data, end, 400) + line_after(data, end, 400)
    if match is None or not _SIGNED_LINK.search(around):
        return None
    start, stop = match.span(1)
    groups = (between_escapes(data, start, stop),)
    found = Candidate(start, stop, "key", "azure-shared-access-signature", 0.95, RANK_FORMAT, groups)
    return found._replace(confidence=0.0) if carries_mark(data, found) or made_up(match[1]) else found


def at_scheme(data: bytes, end: int) -> Candidate | None:
    """The credentials of an `Authorization` header whose anchor ends at `end`: a finding, a shield, or None."""
    scheme = _SCHEME.search(data[max(0, end - 24) : end - 16])
    value = _CREDENTIALS.match(data, end - 16)
    if scheme is None or value is None:
        return None
    if scheme[1].lower() != b"basic":
        return _judge(data, *value.span(), b"authorization", BARE_LEAST)
    found = Candidate(*value.span(), "key", "basic-credentials", 0.9, RANK_NAMED, whole(*value.span()))
    if carries_mark(data, found):
        return found._replace(confidence=0.0)
    password = _basic_password(value[0])
    if password is None:
        return None
    harmless = made_up(password) or randomness(password) <= 0 or is_documented(value[0])
    return found._replace(confidence=0.0) if harmless else found


def _basic_password(value: bytes) -> bytes | None:
    """RFC 7617: the base 64 of user, colon, password; None if it is none."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon and (user + password).isascii() else None


def _judge(data: bytes, start: int, end: int, name: bytes, least: float) -> Candidate | None:
    value = data[start:end]
    quoted = least == QUOTED_LEAST
    if not quoted:
        value = value.rstrip(b".,!")
        end = start + len(value)
    if least != BARE_LEAST and may_hold_marks(name) and (b"(" in value or b")" in value):
        least = PARENTHESES_LEAST
    elif least != BARE_LEAST and is_password(name):
        least = PASSWORD_LEAST if classes(value) >= 3 else WORD_LEAST
    elif is_password(name) and classes(value) == 4 and _RARE_MARK.search(value):
        least = RARE_MARK_LEAST
    elif (not may_hold_marks(name) and not _TOKEN.fullmatch(value)) or len(value) < LEAST_TOKEN:
        return None
    odds = randomness(value) - least
    if odds <= 0 or _is_harmless(value, quoted) or is_about_secret(name):
        return None
    groups = whole(start, end) if quoted else (between_escapes(data, start, end),)
    found = Candidate(start, end, "key", "secret", _confidence(odds), RANK_NAMED, groups)
    if carries_mark(data, found) or (is_digest(value) and _DIGEST_LINE.search(line_before(data, start, 80))):
        return found._replace(confidence=0.0)
    if UUID.fullmatch(value):
        return found._replace(confidence=0.6 if is_certain(name) else 0.0)
    return found


def _is_harmless(value: bytes, quoted: bool) -> bool:
    """Too short, a template, a URL, words or a placeholder, or without what a secret is made of."""
    if len(value) < 6 or set(value) & _CODE or b"://" in value or _WORDS_JOINED.fullmatch(value):
        return True
    if (
        is_identifier(value)
        or is_template(value)
        or is_path(value)
        or is_format(value)
        or is_public_identifier(value)
        or is_encoded_text(value)
    ):
        return True
    if not _LETTER.search(value) or not (quoted or _DIGIT.search(value)) or (is_hexadecimal(value) and len(value) < 16):
        return True
    return made_up(value[:256]) or is_documented(value)


def _confidence(odds: float) -> float:
    """From 0.5 at the limit towards 0.9: a name and randomness convince, but prove nothing."""
    return round(0.5 + 0.4 * min(1.0, odds / 20), 3)
