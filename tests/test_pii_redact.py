"""Redaction: what is replaced and by what, what stays, and that a second pass finds nothing."""

from __future__ import annotations

import ast
import base64
import ipaddress
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.bench.pii_labels import load
from kringle.errors import UserError
from kringle.pii import findings, redact
from kringle.pii.corrected import candidates
from kringle.pii.format_shapes import Format
from kringle.pii.formats import FORMATS
from kringle.pii.stand_ins import carries_mark

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "evidence"))
from pii_fuzz import FRAGMENTS, check, mutate

KEY = b"corpus"
OPEN = load("open")


def redacted(text: str, key: bytes = KEY) -> str:
    return redact(text.encode(), key)[0].decode()


def test_mutated_files_hold_the_promises() -> None:
    seeds = [file.content.encode() for file in OPEN]
    assert sum(check(mutate(seeds, number)) for number in range(1500, 2100)) > 500


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=4)), max_size=50).map(b"".join))
def test_any_bytes(data: bytes) -> None:
    check(data)


def test_every_labelled_file_is_clean_after_one_pass() -> None:
    total = 0
    for file in OPEN:
        output, found = redact(file.content.encode(), KEY)
        assert findings(output) == []
        total += len(found)
    assert total >= 0.95 * sum(len(file.positives) for file in OPEN)


def test_python_files_parse_as_before() -> None:
    files = [file for file in OPEN if file.language == "python"]
    for file in files:
        ast.parse(file.content)
        ast.parse(redacted(file.content))


def test_keys_change_letters_and_digits_alone() -> None:
    letter = re.compile(rb"[A-Za-z0-9+/]")
    for file in OPEN:
        data = file.content.encode()
        output, found = redact(data, KEY)
        if any(finding.kind != "key" for finding in found):
            continue
        assert len(output) == len(data)
        assert letter.sub(b"", output) == letter.sub(b"", data)


def test_the_same_value_gets_the_same_stand_in_everywhere() -> None:
    secret = "dac04806138bdfb3cef453970e2c6033"
    text = f'api_key = "{secret}"\nurl = "https://corp.org/?api_key={secret}&x=1"\nother = Client(token="{secret}")\n'
    result = redacted(text)
    stand_ins = set(re.findall("[0-9a-f]{32}", result))
    assert len(stand_ins) == 1
    assert secret not in stand_ins
    assert redacted(f'API_KEY="{secret}"').split('"')[1] in stand_ins  # in another file as well
    assert redacted(text) == result
    assert redacted(text, b"another corpus") != result


def test_a_private_key_has_one_stand_in_in_every_layout() -> None:
    body = [
        "MIIBOgIBAAJBAK8Q+ToR4tWGshaKYRHKJ3ZmMUF6jjwCS/u1A8v1tFbQiVpB",
        "lxYB5paNcT2ENEXBGdmWqr8VwSl0NBIKyq4p0rhsCAwE=",
    ]
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"
    lines = redacted("\n".join([begin, *body, end]))
    string = redacted('"' + "\\n".join([begin, *body, end]) + '"')
    assert lines.split("\n")[0] == begin
    assert [len(line) for line in lines.split("\n")] == [len(line) for line in (begin, *body, end)]
    assert string == '"' + lines.replace("\n", "\\n") + '"'
    assert body[0] not in lines
    assert lines.split("\n")[2].endswith("=")


@pytest.mark.parametrize(
    "text",
    [
        "x://u:%41%42%43%44%45%46@h.org",
        "eyJ" + base64.urlsafe_b64encode(b"[" * 3000).decode().lstrip("e") + ".eyJhYmNkZWYifQ.aB3dE5fG7hI9jK1lM3nO5p",
        "-----BEGIN PRIVATE KEY-----" + "\\n" * 50 + "-----END PRIVATE KEY-----",
        'password = "' + "#!" * 20 + 'a"',
        "9" * 3000 + ".1.1.1",
        "2a04" + ":" * 3000,
        "a" * 5000 + "@" + "b." * 3000 + "com",
        # Twenty rounds of redaction are not enough for this one
        "LOGIN x WITH PA\xfcSWO] = 'yoab30mLb4TgDRaFEhjbeV8O0QDjJqMfYZ66C9mEvYxzid5Z66C9mEvYxzid5I=G1PyUl21XgT"
        "4eyt2DSKC5dfOWz'x",
    ],
)
def test_odd_candidates_do_no_harm(text: str) -> None:
    check(text.encode("latin-1"))


def test_emails_go_to_reserved_domains() -> None:
    result = redacted("<jane.doe@corp.org>, bob@corp.de; jane.doe@corp.org")
    assert re.fullmatch(r"<([a-z]{8,24})@example\.org>, [a-z]{8,24}@example\.com; \1@example\.org", result)


