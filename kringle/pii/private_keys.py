"""Private keys in armour: blocks, whole or with their end cut off, over lines, as `\\n` in one string, or as a
concatenation of strings.

PEM, its like of SSH.com (the marks of RFC 4716) and of OpenVPN (static keys), and PuTTY's own files, whose private half
stands under `Private-Lines` (appendix C of its manual).

Also the bare base 64 of a PKCS #8 or PKCS #1 key without armour is known by its first bytes. Certificates, public keys
and blocks whose body is a placeholder are no findings.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_BLOCK, Candidate, Segment
from kringle.pii.lookalikes import is_monotonous
from kringle.pii.stand_ins import carries_mark

ANCHOR = rb"(?:PRIVATE KEY(?: BLOCK)?-----|OpenVPN Static key V1-----|SSH2 ENCRYPTED PRIVATE KEY ----)"
PUTTY_ANCHOR = rb"Private-Lines: [0-9]{1,3}[\\\r\n]"
CONFIDENCE = 0.99
BODY_LIMIT = 20_000  # bytes between the marks; a 16,384-bit RSA key has 13,000 of base 64
LEAST_BODY = 60  # an Ed25519 key in PKCS #8, the shortest there is, has 64 characters of base 64

_BEGIN = re.compile(
    rb"(?P<open>-----|---- )BEGIN (?P<label>(?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)"
    rb"(?P<shut>-----| ----)\Z"
)
# Lines of the body: base 64 of some length, or a header. What joins them is quotes, escapes, plus signs, comment marks.
_RUN = re.compile(rb"[A-Za-z0-9+/]{2,}={0,2}")
_HEADER = re.compile(
    rb"(?:Proc-Type|DEK-Info|Version|Comment|Subject|Hash|Charset|MessageID)\s?:(?:[ ]\"[^\r\n\"\\]*\"|[^\r\n\"'`\\]*)"
)
_ESCAPE = re.compile(
    rb"\\+(?:u.{4}|.)?", re.DOTALL
)  # whatever follows a backslash is kept, so that a stand-in reads alike
# A body whose end is cut off: two lines or more of a length that only base 64 has
_CUT_OFF = re.compile(rb"""(?:(?:\\{1,2}[nr]|[\s"'`+,;#*>|]){1,40}[A-Za-z0-9+/]{32,}={0,2}){2,}""")
# PuTTY breaks its base 64 after 64 characters
_PUTTY_COUNT = re.compile(rb"([0-9]{1,3})[\\\r\n]\Z")
_PUTTY_LINE = re.compile(
    rb"(?:\\{1,2}r)?(?:\\{1,2}n|\r?\n)[ \t]{0,40}(?P<body>[A-Za-z0-9+/]{4,64})={0,2}(?![A-Za-z0-9+/=-])"
)
LEAST_PUTTY_BODY = 28  # the shortest, a DSA key's number of 160 bits with its length, has 24 bytes: 32 characters
HEXADECIMAL = "0123456789abcdef"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def at_event(data: bytes, end: int) -> Candidate | None:
    """The block whose begin mark ends at `end`, or None."""
    begin = _BEGIN.search(data, max(0, end - 100), end)
    if begin is None:
        return None
    close = begin["open"] + b"END " + begin["label"] + begin["shut"]
    stop = data.find(close, end, end + BODY_LIMIT)
    if stop < 0 or data.find(b"-----BEGIN ", end, stop) >= 0:
        cut_off = _CUT_OFF.match(data, end, end + BODY_LIMIT)
        if cut_off is None:
            return None
        stop, close = cut_off.end(), b""
    segments = tuple(_body(data, end, stop))
    body = b"".join(data[s:e] for s, e in segments)
    if len(body) < LEAST_BODY or is_monotonous(body[:200]) or b"..." in data[end:stop]:
        return None
    span = begin.start(), stop + len(close)
    alphabet = HEXADECIMAL if begin["label"].startswith(b"OpenVPN") else BASE64
    found = Candidate(*span, "key", "private-key", CONFIDENCE, RANK_BLOCK, (segments,), alphabet)
    return found._replace(confidence=0.0) if carries_mark(data, found) else found


def at_putty(data: bytes, end: int) -> Candidate | None:
    """The private half of a key of PuTTY's, under the header that ends before `end`; what precedes it is public."""
    count = _PUTTY_COUNT.search(data, max(0, end - 4), end)
    segments: tuple[Segment, ...] = ()
    at = end - 1
    while count and len(segments) < int(count[1]) and (line := _PUTTY_LINE.match(data, at)):
        segments += (line.span("body"),)
        at = line.end()
    body = b"".join(data[s:e] for s, e in segments)
    if len(body) < LEAST_PUTTY_BODY or is_monotonous(body[:200]):
        return None
    found = Candidate(segments[0][0], at, "key", "private-key", CONFIDENCE, RANK_BLOCK, (segments,), BASE64)
    return found._replace(confidence=0.0) if carries_mark(data, found) else found


def _body(data: bytes, start: int, stop: int) -> list[Segment]:
    """The base-64 runs between the marks; headers, escapes and what joins strings are left out."""
    runs: list[Segment] = []
    at = start
    while at < stop:
        if header := _HEADER.match(data, at, stop):
            at = header.end()
        elif escape := _ESCAPE.match(data, at, stop):
            at = escape.end()
        elif run := _RUN.match(data, at, stop):
            runs.append(run.span())
            at = run.end()
        else:
            at += 1
    return runs
