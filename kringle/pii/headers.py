"""Credentials in HTTP headers and signed links: `Authorization: Bearer ...`, the base 64 of a login, `&sig=...`."""

from __future__ import annotations

import base64
import binascii
import re

from kringle.pii.candidates import RANK_FORMAT, RANK_NAMED, Candidate, whole
from kringle.pii.lookalikes import is_documented, made_up
from kringle.pii.named import Written, judge
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import between_escapes, line_after, line_before

SCHEME_ANCHOR = rb"(?:bearer|basic|token|ssws) [A-Za-z0-9+/_=.~-]{16}"
SIGNATURE_ANCHOR = rb"[?&;]sig=[A-Za-z0-9%]{8}"
LOGIN_ANCHOR = rb"auth['\"]?[ ]?[=:][ ]?['\"]?[A-Za-z0-9+/]{12}"  # _auth=... of .npmrc, "auth": "..." of Docker

_SCHEME = re.compile(rb"(?:\A|[^A-Za-z])(bearer|basic|token|ssws) \Z", re.IGNORECASE)
_CREDENTIALS = re.compile(rb"[A-Za-z0-9+/_=.~-]{16,2000}(?![A-Za-z0-9+/_~-])")
_LOGIN = re.compile(rb"[A-Za-z0-9+/]{12,600}={0,2}(?![A-Za-z0-9+/=])")
_SIGNATURE = re.compile(rb"([A-Za-z0-9%+/]{43,70}(?:%3[Dd]|=)?)(?![A-Za-z0-9%])")
_SIGNED_LINK = re.compile(rb"[?&;](?:se|sv|sp|sr|st)=[A-Za-z0-9%:.-]*")


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
        return judge(data, *value.span(), b"authorization", Written.BARE)
    return _login(data, *value.span())


def at_login(data: bytes, end: int) -> Candidate | None:
    """The base 64 of a user's name and password under the name `auth`, whose anchor ends at `end`."""
    value = _LOGIN.match(data, end - 12)
    return None if value is None else _login(data, *value.span())


def _login(data: bytes, start: int, end: int) -> Candidate | None:
    value = data[start:end]
    found = Candidate(start, end, "key", "basic-credentials", 0.9, RANK_NAMED, whole(start, end))
    if carries_mark(data, found):
        return found._replace(confidence=0.0)
    password = _basic_password(value)
    if password is None:
        return None
    harmless = made_up(password) or randomness(password) <= 0 or is_documented(value)
    return found._replace(confidence=0.0) if harmless else found


def _basic_password(value: bytes) -> bytes | None:
    """RFC 7617: the base 64 of user, colon, password; None if it is none."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon and (user + password).isascii() else None