def test_addresses_stay_in_their_family_and_networks_networks() -> None:
    result = redacted("host 54.12.133.9; 2a04:8cba::9a8:3d08; 183.8.2.0/24; 2a04:8cba:8000::/33")
    v4, v6, network, network_v6 = re.findall(r"[0-9a-f.:]*[.:][0-9a-f.:/]+", result)
    assert ipaddress.ip_address(v4) in ipaddress.ip_network("10.0.0.0/8")
    assert ipaddress.ip_address(v6) in ipaddress.ip_network("fd00::/8")
    assert len(v6) == len("2a04:8cba::9a8:3d08")
    assert ipaddress.ip_network(network).prefixlen == 24
    assert ipaddress.ip_network(network_v6).prefixlen == 33


def test_an_ipv4_address_at_the_end_of_an_ipv6_address_belongs_to_it() -> None:
    """The fuzz test's input 65,443: half of the IPv4 address was redacted, and the rest looked like another."""
    for data in (b'net = "2a02:6b8::89.0.0.0/8"', b'net = "2a02:6b8:7::93.184.216.34"', b"2a02:6b8:1:2:3:4:93.5.6.7"):
        redacted, found = redact(data, KEY)
        assert [data[f.start : f.end].count(b".") for f in found] == [3]
        text = redacted.removeprefix(b'net = "').rstrip(b'"').removesuffix(b"/8").decode()
        address = ipaddress.IPv6Address(text)
        assert address.is_private
        assert text.rpartition(":")[2].startswith("10.")
        assert redact(redacted, KEY) == (redacted, [])


def test_percent_escapes_stay_whole() -> None:
    result = redacted("postgres://app:p%40xK9mP2%2FvL8q@db.corp.org/x")
    assert re.fullmatch(r"postgres://app:[a-z]%40\w{6}%2F\w{4}@db\.corp\.org/x", result)
    assert "xK9mP2" not in result


def example_of(pattern: re.Pattern[bytes], draw: random.Random) -> bytes:
    """Bytes that a pattern of literals, classes, repeats and groups matches."""

    def write(nodes: Iterable[Any]) -> bytes:
        return b"".join(one(str(kind), value) for kind, value in nodes)

    def one(kind: str, value: Any) -> bytes:
        match kind:
            case "LITERAL":
                return bytes([value])
            case "IN":
                return bytes(
                    [
                        draw.choice(
                            [c for k, v in value for c in ([v] if str(k) == "LITERAL" else range(v[0], v[1] + 1))]
                        )
                    ]
                )
            case "MAX_REPEAT":
                low, high, nodes = value
                return b"".join(write(nodes) for _ in range(draw.randint(low, min(high, low + 40))))
            case "SUBPATTERN":
                return write(value[3])
            case "BRANCH":
                return write(draw.choice(value[1]))
            case "ASSERT_NOT":
                return b""
        raise AssertionError(f"the pattern has a part that this test does not know: {kind}")

    return write(re._parser.parse(pattern.pattern))  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_stand_ins_of_every_format_keep_it_and_are_known(row: Format) -> None:
    draw = random.Random(row.pattern.pattern)
    tokens = [example_of(row.pattern, draw) for _ in range(12)]
    seen = 0
    for token in tokens:
        assert row.pattern.fullmatch(token)
        text = b"'" + token + b"'"
        found = [c for c in candidates(text) if c.format == row.name and c.confidence > 0]
        if not found:
            continue  # a wrong checksum, a placeholder, or another format's token
        seen += 1
        output, _ = redact(text, KEY)
        assert len(output) == len(text)
        assert output != text
        known = [c for c in candidates(output) if c.format == row.name and carries_mark(output, c)]
        assert known
        genuine = row.genuine or row.check
        assert genuine is None or not genuine(output[known[0].start : known[0].end])
    assert seen >= 6 or row.check is not None


def test_the_stand_in_does_not_follow_the_case_of_the_secret() -> None:
    secret = "aAbBcCdDeEfFgGhHiIjJkKlL" + "mNoPqRsTuVwX0123"
    stand_in = redacted(f'api_key = "Zq{secret}"').split('"')[1]
    assert [c.isupper() for c in stand_in] != [c.isupper() for c in "Zq" + secret]


@pytest.mark.parametrize("key", [b"", b"x" * 65])
def test_keys_of_a_wrong_size_are_refused(key: bytes) -> None:
    with pytest.raises(UserError, match="1 to 64 bytes"):
        redact(b"x", key)


def test_what_is_accepted_stays() -> None:
    data = b"jane@corp.org and bob@corp.org"
    output, found = redact(data, KEY, lambda kind, value: (kind, value) == ("email", b"jane@corp.org"))
    assert output.startswith(b"jane@corp.org and ")
    assert [(f.start, f.end) for f in found] == [(18, 30)]


def test_places_are_counted_in_bytes_and_lines() -> None:
    (first, second) = findings("é\n  é jane@corp.org\r\n\tbob@corp.org".encode())
    assert (first.line, first.column, first.start) == (2, 6, 8)
    assert (second.line, second.column) == (3, 2)
