"""Passwords in PowerShell: the plain text of a secure string, and the second argument of a credential.

`ConvertTo-SecureString "..." -AsPlainText -Force`, the same with its options in another order or fed by a pipe,
`New-Object System.Net.NetworkCredential -ArgumentList "bob", "..."`, `[PSCredential]::new("bob", "...")`. A secure
string that is read back from its encrypted form (without `-AsPlainText`) is no secret in itself.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import Candidate
from kringle.pii.named import PASSWORD, Written, judge
from kringle.pii.text import line_after

SECURE_ANCHOR = rb"convertto-securestring"
_PLAIN = re.compile(rb"-AsPlainText", re.IGNORECASE)
_SECURE = re.compile(
    rb"""[ ]{1,4}(?:-(?:AsPlainText|Force|String)[ ]{1,4}){0,3}(?P<quote>["']?)"""
    rb"""(?P<value>[^\s"'`$(-][^\s"'`]{5,200})(?P=quote)(?=[\s);|"']|\Z)""",
    re.IGNORECASE,
)
_PIPED = re.compile(rb"""(?P<quote>["'])(?P<value>[^\s"'`$][^\s"'`]{5,200})(?P=quote)[ ]?\|[ ]?\Z""")

CREDENTIAL_ANCHOR = rb"credential(?:\]::new|['\"]?[ ]-(?:argumentlist|args))[ ]?[('\"@]"
_CREDENTIAL = re.compile(
    rb"""[(@'"]{0,3}[^\s"'(),]{1,80}["']?\s{0,4},\s{0,40}(?P<quote>["'])(?P<value>[^\s"'`]{6,200})(?P=quote)"""
)


def at_secure_string(data: bytes, end: int) -> Candidate | None:
    """The text of which the command whose name ends at `end` makes a secure string."""
    if not _PLAIN.search(line_after(data, end, 300)):
        return None
    start = end - len("ConvertTo-SecureString")
    match = _SECURE.match(data, end) or _PIPED.search(data, max(0, start - 240), start)
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.OPTION)


def at_credential(data: bytes, end: int) -> Candidate | None:
    """The password beside a user's name, in the arguments that begin before `end`."""
    match = _CREDENTIAL.match(data, end - 1)
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.QUOTED)
