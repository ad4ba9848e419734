"""Values assigned to a secret's name.

Names are read around a keyword in any notation: `api_key = "..."`, `"apiKey": "..."`, `setPassword("...")`,
`config['secret'] = "..."`, `password: str = "..."`, `?token=...`, `export TOKEN=...`, `AccountKey=...;`. Whether the
value is a secret is judged in `named`.
"""

from __future__ import annotations

import re

from kringle.pii import nested
from kringle.pii.candidates import Candidate
from kringle.pii.lookalikes import UUID
from kringle.pii.named import Written, judge
from kringle.pii.names import KEYWORD, NAME

ANCHOR = rb"(?:" + KEYWORD + rb")"
SHORT_ANCHOR = rb"(?:pass|pw|psw|psk)['\"]?[\])]?[ ]?[=:(,]"
MACRO_ANCHOR = rb"#[ ]?define[ ]{1,4}[A-Za-z0-9_]{0,40}(?:PASS|PSK|_KEY|_PW)[ ]{1,20}\""
NAME_LIMIT = 48

_QUOTED = re.compile(
    rb"""[\])'"`]{0,3}(?:\[\w{0,20}\])?(?:[ ]?:[ ]?(?:&(?:'static[ ])?)?[A-Za-z_][\w.|\[\]<>]{0,40}(?=[ ]?=))?"""
    rb"""[\s=:,(!>?+|\[{&]{1,60}[bBrRuUfF@]{0,2}"""
    rb"""(?:[A-Za-z_][\w.]{0,40}\([bBrRuUfF]{0,2})?(?P<quote>"{3}|'{3}|["'`])(?:\{[a-z0-9]{2,10}\}|base64:)?"""
    rb"""(?P<value>[^\s"'`\\]{6,600})(?P=quote)""",
)
# A string inside a string: "{\"api_key\": \"...\"}", "password = \"...\"\n"
_ESCAPED = re.compile(
    rb"""(?:\\{1,3}["'])?\s{0,4}[:=,]\s{0,4}(?P<quote>\\{1,3}["'])(?P<value>[^\s"'`\\]{6,600})(?P=quote)"""
)
_BARE = re.compile(
    rb"""["']?[ \t]{0,20}(?:=|:|=>)[ \t]{0,20}(?P<quote>['"]?)(?:base64:)?"""
    rb"""(?P<value>[A-Za-z0-9+/_.~%!?@#^*$=-]{8,600})(?=[\s&;,'"`)<>|}\\\]]|\Z)"""
)
# A line of a .env file, where a password may hold any mark
_LINE = re.compile(rb"""=(?P<value>[^\s"'`\\]{8,200})(?=\s|\Z)""")
_NEXT_ARGUMENT = re.compile(
    rb"""[\])'"`]{0,3}\([^()\n]{0,120}?,\s{0,40}(?P<quote>["'`])(?P<value>[^\s"'`\\]{6,600})(?P=quote)\s{0,4}[,)]"""
)
# In prose the word before the name belongs to it: "next page token: ..."
_PUBLIC_BEFORE = re.compile(rb"(?:page|next|continuation|csrf|xsrf|public|cancellation) \Z", re.IGNORECASE)
_SEPARATOR = frozenset(b"=:,(|?+!>[")


def at_event(data: bytes, end: int) -> Candidate | None:
    """The value of the name that holds the keyword ending at `end`: a finding, a shield, or None."""
    low = max(0, end - NAME_LIMIT)
    start = end - (len(data[low:end]) - len(data[low:end].rstrip(NAME)))
    tail = data[end : end + NAME_LIMIT]
    stop = end + len(tail) - len(tail.lstrip(NAME + b"."))
    name = data[start:stop].rstrip(b".")
    if data[start - 2 : start] == b"::":
        return None  # a type's name, as in "AWS::IAM::AccessKey"
    if _PUBLIC_BEFORE.search(data, max(0, start - 20), start):
        return None
    if found := nested.at_name(data, start, stop, name):
        return found
    if escaped := _ESCAPED.match(data, stop):
        return judge(data, *escaped.span("value"), name, Written.QUOTED)
    match = _QUOTED.match(data, stop)
    if match is not None and set(data[stop : match.start("quote")]) & _SEPARATOR:
        return judge(data, *match.span("value"), name, Written.QUOTED)
    match = _NEXT_ARGUMENT.match(data, stop)
    if match is not None:
        return None if UUID.fullmatch(match["value"]) else judge(data, *match.span("value"), name, Written.QUOTED)
    before = data[start - 1 : start]
    if before in (b"", b"\n", b" ") and (match := _LINE.match(data, stop)):
        found = judge(data, *match.span("value"), name, Written.BARE)
        if found is not None:
            return found
    match = _BARE.match(data, stop)
    if match is None or data[match.end() : match.end() + 1] == b"(":
        return None
    written = Written.QUERY if before in (b"?", b"&", b";") else Written.BARE
    return judge(data, *match.span("value"), name, written)


def at_short_name(data: bytes, end: int) -> Candidate | None:
    """As `at_event`, for the short names `pass`, `pw`, `psw` and `psk`, whose anchor includes what separates them from
    the value."""
    head = data[max(0, end - 8) : end]
    return at_event(data, end - (len(head) - len(head.rstrip(b"'\"]) =:(,"))))


def at_macro(data: bytes, end: int) -> Candidate | None:
    """As `at_event`, for a macro of C whose name ends in one of the short words of its anchor."""
    head = data[max(0, end - 24) : end]
    return at_event(data, end - (len(head) - len(head.rstrip(b'" '))))
