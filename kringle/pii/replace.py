"""Replacing candidates in bytes by their stand-ins, and nothing else.

Emails become random letters at a reserved example domain (RFC 2606), IPv4 addresses addresses in 10.0.0.0/8, IPv6
addresses unique local ones (RFC 4193) of the same notation; keys keep length, prefix, separators and alphabet
(`stand_ins`).
"""

from __future__ import annotations

import functools
import ipaddress
import re
import string
from collections.abc import Callable, Sequence

from kringle.pii.candidates import Candidate
from kringle.pii.formats import FORMATS
from kringle.pii.stand_ins import Stream, stand_in

SHORTEST_LOCAL, LONGEST_LOCAL = 8, 24  # letters before the at sign: enough to tell people apart, no wider than most
_LETTERS = string.ascii_lowercase.encode()
_PREFIX_LENGTH = re.compile(rb"/(12[0-8]|1[01][0-9]|[1-9]?[0-9])(?![0-9.])")


def replace(data: bytes, found: Sequence[Candidate], key: bytes) -> bytes:
    """`data` with every candidate (sorted, free of overlaps) replaced under a corpus key of at most 64 bytes."""
    pieces = []
    done = 0
    for candidate in found:
        pieces += [data[done : candidate.start], replacement(data, candidate, key)]
        done = candidate.end
    return b"".join([*pieces, data[done:]])


def replacement(data: bytes, candidate: Candidate, key: bytes) -> bytes:
    """What stands in for one candidate: a function of its value and the key (and of a prefix length behind an
    address).
    """
    value = data[candidate.start : candidate.end]
    if candidate.kind == "email":
        return _email(value, key)
    if candidate.kind == "ip":
        behind = _PREFIX_LENGTH.match(data, candidate.end)
        return _address(value, int(behind[1]) if behind else None, key)
    return stand_in(data, candidate, key, _genuine(candidate.format))


@functools.cache
def _genuine(name: str) -> Callable[[bytes], bool]:
    for row in FORMATS:
        if row.name == name and (row.genuine or row.check):
            return row.genuine or row.check or bool
    return lambda _: False


def _email(value: bytes, key: bytes) -> bytes:
    local, _, domain = value.lower().rpartition(b"@")
    stream = Stream(b"kringle-email", key, value.lower())
    size = min(max(len(local), SHORTEST_LOCAL), LONGEST_LOCAL)
    ending = domain.rpartition(b".")[2]
    host = b"example." + (ending if ending in (b"org", b"net") else b"com")
    return bytes(stream.pick(_LETTERS) for _ in range(size)) + b"@" + host


def _address(value: bytes, prefix_length: int | None, key: bytes) -> bytes:
    address = ipaddress.ip_address(value.decode())
    stream = Stream(b"kringle-ip", key, address.packed)
    if isinstance(address, ipaddress.IPv4Address):
        number = 10 << 24 | stream.below(1 << 24)
        if (
            prefix_length is not None and prefix_length <= 32
        ):  # a network's address stays one, so that the code still runs
            hosts = (1 << (32 - prefix_length)) - 1
            number = number & ~hosts | int(address) & hosts if prefix_length >= 8 else 10 << 24
        return str(ipaddress.IPv4Address(number)).encode()
    return _address_v6(value, prefix_length, stream)


def _address_v6(value: bytes, prefix_length: int | None, stream: Stream) -> bytes:
    """The same notation, group for group; zeros stay, and so do the host bits of a network's address. An IPv4 address
    at the end becomes a private one."""
    if b"." in value:
        head = value.rpartition(b":")[0]
        private = str(ipaddress.IPv4Address(10 << 24 | stream.below(1 << 24))).encode()
        return _address_v6(head + b":0:0", prefix_length, stream)[: -len(b"0:0")] + private
    groups = value.split(b":")
    missing = 8 - sum(bool(group) for group in groups)
    changed, place = [], 0
    for group in groups:
        if not group:  # the place of "::"; at either end it makes two empty groups
            changed.append(b"")
            place += missing
            missing = 0
            continue
        drawn = stream.below(1 << 4 * len(group)) if group.strip(b"0") else int(group, 16)
        if place == 0:
            drawn = 0xFD00 | drawn & 0xFF
        hosts = (1 << max(0, min(16, 16 * (place + 1) - (128 if prefix_length is None else prefix_length)))) - 1
        text = b"%0*x" % (len(group), drawn & ~hosts | int(group, 16) & hosts)
        changed.append(text.upper() if group != group.lower() else text)
        place += 1
    return b":".join(changed)
