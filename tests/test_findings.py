"""What a study says of one arm against another."""

from __future__ import annotations

from typing import Any

import pytest

from kringle.study.findings import findings
from kringle.study.results import Comparison, Verdict


def compared(measure: str, difference: float, reach: float, verdict: Verdict = "undecided") -> Comparison:
    bits = measure.startswith("bits")
    given: dict[str, Any] = {"unit": "bits per byte" if bits else "fraction", "higher_is_better": not bits}
    low, high = difference - reach, difference + reach
    return Comparison("mha", "fim", measure, **given, difference=difference, low=low, high=high, level=0.9, margin=0.01,
                      verdict=verdict, remark="")  # fmt: skip


@pytest.mark.parametrize(
    ("comparisons", "said"),
    [
        (
            [compared("bits per byte", 0.02, 0.03), compared("infilling", 0.01, 0.02), compared("pass@1", 0.0, 0.04)],
            "bits per byte +0.020 (-0.010 to +0.050), undecided, as on every other measure.",
        ),
        (
            [
                compared("bits per byte", 0.02, 0.03),
                compared("infilling", 0.03, 0.02, "better"),
                compared("pass@1", 0.0, 0.04),
            ],
            "bits per byte +0.020 (-0.010 to +0.050), undecided; infilling +3.0 points (+1.0 to +5.0), better; "
            "undecided on pass@1.",
        ),
        (
            [compared("bits per byte", 0.02, 0.01, "worse"), compared("infilling", 0.01, 0.02)],
            "bits per byte +0.020 (+0.010 to +0.030), worse; undecided on infilling.",
        ),
        (
            [compared("bits per byte", 0.0, 0.0), compared("infilling", 0.0, 0.01)],
            "the same bits per byte on every file; what sets them apart changed nothing in their training.",
        ),
    ],
)
def test_one_arm_against_another(comparisons: list[Comparison], said: str) -> None:
    assert findings((), comparisons)[1] == f"mha against fim: {said}"
