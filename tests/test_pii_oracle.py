"""`faithful` against a second implementation, written from the description of BigCode's behaviour alone, without
patterns.

The oracle walks the text character by character; it imports nothing of `kringle.pii`. Both must agree on every source
file of a large part of this machine and on texts made of the characters that decide.
"""

from __future__ import annotations

import ipaddress
import random
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.pii import faithful

Found = tuple[str, int, int]

SPACES = set("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {chr(c) for c in range(0x2000, 0x200B)}
HEX = set("0123456789abcdefABCDEF")
DIGITS = set("0123456789")


def is_han(c: str) -> bool:
    return c > "\u2e00" and (
        unicodedata.name(c, "").startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "CJK RADICAL", "KANGXI"))
        or c in "々〇〡〢〣〤〥〦〧〨〩〸〹〺〻"
    )


def is_word(c: str) -> bool:
    return c == "_" or unicodedata.category(c)[0] in "LM" or unicodedata.category(c) in ("Nd", "Nl", "Pc")


def emails(text: str) -> Iterator[Found]:
    at = -1
    done = 0
    while (at := text.find("@", at + 1)) >= 0:
        start = at
        while start > done and not local_ends(text[start - 1]):
            start -= 1
        # The local part may begin anywhere in the run; the first beginning with a delimiter before it counts.
        first = next((s for s in range(start, at) if begins_email(text, s)), None)
        end = domain_end(text, at) if first is not None else None
        if first is not None and end is not None:
            yield "email", first, end
            done = end
            at = end - 1


def local_ends(c: str) -> bool:
    return c in SPACES or c in "\x08@?!;,:)('\"<"


def begins_email(text: str, at: int) -> bool:
    return (
        at == 0
        or text[at - 1] == "\n"
        or text[at - 1] in SPACES
        or text[at - 1] in "\x08@,?!;:)('\".<"
        or is_han(text[at - 1])
    )


def ends_email(text: str, at: int) -> bool:
    return at == len(text) or text[at] in SPACES or text[at] in "\x08@,?!;:)('\".>" or is_han(text[at])


def domain_end(text: str, at: int) -> int | None:
    stop = at + 1
    while stop < len(text) and text[stop] not in SPACES and text[stop] not in "\x08@!?;,/":
        stop += 1
    for last in range(stop - 1, at, -1):  # the character before the final dot, as late as possible
        if text[last] in ":)('\">." or text[last + 1 : last + 2] != ".":
            continue
        top = last + 2
        if top >= len(text) or unicodedata.category(text[top])[0] != "L":
            continue
        end = top + 1
        while end < len(text) and is_word(text[end]):
            end += 1
        while end >= top + 2:
            if ends_email(text, end):
                return end
            end -= 1
    return None


def ips(text: str) -> Iterator[Found]:
    at = 0
    while at <= len(text):
        found = None
        for start in begins_ip(text, at):
            end = next((e for e in addresses(text, start) if ends_ip(text, e)), None)
            if end is not None:
                found = start, end
                break
        if found is None:
            at += 1
            continue
        start, end = found
        if counts(text, start, end):
            yield "ip", start, end
        at = end if end == len(text) or text[end] == "\n" else end + 1  # the delimiter behind it is used up
        if end == len(text):
            return


def begins_ip(text: str, at: int) -> list[int]:
    starts = []
    if at == 0 or text[at - 1] == "\n":
        starts.append(at)
    if at < len(text) and (text[at] in SPACES or text[at] in "\x08@?,!;:'\")(." or is_han(text[at])):
        starts.append(at + 1)
    return [s for s in starts if s < len(text) and (text[s] in HEX or text[s] == ":")]


def ends_ip(text: str, at: int) -> bool:
    return at == len(text) or text[at] in SPACES or text[at] in "@,?!;:'\"(." or is_han(text[at])


def v4(text: str, at: int) -> int | None:
    for number in range(4):
        end = at
        while end < len(text) and text[end] in DIGITS:
            end += 1
        if not 1 <= end - at <= 3 or int(text[at:end]) > 255:
            return None
        if number == 3:
            return end
        if text[end : end + 1] != ".":
            return None
        at = end + 1
    raise AssertionError


def group(text: str, at: int) -> int | None:
    """The end of one to four hexadecimal digits; more digits than four are no group of an address."""
    end = at
    while end < len(text) and text[end] in HEX:
        end += 1
    return end if 1 <= end - at <= 4 else None


def led(text: str, at: int) -> list[int]:
    """Ends of 1, 2, 3... groups that are each followed by a colon."""
    ends: list[int] = []
    while (end := group(text, at)) is not None and text[end : end + 1] == ":":
        at = end + 1
        ends.append(at)
    return ends


