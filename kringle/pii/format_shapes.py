"""How a row of the table of token formats is written (`formats`): a prefix, an alphabet, a length, and what follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

ALNUM = "A-Za-z0-9"
URL64 = "A-Za-z0-9_-"
BASE64 = "A-Za-z0-9+/"
HEX = "0-9a-f"
ANYHEX = "0-9a-fA-F"
UPPER = "A-Z0-9"
LOWER = "a-z0-9"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

# How sure a format makes us: the checksum agrees; an unmistakable prefix; a prefix that other things share.
CERTAIN, DISTINCT, LIKELY = 0.99, 0.95, 0.8


class Format(NamedTuple):
    """One token format.

    `anchor` is a cheap pattern of fixed length `anchor_length` that the multi-pattern scan looks for; the token starts
    `lookback` bytes before the anchor. `pattern` matches the whole token; its groups are the secret segments. `check`
    is what a finding must pass; `genuine` (the same where not given) is what a stand-in must fail. A stand-in is drawn
    from `alphabet`; without one, from what the value itself shows. `not_after` are bytes that may not stand before it.
    """

    name: str
    anchor: bytes
    anchor_length: int
    pattern: re.Pattern[bytes]
    confidence: float
    lookback: tuple[int, ...] = (0,)
    check: Callable[[bytes], bool] | None = None
    genuine: Callable[[bytes], bool] | None = None
    alphabet: str = ""
    not_after: bytes = b""


def prefixed(
    name: str,
    prefixes: str,
    alphabet: str,
    least: int,
    most: int | None = None,
    *,
    confidence: float = DISTINCT,
    tail: str = "",
    check: Callable[[bytes], bool] | None = None,
) -> list[Format]:
    """Rows for tokens `prefix` + `least` to `most` characters of `alphabet` + `tail` (a pattern, may hold groups).

    Four characters after the prefix are enough for the anchor: prefixes are rare.
    """
    most = least if most is None else most
    marked = min(4, least)
    rows = []
    for prefix in prefixes.split():
        literal = re.escape(prefix)
        body = rf"([{alphabet}]{{{least},{most}}})" if most > least else rf"([{alphabet}]{{{least}}})"
        end = "" if tail else rf"(?![{alphabet}])"
        pattern = re.compile(f"{literal}{body}{tail}{end}".encode())
        anchor = f"{literal}[{alphabet}]{{{marked}}}".encode()
        rows.append(Format(name, anchor, len(prefix) + marked, pattern, confidence, check=check))
    return rows


def inner(name: str, lookback: tuple[int, ...], anchor: str, length: int, pattern: str, confidence: float) -> Format:
    """A row for a token whose mark lies `lookback` bytes inside it."""
    return Format(name, anchor.encode(), length, re.compile(pattern.encode()), confidence, lookback)


def checked(row: Format, check: Callable[[bytes], bool]) -> Format:
    """The row with a test that a finding must pass."""
    return row._replace(check=check)
