"""Emails and IP addresses as BigCode found and replaced them for SantaCoder in December 2022, faults included.

The description is the SantaCoder paper, appendix C.1 and C.2, and bigcode-dataset at commit 5cb43e9 (22 November
2022). Offsets count characters of a `str`, as there. Known faults that are kept on purpose: brackets are no
delimiters, so `[user@corp.org]` and `http://54.12.33.9/` are missed; `git@github.com:` and `icon@2x.png` are taken for
emails; a dotted quad whose first three numbers look like a date is dropped; the context of an address in the first 100
characters of a longer file is empty; a file that begins with a finding gains a leading space when it is redacted.

Keys need the third-party scanner that BigCode used: see `faithful_keys`. The random constants of the replacements are
drawn from our own stream; the original shipped ten emails and ten keys that were drawn once.
"""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Iterable
from typing import NamedTuple

import regex

from kringle.randomness import stream

# `\b` inside a character class is a backspace: BigCode's classes hold one, so a backspace delimits here too.
_LEFT_OF_EMAIL = r"""[\s\x08@,?!;:)('".<\p{Han}]"""
_RIGHT_OF_EMAIL = r"""[\s\x08@,?!;:)('".>\p{Han}]"""
EMAIL = regex.compile(
    rf"""(?<=^|{_LEFT_OF_EMAIL})
         ([^\s\x08@?!;,:)('"<]+
          @ [^\s\x08@!?;,/]* [^\s\x08@!?;,/:)('">.] \. \p{{L}} \w+)
         (?=$|{_RIGHT_OF_EMAIL})""",
    regex.MULTILINE | regex.VERBOSE,
)

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_GROUP = r"[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        rf"(?:{_GROUP}:){{7}}{_GROUP}",
        rf"(?:{_GROUP}:){{1,7}}:",
        *(rf"(?:{_GROUP}:){{1,{7 - after}}}(?::{_GROUP}){{1,{after}}}" for after in range(1, 6)),
        rf"{_GROUP}:(?::{_GROUP}){{1,6}}",
        rf":(?:(?::{_GROUP}){{1,7}}|:)",
        r"fe80:(?::[0-9a-fA-F]{0,4}){0,4}%[0-9a-zA-Z]+",
        rf"::(?:ffff(?::0{{1,4}})?:)?{_IPV4}",
        rf"(?:{_GROUP}:){{1,4}}:{_IPV4}",
    ]
)
IP_ADDRESS = regex.compile(
    rf"""(?:^|[\x08\s@?,!;:'")(.\p{{Han}}])({_IPV4}|{_IPV6})(?:$|[\s@,?!;:'"(.\p{{Han}}])""", regex.MULTILINE
)

# Of the original's five shapes of dates only day.month.year can begin an IP address.
_DATE = regex.compile(r"[0-3][0-9]\.[0-3][0-9]\.(?:[0-9]{2}|[0-9]{4})\b")
CONTEXT = 100  # characters either side that may say "dns" or "server"

# Public resolvers that are left in place: bigcode-dataset, pii_redaction.py.
DNS_SERVERS = frozenset(
    (
        *("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "76.76.19.19", "76.223.122.150", "9.9.9.9", "149.112.112.112"),
        *("208.67.222.222", "208.67.220.220", "8.26.56.26", "8.20.247.20", "94.140.14.14", "94.140.15.15"),
    )
)
# Fixed stand-ins for addresses: bigcode-dataset, replacements of SantaCoder's run.
STAND_IN_IPV4 = ("172.16.31.10", "172.16.58.3", "172.16.17.32", "192.168.127.12", "192.168.3.11")
STAND_IN_IPV6 = (
    "fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b",
    "fd00:a516:7c1b:17cd:6d81:2137:bd2a:2c5b",
    "fc00:e968:6179::de52:7100",
    "fc00:db20:35b:7399::5",
    "fdf8:f53e:61e4::18",
)


class Span(NamedTuple):
    """One finding: `text[start:end] == value`, offsets in characters; kind is "email", "ip" or "key"."""

    start: int
    end: int
    kind: str
    value: str


def find_emails(text: str) -> list[Span]:
    """Every email as the SantaCoder pattern sees it, in order."""
    return [Span(m.start(1), m.end(1), "email", m[1]) for m in EMAIL.finditer(text)]


def find_ips(text: str) -> list[Span]:
    """Every IPv4 and IPv6 address that passes the original's filters, in order; also private ones and DNS servers."""
    return [
        Span(m.start(1), m.end(1), "ip", m[1])
        for m in IP_ADDRESS.finditer(text)
        if _is_address(text, m.start(1), m.end(1))
    ]


def _is_address(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if not any(c in string.digits for c in value) or _DATE.match(value) or _is_version(text, start, end):
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_version(text: str, start: int, end: int) -> bool:
    """a.b.c.d of single digits is a version unless a name server is talked about nearby."""
    if text.count(".", start, end) != 3 or end - start != 7:
        return False
    context = text[
        start - CONTEXT : end + CONTEXT
    ].lower()  # a negative start counts from the end: the original's fault
    return "dns" not in context and "server" not in context


def is_replaced(span: Span) -> bool:
    """False for the addresses that the original finds but leaves in place: not global ones, and public resolvers."""
    if span.kind != "ip":
        return True
    return span.value not in DNS_SERVERS and not ipaddress.ip_address(span.value).is_private


def redact(text: str, spans: Iterable[Span], seed: int = 0) -> str:
    """Replace findings as the original did: ten emails, ten keys and five addresses a family for a whole corpus.

    Spans are taken in order of their start and not checked for overlap; where nothing lies between two spans, or before
    the first, the original inserts a space.
    """
    pieces: list[str] = []
    stand_ins: dict[str, str] = {}
    done = 0
    for span in sorted(spans, key=lambda s: s.start):
        if not is_replaced(span):
            continue
        if span.value not in stand_ins:
            stand_ins[span.value] = _stand_in(span, seed)
        pieces += [text[done : span.start] or " ", stand_ins[span.value]]
        done = span.end
    return "".join([*pieces, text[done:]])


def _stand_in(span: Span, seed: int) -> str:
    draw = stream(seed, "faithful replacement", span.kind, span.value)
    if span.kind == "ip":
        version = ipaddress.ip_address(span.value).version
        return (STAND_IN_IPV4 if version == 4 else STAND_IN_IPV6)[draw.integers(5)]
    which = int(draw.integers(10))
    letters = stream(seed, "faithful constants", span.kind, which)
    if span.kind == "email":
        return "".join(letters.choice(list(string.ascii_lowercase), 5)) + "@example.com"
    return "".join(letters.choice(list(string.ascii_lowercase + string.digits), 32))
