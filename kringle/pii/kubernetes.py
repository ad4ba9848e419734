"""The entries of a Kubernetes manifest of `kind: Secret`: base 64 under `data`, plain text under `stringData`.

There the place says that an entry is secret, whatever it is called: `signer: D0jU...=`, `.dockerconfigjson: eyJ...`.
Not reported: users, hosts and addresses, certificates, words, text of several words, and what Helm or a shell fills in.

Source of the layout: the Kubernetes API reference, Secret v1 core. A manifest reaches from the `kind` before to the
`kind` behind, so every byte is read twice at most.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from kringle.pii.candidates import RANK_NAMED, Candidate, whole
from kringle.pii.lookalikes import classes, is_monotonous, is_public_identifier, made_up
from kringle.pii.named import PASSWORD_LEAST, WORD_LEAST, Written, judge
from kringle.pii.names import is_about_secret, words
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark

ANCHOR = rb"kind['\"]?:[ ]{0,4}['\"]?Secret['\"]?[\s,}]"
REACH = 30_000  # bytes of a manifest on either side of its kind
CONFIDENCE = 0.85
LEAST_BYTES = 16  # of random data; AES keys have as many
LEAST_TEXT = 6  # characters of a password
_PUBLIC = frozenset(b"user username login email host hostname server port url uri endpoint address crt cert ca".split())

# Where the next manifest may begin. Every anchor is among it, so that no byte is read for more than two of them
_BEHIND = re.compile(
    rb"\n---|(?P<json>['\"]kind['\"]:)|kind['\"]?:[ ]{0,4}['\"]?Secret|"
    rb"\n(?P<indent>[ ]{0,40})(?:(?P<item>- ?)(?:apiVersion|kind)|kind):"
)
_SECTION = re.compile(rb"""(?:^|\n)(?P<indent>[ ]{0,12})(?P<name>data|stringData):[ ]{0,8}(?=\r?\n)""")
_ENTRY = re.compile(
    rb"""\r?\n(?P<indent>[ ]{1,16})["']?(?P<key>[A-Za-z0-9._-]{1,100})["']?:[ ]{1,8}(?P<quote>["']?)"""
    rb"""(?P<value>[^\s"'`\\]{1,20000})(?P=quote)[ ]{0,8}(?:[#][^\n]{0,200})?(?=\r?\n|\Z)"""
)
_LINE = re.compile(rb"\r?\n(?P<indent>[ ]{0,40})[^\n]*")
_OBJECT = re.compile(rb'"(?P<name>data|stringData)"\s{0,8}:\s{0,8}\{')
_MEMBER = re.compile(
    rb'\s{0,40}"(?P<key>[A-Za-z0-9._-]{1,100})"\s{0,8}:\s{0,8}"(?P<value>[^\s"\\]{1,20000})"\s{0,40},?'
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{8,}={0,2}")
_LOGINS = re.compile(rb'"(?:auth|password)"\s{0,4}:\s{0,4}"[^"]{6}')  # Docker's settings: config.json, .dockercfg


def at_kind(data: bytes, end: int) -> Iterator[Candidate]:
    """The secret entries of the manifest whose kind ends at `end`."""
    kind = data.rfind(b"kind", max(0, end - 24), end)
    low, high = _begin(data, kind), _end(data, kind, end)
    for section in _SECTION.finditer(data, low, high):
        yield from _entries(data, section, high)
    for section in _OBJECT.finditer(data, low, high):
        at = section.end()
        while member := _MEMBER.match(data, at, high):
            yield from _judged(data, member, section["name"])
            at = member.end()


def _begin(data: bytes, kind: int) -> int:
    """Where the manifest of a kind begins at the earliest: behind the `kind:` before it."""
    low = max(0, kind - REACH)
    at = kind
    while (at := data.rfind(b"kind", low, at)) >= 0:
        if data[at + 4 : at + 6].lstrip(b"'\"").startswith(b":"):
            low = at
            break
    return max(low, data.rfind(b"\n---", low, kind), data.rfind(b"apiVersion", low, kind))


def _end(data: bytes, kind: int, end: int) -> int:
    """Where it ends at the latest: a mark between documents, the next object, or a key at its own level or above. The
    kinds of what owns it stand deeper."""
    column = kind - data.rfind(b"\n", max(0, kind - 40), kind) - 1
    quoted = data[kind - 1 : kind] in (b"'", b'"')
    for mark in _BEHIND.finditer(data, end - 1, end + REACH):
        if mark["json"] and not quoted:
            continue
        if mark["indent"] is None or len(mark["indent"]) < column + (mark["item"] is None):
            return mark.start()
    return min(len(data), end + REACH)


def _entries(data: bytes, section: re.Match[bytes], high: int) -> Iterator[Candidate]:
    at, outer = section.end(), len(section["indent"])
    while (line := _LINE.match(data, at, high)) is not None:
        if len(line["indent"]) <= outer and line[0].strip():
            return
        entry = _ENTRY.match(data, at, high)
        if entry is not None and entry.end() <= line.end():
            yield from _judged(data, entry, section["name"])
        at = line.end()


def _judged(data: bytes, entry: re.Match[bytes], section: bytes) -> Iterator[Candidate]:
    key, span = entry["key"], entry.span("value")
    if not _PUBLIC.isdisjoint(words(key)) or is_about_secret(key):
        return
    if section == b"stringData":
        found = judge(data, *span, key + b"_secret", Written.QUOTED)
    elif _is_secret(entry["value"]):
        found = Candidate(*span, "key", "kubernetes-secret", CONFIDENCE, RANK_NAMED, whole(*span))
        found = found._replace(confidence=0.0) if carries_mark(data, found) else found
    else:
        found = None
    if found is not None:
        yield found


def _is_secret(value: bytes) -> bool:
    """Base 64 of random bytes, of a password, or of logins at a registry."""
    if not _BASE64.fullmatch(value) or is_public_identifier(value):
        return False
    try:
        text = base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    if not text.isascii():
        return len(text) >= LEAST_BYTES and not is_monotonous(value)
    text = text.strip()
    if b" " in text or b"\n" in text or b"{" in text:
        return _LOGINS.search(text) is not None
    least = PASSWORD_LEAST if classes(text) >= 3 else WORD_LEAST
    return len(text) >= LEAST_TEXT and randomness(text) > least and not made_up(text[:256]) and b"://" not in text
