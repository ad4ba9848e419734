"""Passwords in URLs: `scheme://user:password@host`, the password alone.

Not reported: passwords that are words (`guest:guest`), placeholders, templates, and tokens that have a format of their
own.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_URL, Candidate
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
LEAST_RANDOMNESS, LEAST_OF_THREE_CLASSES = 2.0, 0.0  # see `rarity.randomness`; with three classes of characters
CONFIDENCE = 0.9


def at_event(data: bytes, end: int) -> Candidate | None:
    """The password before the at sign of an anchor that ends at `end`: a finding, a shield, or None."""
    start = data.rfind(b"://", max(0, end - REACH), end)
    match = _LOGIN.match(data, start) if start >= 0 else None
    if match is None or match.end() < end:
        return None
    password = match["password"]
    if is_template(password) or is_template(match["user"]):
        return None
    start, end = match.span("password")
    found = Candidate(start, end, "key", "url-password", CONFIDENCE, RANK_URL, (between_escapes(data, start, end),))
    least = LEAST_OF_THREE_CLASSES if classes(password) >= 3 else LEAST_RANDOMNESS
    if carries_mark(data, found) or password == match["user"] or made_up(password) or randomness(password) <= least:
        return found._replace(confidence=0.0)
    return found
