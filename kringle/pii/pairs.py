"""Pairs of a secret's name and its value, in either order: an element of XML, an entry of YAML, an object of JSON.

`<property name="password" value="..."/>`, `- name: SECRET_KEY` and `value: ...` on the next line, `{"name":
"DB_PASSWORD", "value": "..."}`, `ParameterKey` and `ParameterValue`, `set { name = "auth.password" value = "..." }`;
up to two short fields may stand between them. A value between two names belongs to the one before it.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import Candidate
from kringle.pii.named import Written, judge

ANCHOR = rb"value['\"]?[ ]{0,8}[=:][ ]{0,4}['\"]?[A-Za-z0-9+/=_!@#$%^&*~?.-]{8}"
REACH = 260  # bytes before the value in which its name may stand

_NAME = rb"""(?:name|key)['"]?[ ]{0,8}[=:][ ]{0,4}['"]?(?P<name>[A-Za-z0-9_.-]{2,60})['"]?"""
# Its words are one space apart: a run of spaces that could belong to several parts would be tried in each of them
_FIELD = rb"""['"]?[a-z]{2,12}['"]?[ ]{0,8}[=:][ ]{0,4}['"]?(?:\w{1,40}(?:[ ]\w{1,40}){0,5})?['"]?,?\s{1,40}"""
_BEFORE = re.compile(
    _NAME + rb",?\s{1,40}(?:" + _FIELD + rb"){0,2}['\"]?[A-Za-z]{0,12}value['\"]?[ ]{0,8}[=:][ ]{0,4}['\"]?\Z",
    re.IGNORECASE,
)
_BEHIND = re.compile(rb"""['"]?,?\s{1,40}(?:""" + _FIELD + rb""")?['"]?[A-Za-z]{0,12}""" + _NAME, re.IGNORECASE)
_VALUE = re.compile(rb"""(?P<value>[^\s"'`\\<>]{6,600})(?=["'\s<]|\Z)""")
_SECRET = re.compile(
    rb"passw(?:or)?d|passphrase|pwd|secret|token|_pass\Z|"
    rb"(?:api|app|access|auth|account|signing|encryption|private|master)[_.-]?key",
    re.IGNORECASE,
)


def at_value(data: bytes, end: int) -> Candidate | None:
    """The value whose first eight characters end at `end`, if it belongs to a secret's name."""
    start = end - 8
    match = _VALUE.match(data, start)
    if match is None:
        return None
    name = _BEFORE.search(data, max(0, start - REACH), start) or _BEHIND.match(data, match.end())
    if name is None or not _SECRET.search(name["name"]):
        return None
    quoted = data[start - 1 : start] in (b"'", b'"')
    return judge(data, *match.span("value"), name["name"], Written.QUOTED if quoted else Written.BARE)
