"""The default detectors: a multi-pattern scan says where to look, then an exact test of each kind says what it is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from kringle.pii import (
    addresses,
    assignments,
    commands,
    emails,
    headers,
    kubernetes,
    pairs,
    password_hashes,
    places,
    powershell,
    private_keys,
    strings,
    tokens,
    urls,
    web_keys,
)
from kringle.pii.candidates import Candidate, Finding, without_overlaps
from kringle.pii.formats import FORMATS
from kringle.pii.prefilter import Anchor, Prefilter

Detector = Callable[[bytes, int], Candidate | Iterator[Candidate] | None]

_GENERAL: tuple[tuple[Anchor, Detector], ...] = (
    (Anchor(emails.ANCHOR), emails.at_event),
    (Anchor(addresses.ANCHOR_V4), addresses.at_event_v4),
    (Anchor(addresses.ANCHOR_V6), addresses.at_event_v6),
    (Anchor(private_keys.ANCHOR), private_keys.at_event),
    (Anchor(urls.ANCHOR), urls.at_event),
    (Anchor(assignments.ANCHOR, any_case=True), assignments.at_event),
    (Anchor(assignments.SHORT_ANCHOR, any_case=True), assignments.at_short_name),
    (Anchor(headers.SIGNATURE_ANCHOR), headers.at_signature),
    (Anchor(headers.SCHEME_ANCHOR, any_case=True), headers.at_scheme),
    (Anchor(strings.ANCHOR), strings.at_event),
    (Anchor(headers.LOGIN_ANCHOR), headers.at_login),
    (Anchor(places.LOGIN_ANCHOR, any_case=True), places.at_login),
    (Anchor(places.SQL_ANCHOR, any_case=True), places.at_sql),
    (Anchor(places.ELEMENT_ANCHOR, any_case=True), places.at_element),
    (Anchor(pairs.ANCHOR, any_case=True), pairs.at_value),
    (Anchor(places.OPTION_ANCHOR), places.at_option),
    (Anchor(places.USER_ANCHOR), places.at_user),
    (Anchor(places.QUERY_ANCHOR, any_case=True), places.at_query),
    (Anchor(places.LINE_ANCHOR), places.at_line),
    (Anchor(places.HEXADECIMAL_ANCHOR), places.at_hexadecimal),
    (Anchor(urls.USER_ANCHOR), urls.at_user),
    (Anchor(urls.ORACLE_ANCHOR), urls.at_oracle),
    (Anchor(private_keys.PUTTY_ANCHOR), private_keys.at_putty),
    (Anchor(kubernetes.ANCHOR), kubernetes.at_kind),
    (Anchor(commands.PROGRAM_ANCHOR), commands.at_program),
    (Anchor(commands.SETTING_ANCHOR), commands.at_setting),
    (Anchor(commands.PIPE_ANCHOR), commands.at_pipe),
    (Anchor(powershell.SECURE_ANCHOR, any_case=True), powershell.at_secure_string),
    (Anchor(powershell.CREDENTIAL_ANCHOR, any_case=True), powershell.at_credential),
    (Anchor(password_hashes.ANCHOR), password_hashes.at_event),
    (Anchor(places.SALT_ANCHOR), places.at_salt),
    (Anchor(assignments.MACRO_ANCHOR), assignments.at_macro),
    (Anchor(web_keys.ANCHOR), web_keys.at_member),
)
_DETECTORS: tuple[Detector, ...] = (
    *(detector for _, detector in _GENERAL),
    *(functools.partial(tokens.at_event, row=row) for row in FORMATS),
)
_ANCHORS = (*(anchor for anchor, _ in _GENERAL), *(Anchor(row.anchor) for row in FORMATS))


@functools.cache
def default_prefilter(engine: str | None = None) -> Prefilter:
    """The scan for every kind, made once per process."""
    formats = range(len(_GENERAL), len(_ANCHORS))
    groups = (
        (0, 2, 3, 4, 7),
        (1, 20, 21),
        (5, 6, 28),
        (8,),
        (9, 19),
        (*range(10, 19), *range(22, 28), *range(29, len(_GENERAL))),
        tuple(formats),
    )
    assert sorted(i for group in groups for i in group) == list(range(len(_ANCHORS))), "an anchor without its scan"
    return Prefilter(_ANCHORS, groups, engine, keep=True)


def candidates(data: bytes, engine: str | None = None) -> list[Candidate]:
    """What the detectors recognise in `data`, free of overlaps, in order of start; shields have confidence 0."""
    return without_overlaps(_all(data, engine))


def _all(data: bytes, engine: str | None) -> Iterator[Candidate]:
    for end, index in default_prefilter(engine).events(data):
        found = _DETECTORS[index](data, end)
        if isinstance(found, Candidate):
            yield found
        elif found is not None:
            yield from found


def find(data: bytes, least: float = 0.0, engine: str | None = None) -> list[Finding]:
    """Emails, public IP addresses and keys in `data` (any bytes), in order, with a confidence above `least`."""
    return located(data, [c for c in candidates(data, engine) if c.confidence > least])


def located(data: bytes, found: list[Candidate]) -> list[Finding]:
    """Candidates in order of start, with line and column (both from 1, the column in bytes)."""
    findings = []
    line, line_start, at = 1, 0, 0
    for c in found:
        newlines = data.count(b"\n", at, c.start)
        if newlines:
            line += newlines
            line_start = data.rfind(b"\n", at, c.start) + 1
        at = c.start
        findings.append(Finding(c.kind, c.format, c.start, c.end, line, c.start - line_start + 1, c.confidence))
    return findings
