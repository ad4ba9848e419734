"""Public IP addresses, wherever they stand (URLs, CIDR, brackets, ports), and not versions, section numbers or object
identifiers.

An IPv4 address and a version of four numbers are written alike. What tells them apart is weighed: the size of the
numbers, a port, prefix length or scheme beside them, and what the line says. Private, loopback, link-local, multicast,
documentation addresses, netmasks and public resolvers are shields: known, and no findings.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from kringle.pii.candidates import RANK_IP, Candidate, whole
from kringle.pii.text import line_after, line_before, without_escape

ANCHOR_V4 = rb"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
ANCHOR_V6 = rb"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]"

_QUAD = re.compile(rb"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})(?![0-9])")
_V6 = re.compile(rb"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}")
CONTEXT = 60  # bytes of the line on either side that are read

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(word) for word in text.split())


# Special-purpose blocks of IANA's registry, and multicast: an address in one of them belongs to nobody. Kept here
# because what Python's ipaddress calls global changes with its version.
_SPECIAL_V4 = _networks(
    """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/3"""
)
# Of 2000::/3, what IANA has allocated to the registries (first 16 bits), less the documentation block.
_ALLOCATED_V6 = (
    (0x2001, 0x2001),
    (0x2003, 0x2003),
    (0x2400, 0x241F),
    (0x2600, 0x263F),
    (0x2800, 0x280F),
    (0x2A00, 0x2A1F),
    (0x2C00, 0x2C0F),
)
_SPECIAL_V6 = _networks("2001::/23 2001:db8::/32 2620:4f:8000::/48")
_HEX_WORDS = re.compile(rb":(?:cafe|babe|beef|dead|face|f00d|feed)(?=:|\Z)", re.IGNORECASE)

# Resolvers that everybody may use: SantaCoder's fourteen, and other addresses that operators publish.
PUBLIC_RESOLVERS = frozenset(
    network.network_address
    for network in _networks(
        """8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 1.1.1.2 1.0.0.2 1.1.1.3 1.0.0.3 76.76.19.19 76.76.2.0 76.76.10.0
        76.223.122.150 9.9.9.9 9.9.9.10 9.9.9.11 149.112.112.112 149.112.112.10 149.112.112.11 208.67.222.222
        208.67.220.220 208.67.222.123 208.67.220.123 8.26.56.26 8.20.247.20 94.140.14.14 94.140.15.15 94.140.14.15
        94.140.15.16 4.2.2.1 4.2.2.2 4.2.2.3 4.2.2.4 4.2.2.5 4.2.2.6 64.6.64.6 64.6.65.6 77.88.8.8 77.88.8.1
        114.114.114.114 114.114.115.115 119.29.29.29 180.76.76.76 223.5.5.5 223.6.6.6 185.228.168.9 185.228.169.9
        84.200.69.80 84.200.70.40 195.46.39.39 195.46.39.40 2001:4860:4860::8888 2001:4860:4860::8844
        2001:4860:4860::64 2001:4860:4860::6464 2606:4700:4700::1111 2606:4700:4700::1001 2606:4700:4700::64
        2606:4700:4700::6400 2606:4700:4700::1112 2606:4700:4700::1002 2620:fe::fe 2620:fe::9 2620:fe::10 2620:fe::fe:10
        2620:fe::11 2620:119:35::35 2620:119:53::53 2620:0:ccc::2 2620:0:ccd::2 2a10:50c0::ad1:ff 2a10:50c0::ad2:ff
        2a02:6b8::feed:0ff 2400:3200::1 2400:3200:baba::1"""
    )
)

# Log odds of an address against a version for a number below 10, 40, 100, 256. Addresses: even over 0 to 255. Versions
# and section numbers: shares of 0.55, 0.33, 0.07, 0.05, between what they are in this kind of code (177 of them in 1.1
# GB: 0.90, 0.04, 0.01, 0.06) and browsers' and drivers' builds, whose numbers are larger.
_SIZES = ((10, -2.6), (40, -1.0), (100, 1.2), (256, 2.5))
_PRIOR = 0.5
_TOUCHING, _LOG, _NEAR, _FAR, _HINT = 8.0, 4.0, 6.0, 3.0, 2.0  # weights of the other evidence, on the same scale
NEAR = 24  # bytes between a word and the number

# Words that go with an address, hints of one, and words that go with a version; the nearest one counts.
_ADDRESS_WORD = (
    rb"(?<![a-z])ips?(?![a-z])|(?<=[a-z])I[Pp](?![a-z])|ipv4|ip_|_ip|addr|host|server|proxy|gateway|dns|resolver|subnet|"
    rb"network|cidr|firewall|peer|router|socket|connect|bind|listen|ping|upstream|inet|route|whois|geo|ssh|deploy"
)
_HINT_WORD = (
    rb"remote|client|forward|origin|endpoint|node|url|http|port|block|allow|deny|ban|access|attack|request|visitor|"
    rb"crawler|from"
)
_VERSION_WORD = (
    rb"version|(?<![a-z])vers?(?![a-z])|(?<![a-z])v(?![a-z])|release|(?<![a-z])build(?![a-z])|revision|(?<![a-z])rev(?![a-z])|upgrade|patch|"
    rb"minimum|maximum|since|require|depend|package|firmware|driver|sdk|jdk|jre|assembly|artifact|changelog|chrome|firefox|"
    rb"safari|msie|edge|webkit|opera|gecko|mozilla|android|section|chapter|clause|appendix|figure|table|paragraph|rfc|"
    rb"\xc2\xa7|(?<![a-z])oid(?![a-z])|asn1|identifier|algorithm|extension|x509|extn|standard|"
    rb"(?<![a-z])iso(?![a-z])|licen[cs]e|"
    rb"snapshot|final(?![a-z])|migration|(?<![a-z])jar|wheel|\.dll|nuget|maven|gradle|(?<![a-z])npm|(?<![a-z])pip(?![a-z])"
)
_WORDS = re.compile(
    rb"(?P<address>" + _ADDRESS_WORD + rb")|(?P<hint>" + _HINT_WORD + rb")|(?P<version>" + _VERSION_WORD + rb")",
    re.IGNORECASE,
)
_WORD = re.compile(rb"[A-Za-z0-9_]+|\xc2\xa7|\.dll")
_PORT_OR_PREFIX = re.compile(rb":[0-9]{2,5}(?![0-9.:])|/(?:[0-9]|[12][0-9]|3[0-2])(?![0-9.])")
_REQUIREMENT = re.compile(rb"(?:[=<>~^!]=|~>|\^)[ ]?\Z")
_LOG_LINE = re.compile(rb"\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:|\"(?:GET|POST|PUT|HEAD|DELETE) ")


def at_event_v4(data: bytes, end: int) -> Candidate | None:
    """The IPv4 address that holds an anchor ending at `end`, as a finding, a shield, or None."""
    dot = data.rindex(b".", end - 10 if end >= 10 else 0, end)
    low = max(0, dot - 12)
    head = data[low:dot]
    start = low + len(head.rstrip(b"0123456789."))
    start = without_escape(data, start, dot)
    match = _QUAD.match(data, start)
    if (
        match is None
        or any(int(octet) > 255 for octet in match.groups())
        or not _stands_alone(data, start, match.end())
    ):
        return None
    return _judge(data, start, match.end(), ipaddress.IPv4Address(match[0].decode()))


def at_event_v6(data: bytes, end: int) -> Candidate | None:
    """The IPv6 address that begins with an anchor ending at `end`, as a finding, a shield, or None."""
    start = end - 6
    if (
        start > 0
        and (data[start - 1 : start].isalnum() or data[start - 1] in b"_:.")
        and not _after_escape(data, start)
    ):
        return None
    match = _V6.match(data, start)
    if match is None:
        return None
    stop = match.end()
    quad = _QUAD.match(data, data.rindex(b":", start, stop) + 1)  # 2a02:6b8::203.0.113.7
    if quad is not None:
        stop = quad.end()
    text = data[start:stop]
    if text.endswith(b":") and not text.endswith(b"::"):
        text, stop = text[:-1], stop - 1
    if data[stop : stop + 1].isalnum() or data[stop : stop + 1] == b"_":
        return None
    try:
        address = ipaddress.IPv6Address(text.decode())
    except ipaddress.AddressValueError:
        return None
    return _candidate(start, stop, "ipv6", 0.0 if _is_harmless_v6(address, text) else 0.97)


def _after_escape(data: bytes, start: int) -> bool:
    return data[start - 2 : start - 1] == b"\\" and data[start - 1] in b"nrt"


def _candidate(start: int, end: int, version: str, confidence: float) -> Candidate:
    return Candidate(start, end, "ip", version, confidence, RANK_IP, whole(start, end))


@functools.lru_cache(maxsize=1 << 12)
def _is_harmless_v4(address: ipaddress.IPv4Address) -> bool:
    inverted = int(address) ^ 0xFFFFFFFF
    if inverted & (inverted + 1) == 0:  # a netmask: ones, then zeros
        return True
    return any(address in network for network in _SPECIAL_V4) or address in PUBLIC_RESOLVERS or _is_toy(address)


def _is_harmless_v6(address: ipaddress.IPv6Address, text: bytes) -> bool:
    first = int(address) >> 112
    return (
        not any(low <= first <= high for low, high in _ALLOCATED_V6)
        or any(address in network for network in _SPECIAL_V6)
        or address in PUBLIC_RESOLVERS
        or _HEX_WORDS.search(text) is not None
    )


def _is_toy(address: ipaddress.IPv4Address) -> bool:
    """1.2.3.4, 1.2.3.200, 11.22.33.44, 12.34.56.78, 123.45.67.89, 111.11.11.1, 5.0.0.0: numbers that stand for any
    address.
    """
    a, b, c, d = address.packed
    digits = str(address).replace(".", "")
    steps = {b - a, c - b, d - c}
    return (
        max(a, b, c, d) < 10
        or (a, b, c) in ((1, 1, 1), (1, 2, 3))
        or (len(steps) == 1 and abs(b - a) in (0, 1, 10, 11, 22, 100, 111))
        or len(set(digits)) == 1
        or digits in "123456789012345"
    )


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    before, after = data[start - 1 : start], data[end : end + 2]
    if before.isalnum() or before in (b"_", b".", b"$") or (before == b"-" and data[start - 2 : start - 1].isalnum()):
        return _after_escape(data, start)
    if (
        after[:1].isalpha()
        or after[:1] in (b"_", b"$")
        or (after[:1] == b"." and (after[1:].isalnum() or after[1:] == b"*"))
    ):
        return False
    return not (after[:1] in b"-+" and after[1:].isalpha())


def _judge(data: bytes, start: int, end: int, address: ipaddress.IPv4Address) -> Candidate | None:
    if _is_harmless_v4(address):
        return _candidate(start, end, "ipv4", 0.0)
    evidence = _evidence(data, start, end, address.packed)
    return _candidate(start, end, "ipv4", 0.97 if evidence >= _NEAR else 0.8) if evidence > 0 else None


def _evidence(data: bytes, start: int, end: int, octets: bytes) -> float:
    """Log odds of an address against a version: sizes of the numbers, what touches them, and the words of the line."""
    score = _PRIOR + sum(next(odds for limit, odds in _SIZES if octet < limit) for octet in octets)
    before, after = line_before(data, start, CONTEXT), line_after(data, end, CONTEXT)
    if before.endswith((b"//", b"@", b"[")) or _PORT_OR_PREFIX.match(after):
        score += _TOUCHING
    elif before.endswith(b"/"):
        score -= _NEAR  # a product or a path: Chrome/53.0.2.1, /lib/1.2.3.4
    if _REQUIREMENT.search(before):
        score -= _TOUCHING  # a requirement: ==1.2.3.4
    if octets[0] < 3 and octets[1] < 40:
        score -= _NEAR  # object identifiers begin like this: 1.3.101.112, 2.5.29.17
    if _LOG_LINE.search(after):
        score += _LOG
    return score + _words(before, after)


def _words(before: bytes, after: bytes) -> float:
    word, near = b"", False
    for match in _WORD.finditer(before):
        if kind := _kind(match[0]):
            word, near = kind, len(before) - match.end() <= NEAR
    if not word:
        word = next(filter(None, map(_kind, _WORD.findall(after))), b"")
    if word == b"version":
        return -_TOUCHING if near else -_NEAR
    if word == b"hint":
        return _HINT
    return (_NEAR if near else _FAR) if word else 0.0


@functools.lru_cache(maxsize=1 << 16)
def _kind(word: bytes) -> bytes:
    """What a word of the line speaks of: b"address", b"hint", b"version" or nothing."""
    kind = ""
    for match in _WORDS.finditer(word):
        kind = match.lastgroup or ""
    return kind.encode()