def trailed(text: str, at: int) -> list[int]:
    """Ends of 1, 2, 3... groups that are each preceded by a colon."""
    ends: list[int] = []
    while text[at : at + 1] == ":" and (end := group(text, at + 1)) is not None:
        at = end
        ends.append(at)
    return ends


def addresses(text: str, at: int) -> Iterator[int]:
    """Ends of the notations that begin at `at`, in the order in which the original tries them."""
    if (end := v4(text, at)) is not None:
        yield end
    heads = led(text, at)
    if len(heads) >= 7 and (end := group(text, heads[6])) is not None:
        yield end
    for head in reversed(heads[:7]):
        if text[head : head + 1] == ":":
            yield head + 1
    for after in range(1, 6):
        for head in reversed(heads[: 7 - after]):
            yield from reversed(trailed(text, head)[:after])
    if heads:
        yield from reversed(trailed(text, heads[0])[:6])
    if text[at : at + 1] == ":":
        yield from reversed(trailed(text, at + 1)[:7])
        if text[at + 1 : at + 2] == ":":
            yield at + 2
    if text.startswith("fe80:", at):
        yield from zoned(text, at + 5)
    if text.startswith("::", at):
        yield from mapped(text, at + 2)
    for head in reversed(heads[:4]):
        if text[head : head + 1] == ":" and (end := v4(text, head + 1)) is not None:
            yield end


def zoned(text: str, at: int) -> Iterator[int]:
    ends = [at]
    for _ in range(4):
        if text[at : at + 1] != ":":
            break
        at += 1
        while at < len(text) and text[at] in HEX and at - ends[-1] <= 4:
            at += 1
        ends.append(at)
    for end in reversed(ends):
        if text[end : end + 1] == "%":
            stop = end + 1
            while stop < len(text) and text[stop].isascii() and text[stop].isalnum():
                stop += 1
            yield from range(stop, end + 1, -1)


def mapped(text: str, at: int) -> Iterator[int]:
    if text.startswith("ffff", at):
        zeros = at + 5
        while text[zeros : zeros + 1] == "0":
            zeros += 1
        padded = text[at + 4 : at + 5] == ":" and 1 <= zeros - at - 5 <= 4 and text[zeros : zeros + 1] == ":"
        if padded and (end := v4(text, zeros + 1)) is not None:
            yield end
        if text[at + 4 : at + 5] == ":" and (end := v4(text, at + 5)) is not None:
            yield end
    if (end := v4(text, at)) is not None:
        yield end


def counts(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if not DIGITS & set(value):
        return False
    parts = value.split(".")
    if len(parts) > 2 and [len(p) for p in parts[:3]] == [2, 2, 2] and parts[0][0] in "0123" and parts[1][0] in "0123":
        return False  # begins like day.month.year
    if len(parts) == 4 and len(value) == 7:
        context = text[start - 100 : end + 100].lower()
        if "dns" not in context and "server" not in context:
            return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def oracle(text: str) -> list[Found]:
    return sorted([*emails(text), *ips(text)])


def ours(text: str) -> list[Found]:
    return sorted((s.kind, s.start, s.end) for s in faithful.find_emails(text) + faithful.find_ips(text))


ATOMS = [
    *"@.,:;!?'\"()<>[]{}=/-_ \n\t\x08中aZ09fF%\u200bé٣\x85\u2028",
    *(
        "::",
        "fe80::",
        "ffff:",
        "2001:db8:",
        "1.2.3.4",
        "10.",
        "255",
        "54.12.33.9",
        "a@b.com",
        "foo",
        "bar",
        "com",
        "dns",
    ),
    *(
        "server",
        "192.168.",
        "8.8.8.8",
        "eth0",
        "%1",
        "0:0:0:",
        "12.",
        "\r\n",
        "x" * 60,
        "12.12.12.1",
        "1:2:3:4:5:6:7:8",
    ),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ATOMS), max_size=40).map("".join))
def test_texts_of_deciding_characters(text: str) -> None:
    assert ours(text) == oracle(text)


def real_files(limit: int) -> list[Path]:
    """A fixed choice of the source files of this Python and its packages, up to `limit` bytes, none above 60 kB."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")) + sorted(
        Path(sysconfig.get_paths()["purelib"]).rglob("*.py")
    )
    random.Random(5).shuffle(paths)
    chosen = []
    for path in paths:
        if (size := path.stat().st_size) <= 60_000 and limit > 0:
            chosen.append(path)
            limit -= size
    return chosen


def test_real_files() -> None:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in real_files(9_000_000)]
    texts = [text for text in texts if "@" in text or "::" in text][:250]
    if len(texts) < 250:
        pytest.skip(f"only {len(texts)} source files with an at sign on this machine")
    found = 0
    for text in texts:
        spans = ours(text)
        assert spans == oracle(text)
        found += len(spans)
    assert found
