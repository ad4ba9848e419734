"""What a study says of one arm against another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_sample import sample

from kringle.study.findings import findings, limitations
from kringle.study.results import Comparison, ControlCheck, Verdict


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


def test_a_run_that_broke_off_is_told_with_its_seed() -> None:
    (base,) = [arm for arm in sample().arms if arm.is_base][:1]
    broke = [replace(base, name="mha", seed=s, training=None, bits_per_byte=None, not_run="diverged") for s in (0, 2)]
    ran = replace(base, name="mha", seed=1)
    assert "mha was not run with seeds 0, 2: diverged." in findings((base, *broke, ran), ())
    assert "mha was not run: diverged." in findings((base, *broke), ())


def test_runs_that_disagree_on_the_baseline_are_undecided_once() -> None:
    base = next(arm for arm in sample().arms if arm.is_base)
    assert base.bits_per_byte is not None
    runs = [
        replace(base, seed=seed, bits_per_byte=replace(base.bits_per_byte, beats_ngram=answer))
        for seed, answer in enumerate(("yes", "undecided"))
    ]
    (said,) = [line for line in findings(runs, ()) if "5-gram" in line]
    assert said.startswith("fim is not clearly better or worse")


def test_what_is_not_known_of_other_seeds_is_told_as_far_as_it_goes() -> None:
    known = compared("bits per byte", 0.02, 0.01, "worse")
    unknown = replace(compared("infilling", 0.0, 0.1), this_pair_only=True)
    some = " ".join(limitations((), [known, unknown], {}))
    assert "no verdict beyond 'undecided' is given: mha on infilling." in some
    assert "One seed per arm" not in some
    assert "One seed per arm" in " ".join(limitations((), [unknown], {}))
    assert "No controls were run" in some
    check = ControlCheck("control-harm", "worse", "passed", "It was.")
    assert "No controls" not in " ".join(limitations((), [known], {}, [check]))
    assert "Margins were changed" in limitations((), [known], {}, [check], ["Margins were changed."])[0]
