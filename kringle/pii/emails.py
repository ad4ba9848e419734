"""Email addresses: wherever they stand (brackets, `mailto:`, query strings, escapes), and not what merely has an at
sign.

Not covered, on purpose: addresses that are written around (`user [at] corp [dot] org`, `%40`), quoted local parts and
addresses at IP numbers.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from importlib.resources import files

from kringle.pii.candidates import RANK_EMAIL, Candidate, whole
from kringle.pii.lookalikes import UUID
from kringle.pii.text import line_after, line_before, without_escape

ANCHOR = rb"[A-Za-z0-9_.+%\x80-\xff-]@[A-Za-z0-9\x80-\xff]"
CONFIDENCE = 0.97

_LOCAL = bytes(c for c in range(256) if c >= 0x80 or chr(c).isalnum() or chr(c) in "._%+-")
_LABEL = rb"[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]{0,61}[A-Za-z0-9\x80-\xff])?"
_DOMAIN = re.compile(
    rb"(?:" + _LABEL + rb"\.){1,8}(xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}|[\x80-\xff]{2,60})(?![A-Za-z0-9_])"
)
_ASCII_DOMAIN = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9_])")
LOCAL_LIMIT, DOMAIN_LIMIT = 64, 255  # RFC 5321, section 4.5.3.1

# RFC 2606 and RFC 6761 reserve these; the last three are used inside networks alone.
_RESERVED_TLDS = frozenset((b"example", b"test", b"invalid", b"localhost", b"local", b"internal", b"localdomain"))
_RESERVED_DOMAIN = re.compile(rb"(?:.*[.-])?example(?:[.-].*)?")
# Second-level names that people write for "any domain": nobody's address.
_PLACEHOLDER_DOMAIN = re.compile(
    rb"(?:.*\.)?(?:(?:your|my|some|any|other|the)[-_]?(?:domain|company|org|site|server|host|mail|email|website)|"
    rb"domain|company|host|nowhere|somewhere|anywhere|provider|foo|bar|baz|qux|foobar|test|acme|abc|xyz|aaa|bbb|[a-wyz])"
    rb"\.(?:com|org|net|tld|co|io|de|edu|gov|info|dev|uk|fr|xyz)"
)
_PLACEHOLDER_LABEL = re.compile(rb"(?:your|my)-|project(?:-id)?\Z")
# Endings of source files that are top-level domains too: somebody's address there has another label, as in `.com.py`.
_FILE_ENDINGS = frozenset((b"py", b"rs", b"sh", b"md", b"so", b"ps", b"zip", b"mov"))
_PLACEHOLDER_LOCAL = frozenset((b"foo", b"bar", b"baz", b"foobar", b"xxx", b"abc", b"xyz"))
# RFC 4251, section 6: names of algorithms of SSH look like addresses at whoever defined them.
_ALGORITHM_HOSTS = frozenset((b"openssh.com", b"libssh.org", b"lysator.liu.se", b"ssh.com"))
_LOGIN_NAMES = frozenset((b"git", b"hg", b"svn", b"anonymous"))
_AFTER_LOGIN = re.compile(rb":(?:[~/]|[A-Za-z0-9_.~-]+/)|:~|/|:[0-9]{2,5}(?![0-9])")
_COMMAND = re.compile(rb"(?:^|[^A-Za-z])(?:ssh|scp|sftp|rsync|mosh|ssh-copy-id|ftp)[\"', ][^|;]*$")
_URL_BEFORE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s\"'<>`/?#]*$")
_MESSAGE_ID = re.compile(rb"message|msgid|envelope-?id|references|in-reply-to|mid:|lore\.kernel|/msg", re.IGNORECASE)
_FIELD = re.compile(rb"%\([A-Za-z_]+\)\Z")
_TEMPLATE = re.compile(rb"%[a-zA-Z]")
# Message identifiers: numbers joined by dots, or ten digits in a row behind letters; mailboxes of numbers are plain.
_NUMBERS = re.compile(rb"[0-9]+(?:\.[0-9]+)+|[A-Za-z].*[-.].*[0-9]{10,}.*")
_FILE_NUMBER = re.compile(rb"[0-9.]+x", re.IGNORECASE)  # icon@2x.png, icon@1.5x.png


@functools.cache
def top_level_domains() -> frozenset[bytes]:
    """The delegated top-level domains (IANA; the version stands in the file's first line)."""
    text = files("kringle.pii").joinpath("top_level_domains.txt").read_text(encoding="ascii")
    return frozenset(line.lower().encode() for line in text.splitlines() if line and not line.startswith("#"))


def at_event(data: bytes, end: int) -> Candidate | None:
    """The address around the at sign of an anchor that ends at `end`, a shield for example addresses, or None."""
    at = end - 2
    start = _start(data, at)
    domain = _DOMAIN.match(data, at + 1, at + 1 + DOMAIN_LIMIT)
    if domain is not None and not domain[0].isascii() and not _is_name(domain[0]):
        domain = _ASCII_DOMAIN.match(data, at + 1, at + 1 + DOMAIN_LIMIT)
    if not 0 < at - start <= LOCAL_LIMIT or domain is None or not _is_top_level(domain[1]):
        return None
    local, host = data[start:at], domain[0].lower()
    if _is_no_address(data, start, domain.end(), local, host):
        return None
    confidence = 0.0 if is_reserved(host) or local.lower() in _PLACEHOLDER_LOCAL else CONFIDENCE
    return Candidate(start, domain.end(), "email", "email", confidence, RANK_EMAIL, whole(start, domain.end()))


def _start(data: bytes, at: int) -> int:
    """Where the local part before the at sign begins: behind escapes, marks, and text of scripts without spaces."""
    before = data[max(0, at - LOCAL_LIMIT - 1) : at]
    start = at - (len(before) - len(before.rstrip(_LOCAL)))
    local = data[start:at]
    if not local.isascii():
        text = local.decode("utf-8", "replace")
        foreign = max((i for i, c in enumerate(text) if not _belongs(c)), default=-1)
        start = at - len(text[foreign + 1 :].encode())
    start = without_escape(data, start, at)
    while start < at and data[start] in b".-+%":
        start += 3 if data[start] == 0x25 else 1  # a percent escape such as %3C is no part of the address
    return start


def _belongs(character: str) -> bool:
    """Letters of alphabets may occur in local parts; Han characters stand before an address as words do."""
    return character < "\u0080" or (character < "\u2e80" and unicodedata.category(character)[0] in "LMN")


def _is_name(domain: bytes) -> bool:
    return all(unicodedata.category(c)[0] in "LMN" or c in "-." for c in domain.decode("utf-8", "replace"))


def _is_top_level(name: bytes) -> bool:
    return not name.isascii() or name.lower() in top_level_domains() or name.lower() in _RESERVED_TLDS


def is_reserved(host: bytes) -> bool:
    """Whether an address at this host (small letters) can belong to nobody."""
    return (
        host.rpartition(b".")[2] in _RESERVED_TLDS
        or _RESERVED_DOMAIN.fullmatch(host) is not None
        or _PLACEHOLDER_DOMAIN.fullmatch(host) is not None
        or any(_PLACEHOLDER_LABEL.match(label) for label in host.split(b"."))
    )


def _is_no_address(data: bytes, start: int, end: int, local: bytes, host: bytes) -> bool:
    if (
        host[:4] == b"www."
        or UUID.fullmatch(local)
        or (host in _ALGORITHM_HOSTS and b"-" in local)
        or _TEMPLATE.search(local)
    ):
        return True
    labels = host.split(b".")
    if _NUMBERS.fullmatch(local) or (len(labels) == 2 and labels[1] in _FILE_ENDINGS):
        return True
    if data[start - 1 : start] == b"/" and data[end - len(host) : end].isupper():
        return True  # a Kerberos principal: krbtgt/REALM.ORG@REALM.ORG
    if data[start - 2 : start - 1] in (b"}", b"]", b">", b")") and data[start - 1] in b"-._+":
        return True  # the rest of a template: f"{number}-compute@..."
    if b".." in local or local.endswith((b".", b"-")) or _FILE_NUMBER.fullmatch(labels[0]):
        return True
    if data[start - 1 : start] in (b"@", b"$", b"\\") or data[end : end + 1] in (b"@", b"(", b"="):
        return True
    after = line_after(data, end, 40)
    if local.lower() in _LOGIN_NAMES and (local.lower() != b"git" or after[:1] in (b":", b"/", b'"', b"'")):
        return True
    if _AFTER_LOGIN.match(after) and not after.startswith((b"://", b": ")):
        return True
    before = line_before(data, start, 100)
    if before.endswith(b"${") or (local == b"s" and _FIELD.search(before)):
        return True
    url = _URL_BEFORE.search(before)
    if url or before.endswith(b"//"):
        return True
    return _COMMAND.search(before) is not None or (_is_message_number(local) and _MESSAGE_ID.search(before) is not None)


def _is_message_number(local: bytes) -> bool:
    return len(local) >= 12 and sum(c in b"0123456789" for c in local) * 3 >= len(local)
