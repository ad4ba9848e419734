"""The labelled benchmark's open half: floors that a change of the rules must not fall below.

The sealed half is not read here: it is for final tables (`kringle bench pii`).
"""

from __future__ import annotations

from kringle.bench.pii_labels import KINDS, LabelledFile, Reported, Span, counts, load, matches, quality
from kringle.bench.pii_labels.finders import corrected, faithful_without_keys


def test_floors_and_the_original() -> None:
    files = load("open")
    ours, original = quality(files, corrected), quality(files, faithful_without_keys)
    for kind in KINDS:
        assert ours[kind].precision >= 0.98, kind
        assert ours[kind].recall >= 0.98, kind
        assert ours[kind].precision >= original[kind].precision
        assert ours[kind].recall >= original[kind].recall


def test_the_matching_rule() -> None:
    assert matches((0, 10), (0, 10))
    assert matches((0, 10), (2, 10))
    assert not matches((0, 10), (3, 10))
    assert not matches((0, 10), (0, 13))
    assert not matches((0, 10), (10, 20))


def test_counts_of_one_file() -> None:
    spans = (Span(0, 10, "email", "", ""), Span(20, 30, "email", "", ""), Span(40, 50, "negative", "", ""))
    file = LabelledFile("x.py", "python", " " * 60, spans, ("s",))
    reported = [Reported(0, 10, "email"), Reported(40, 50, "email"), Reported(20, 30, "ip")]
    table = dict(zip(KINDS, counts(file, reported).tolist(), strict=True))
    assert table == {"email": [1, 1, 1], "ip": [0, 0, 1], "key": [0, 0, 0]}
