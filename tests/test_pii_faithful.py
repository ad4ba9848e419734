"""`faithful` against tables of what BigCode's functions of December 2022 did with probe strings."""

from __future__ import annotations

import pytest

from kringle.pii import faithful
from kringle.pii.faithful import Span, find_emails, find_ips, is_replaced, redact


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<foo@bar.org>", "foo@bar.org"),
        ("[foo@bar.com]", None),
        ("user@localhost", None),
        ("git@github.com:org/repo.git", "git@github.com"),
        ("icon@2x.png", "icon@2x.png"),
        ("pkg@1.2.3.tgz", "pkg@1.2.3.tgz"),
        ("lodash@4.17.21", None),
        ("@angular/core", None),
        ("root@10.0.0.5", None),
        ("a=foo@bar.co.uk;", "a=foo@bar.co.uk"),
        ("https://user:pw@host.com/x", None),
        ("'x@y.z'", None),
        ("foo@-bar.com", "foo@-bar.com"),
        ("foo@example.com", "foo@example.com"),
    ],
)
def test_email_probes(text: str, value: str | None) -> None:
    assert [span.value for span in find_emails(text)] == ([value] if value else [])


@pytest.mark.parametrize(
    "text",
    ["host='54.12.33.9'", "54.12.33.9:8080", "54.12.33.9.", "2001:db8::1", "::1", "fe80::1%eth0", "127.0.0.1"],
)
def test_addresses_that_are_seen(text: str) -> None:
    assert len(find_ips(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("http://54.12.33.9/", "54.12.33.0/24", "a=54.12.33.9", "(10.20.30.40)", "[54.12.33.9]", "[2001:db8::1]"),
        *("54.12.33.9)", "1.2.3.4.5", "192.168.001.1", "300.1.1.1", "0.0.0.0", "v10.2.3.4", "std::vector", "a::b"),
        *("de::ad", "12:34:56", "00:1a:2b:3c:4d:5e", "ver 1.2.3.4"),
    ],
)
def test_addresses_that_are_not_seen(text: str) -> None:
    assert find_ips(text) == []


def test_a_version_counts_where_a_name_server_is_spoken_of_unless_it_stands_early() -> None:
    assert len(find_ips("dns 1.2.3.4")) == 1
    assert find_ips("dns 1.2.3.4" + " " * 200) == []  # the context of the first 100 characters is empty
    assert len(find_ips(" " * 200 + "dns 1.2.3.4" + " " * 200)) == 1


def test_a_backspace_delimits_on_the_left_only_for_addresses() -> None:
    assert [s.value for s in find_emails("\x08a@b.com\x08")] == ["a@b.com"]
    assert len(find_ips("\x0854.12.33.9")) == 1
    assert find_ips("54.12.33.9\x08") == []


@pytest.mark.parametrize("value", ["10.1.2.3", "127.0.0.1", "203.0.113.7", "8.8.8.8", "2001:db8::1"])
def test_addresses_left_in_place(value: str) -> None:
    assert not is_replaced(Span(0, len(value), "ip", value))


@pytest.mark.parametrize("value", ["54.12.33.9", "100.64.0.1", "2a04:4976::1"])
def test_addresses_replaced(value: str) -> None:
    assert is_replaced(Span(0, len(value), "ip", value))


def test_redaction_keeps_the_original_faults() -> None:
    text = "a@b.org, c@d.org and 54.12.33.9, also a@b.org"
    spans = find_emails(text) + find_ips(text)
    result = redact(text, spans)
    first, rest = result.split("@example.com, ", 1)
    assert first.startswith(" ")  # nothing stands before the first email, so a space is put there
    assert len(first) == 6
    assert rest.count("@example.com") == 2
    assert result.endswith(f", also {first.strip()}@example.com")  # the same value, the same stand-in
    assert any(address in result for address in faithful.STAND_IN_IPV4)
    assert redact(text, []) == text


def test_a_corpus_has_ten_emails_and_five_addresses() -> None:
    emails = {redact(f"x u{i}@corp.org y", find_emails(f"x u{i}@corp.org y")) for i in range(300)}
    addresses = {redact(f"x 54.12.{i}.9 y", find_ips(f"x 54.12.{i}.9 y")) for i in range(200)}
    assert len(emails) == 10
    assert len(addresses) == 5
