"""Passwords in URLs: `scheme://user:password@host`, the password alone, or `scheme://token@host`, the token.

Short passwords, and words with a number, count where the host is a real one (`deploy:xk7@ftp.corp.io`) and neither user
nor password is what people write into tests (`user:pass1@host`). Not reported: passwords that are words without marks
(`guest:guest`), placeholders, templates, and tokens that have a format of their own.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_URL, Candidate, whole
from kringle.pii.lookalikes import classes, is_template, made_up
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import between_escapes

_USER = rb"[^\x00-\x20:@/?#\"'`<>\\\x7f]{0,100}"
_PASSWORD = rb"[^\x00-\x20@/\"'`<>\\\x7f]{3,200}"
ANCHOR = rb"://" + _USER + rb":" + _PASSWORD + rb"@"
REACH = 3 + 100 + 1 + 200 + 1  # the longest that the anchor can be

_LOGIN = re.compile(
    rb"://(?P<user>" + _USER + rb"):(?P<password>" + _PASSWORD + rb"(?:@" + _PASSWORD + rb"){0,2})@(?=[A-Za-z0-9\[$%{])"
)
USER_ANCHOR = rb"://[A-Za-z0-9_-]{20,100}[:@]"
_TOKEN = re.compile(rb"(?P<token>[A-Za-z0-9_-]{20,100})(?::x-oauth-basic|:)?@(?=[A-Za-z])(?!o[0-9]+\.ingest|sentry)")
ORACLE_ANCHOR = rb"jdbc:oracle:[a-z0-9]{3,5}:[A-Za-z0-9_]{1,40}/[^\s/\"'@<>\\]{4,64}@"
_ORACLE = re.compile(rb"/([^/]{4,64})@\Z")

# See `rarity.randomness`: for any password, with three classes of characters, with all four
LEAST_RANDOMNESS, LEAST_OF_THREE_CLASSES, LEAST_OF_FOUR_CLASSES = 2.0, 0.0, -24.0
LEAST_OF_TOKEN = 12.0
SHORT = 4  # characters, in which few different ones are no sign of a placeholder
CONFIDENCE, CONFIDENCE_OF_WEAK = 0.9, 0.6
_LOGIN_SCHEME = re.compile(
    rb"\b(?:s?ftps?|https?|ssh|smb|rtsp|mysql|postgres(?:ql)?|mongodb(?:\+srv)?|rediss?|amqps?|ldaps?|imaps?|smtps?|mqtts?)\Z",
    re.IGNORECASE,
)
_WEAK = re.compile(rb"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9!*$^+=~-]{3,16}")
_PLACEHOLDERS = re.compile(
    rb"(?:(?:my|the|your|db|url|some|old|new)?(?:pass?|pw|psw|pwd|p4ss|secret|word|user|usr|name|login|token|key|foo|bar|baz|"
    rb"abc|xyz|aaa|bbb|qwe|asd|test|guest|demo|root|admin|pg|pgpass|[a-z]))?[0-9]{0,4}!?",
    re.IGNORECASE,
)
_USERS = re.compile(rb"(?:|user(?:name)?|usr|login|name|foo|bar|test|guest|demo|me|you|[a-z])[0-9]{0,3}", re.IGNORECASE)
# A name with a dot that is no example's (RFC 2606, RFC 6761) and no placeholder's
_HOST = re.compile(rb"@(?P<host>[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6})(?=[:/?#\s\"'`<),;\]]|\Z)")
_TEST_HOST = re.compile(
    rb"(?:^|[.-])(?:example|test|tests|testing|localhost|invalid|local|localdomain|host|hostname|domain|server|foo|bar|"
    rb"mydomain|yourdomain|myhost|site|website|url|proxy|google|a|b|c|x|y|z)[0-9]{0,3}(?:$|[.-])|^[0-9.]+$",
    re.IGNORECASE,
)


def at_event(data: bytes, end: int) -> Candidate | None:
    """The password before the at sign of an anchor that ends at `end`: a finding, a shield, or None."""
    start = data.rfind(b"://", max(0, end - REACH), end)
    match = _LOGIN.match(data, start) if start >= 0 else None
    if match is None or match.end() < end:
        return None
    if is_template(match["user"]):
        return None
    found = _judged(data, *match.span("password"), match["user"])
    if found is not None and not found.confidence and _is_weak(data, match) and not carries_mark(data, found):
        return found._replace(confidence=CONFIDENCE_OF_WEAK)
    return found


def _is_weak(data: bytes, match: re.Match[bytes]) -> bool:
    """A short password, or a word with a number, that somebody uses: for a user and at a host that are no example's."""
    password, user = match["password"], match["user"]
    host = _HOST.match(data, match.end() - 1)
    if not _WEAK.fullmatch(password) or host is None or user.lower() == password.lower():
        return False
    if not _LOGIN_SCHEME.search(data, max(0, match.start() - 12), match.start()):
        return False
    if _PLACEHOLDERS.fullmatch(password) or _USERS.fullmatch(user) or _TEST_HOST.search(host["host"]):
        return False
    return len(password) <= SHORT or not made_up(password)


def at_oracle(data: bytes, end: int) -> Candidate | None:
    """The password of Oracle's short form, `jdbc:oracle:thin:user/password@...`, whose anchor ends at `end`."""
    match = _ORACLE.search(data, max(0, end - 70), end)
    return None if match is None else _judged(data, *match.span(1), b"")


def _judged(data: bytes, start: int, end: int, user: bytes) -> Candidate | None:
    password = data[start:end]
    if is_template(password):
        return None
    found = Candidate(start, end, "key", "url-password", CONFIDENCE, RANK_URL, (between_escapes(data, start, end),))
    least = {3: LEAST_OF_THREE_CLASSES, 4: LEAST_OF_FOUR_CLASSES}.get(classes(password), LEAST_RANDOMNESS)
    if carries_mark(data, found) or password == user or made_up(password) or randomness(password) <= least:
        return found._replace(confidence=0.0)
    return found


def at_user(data: bytes, end: int) -> Candidate | None:
    """The token that stands in place of user and password, as in `https://<token>@host`."""
    start = data.rfind(b"://", max(0, end - 110), end) + 3
    match = _TOKEN.match(data, start)
    if match is None or randomness(match["token"]) <= LEAST_OF_TOKEN or made_up(match["token"]):
        return None
    start, end = match.span("token")
    found = Candidate(start, end, "key", "url-token", CONFIDENCE, RANK_URL, whole(start, end))
    return found._replace(confidence=0.0) if carries_mark(data, found) else found
