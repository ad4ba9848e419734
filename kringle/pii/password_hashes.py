"""Hashed passwords where a system keeps its own: lines of .htpasswd and /etc/shadow, `user:$apr1$...`.

A hash can be guessed at, so such a file is not to be learnt from. Elsewhere a hash stays: it is a test's or a
document's. Source of the forms: crypt(5), and Apache's documentation of its password formats.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_NAMED, Candidate, Group
from kringle.pii.lookalikes import is_monotonous
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import line_before

ANCHOR = rb":(?:\$(?:apr1|2[aby]|1|5|6|y)\$[A-Za-z0-9./$=]{8}|\{SHA\}[A-Za-z0-9+/]{8})"
CONFIDENCE = 0.8

_USER = re.compile(rb"[A-Za-z0-9_][\w.@-]{0,63}")
_HASH = re.compile(
    rb"(?:\$(?:apr1|1)\$[A-Za-z0-9./]{1,8}\$(?P<md5>[A-Za-z0-9./]{22})|\$2[aby]\$[0-9]{2}\$(?P<bcrypt>[A-Za-z0-9./]{53})|"
    rb"\$[56]\$(?:rounds=[0-9]{1,9}\$)?[A-Za-z0-9./]{1,16}\$(?P<sha>[A-Za-z0-9./]{43,86})|"
    rb"\$y\$[A-Za-z0-9./]{1,8}\$[A-Za-z0-9./]{1,86}\$(?P<yescrypt>[A-Za-z0-9./]{43})|"
    rb"\{SHA\}(?P<sha1>[A-Za-z0-9+/]{27})=)(?=[:\s]|\Z)"
)


def at_event(data: bytes, end: int) -> Candidate | None:
    """The hash behind a user's name that begins its line; the anchor ends at `end`."""
    start = data.rfind(b":", max(0, end - 15), end) + 1
    match = _HASH.match(data, start)
    if match is None or match.lastgroup is None or not _USER.fullmatch(line_before(data, start - 1, 70)):
        return None
    groups: tuple[Group, ...] = ((match.span(match.lastgroup),),)
    found = Candidate(*match.span(), "key", "password-hash", CONFIDENCE, RANK_NAMED, groups)
    harmless = is_monotonous(match[match.lastgroup]) or carries_mark(data, found)
    return found._replace(confidence=0.0) if harmless else found
