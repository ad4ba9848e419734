"""Tokens with a vendor's format: one candidate for each place where a row of `formats` matches."""

from __future__ import annotations

from kringle.pii.candidates import RANK_FORMAT, Candidate
from kringle.pii.format_shapes import LIKELY, Format
from kringle.pii.lookalikes import is_documented, made_up
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import at_left_edge

_BASE64_MARKS = (b"+", b"/")
LEAST_RANDOMNESS = 10.0  # of a token whose prefix other things share; see `rarity.randomness`
LEAST_JUDGED, JUDGED = 16, 256  # how long a secret must be to look for placeholders in it, and how far


def at_event(data: bytes, end: int, row: Format) -> Candidate | None:
    """The token of format `row` whose anchor ends at `end`: a finding, a shield, or None."""
    for lookback in row.lookback:
        start = end - row.anchor_length - lookback
        if start < 0 or not (
            at_left_edge(data, start) or data[start - 3 : start] == b"bot"
        ):  # api.telegram.org/bot<token>
            continue
        if row.not_after and data[start - 1 : start] in (b"%c" % c for c in row.not_after):
            continue
        match = row.pattern.match(data, start)
        if match is None or match.end() < end:
            continue
        if row.confidence <= LIKELY and (
            data[start - 1 : start] in _BASE64_MARKS or data[match.end() : match.end() + 1] in _BASE64_MARKS
        ):
            continue  # a stretch of some base 64
        groups = tuple((match.span(group),) for group in range(1, row.pattern.groups + 1) if match[group] is not None)
        found = Candidate(start, match.end(), "key", row.name, row.confidence, RANK_FORMAT, groups, row.alphabet)
        return found._replace(confidence=0.0) if _is_harmless(data, found, row) else found
    return None


def _is_harmless(data: bytes, found: Candidate, row: Format) -> bool:
    token = data[found.start : found.end]
    secrets = [data[start:end] for ((start, end),) in found.groups]
    return (
        (row.check is not None and not row.check(token))
        or carries_mark(data, found)
        or is_documented(token)
        or any(made_up(secret[:JUDGED]) for secret in secrets if len(secret) >= LEAST_JUDGED)
        or (row.confidence <= LIKELY and randomness(b"".join(secrets)) <= LEAST_RANDOMNESS)
    )
