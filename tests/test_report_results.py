"""The results' JSON form: nothing lost, nothing strange let in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import sample, variants

from kringle.errors import UserError
from kringle.study.results import Estimate, Example, Results, Stage

RAW = sample().to_json()
SMALL = replace(sample(), arms=sample().arms[:1], comparisons=(), examples=())
SMALL = replace(SMALL, arms=(replace(SMALL.arms[0], training=replace(SMALL.arms[0].training, curve=())),))  # type: ignore


@pytest.mark.parametrize("name", list(variants()))
def test_round_trip(name: str) -> None:
    results = variants()[name]
    assert Results.from_json(results.to_json()) == results


@given(text=st.text(st.characters()), number=st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_any_text_and_number_survives(text: str, number: float) -> None:
    example = Example("infilling", "fim", text, text, text, text, text, text, None, text)
    stage = Stage(text, number, number, 3, True, text)
    results = replace(SMALL, findings=(text,), examples=(example,), stages=(stage,), versions={text: text})
    assert Results.from_json(results.to_json()) == results
    assert results.to_json().isascii()


def edited(edit: Callable[[Any], None]) -> str:
    raw = json.loads(RAW)
    edit(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("edit", "where", "what"),
    [
        (lambda r: r.update(extra=1), "results", "unknown key 'extra'"),
        (lambda r: r["arms"][1].update(sead=1), "results.arms[1]", "unknown key 'sead'"),
        (lambda r: r["machine"].pop("cores"), "results.machine", "'cores' is missing"),
        (lambda r: r["machine"].update(cores=True), "results.machine.cores", "expected a whole number"),
        (lambda r: r["machine"].update(cores=2.0), "results.machine.cores", "expected a whole number"),
        (lambda r: r["stages"][0].update(cached=0), "results.stages[0].cached", "expected true or false"),
        (lambda r: r["stages"][0].update(name=None), "results.stages[0].name", "expected text"),
        (lambda r: r["stages"][0].update(wall_seconds=float("nan")), "results.stages[0].wall_seconds", "finite"),
        (lambda r: r["stages"][0].update(wall_seconds="3"), "results.stages[0].wall_seconds", "finite"),
        (lambda r: r.update(stages={}), "results.stages", "expected a list"),
        (lambda r: r.update(versions=[]), "results.versions", "expected a mapping"),
        (lambda r: r.update(machine=3), "results.machine", "expected a mapping"),
        (lambda r: r["comparisons"][0].update(verdict="good"), "results.comparisons[0].verdict", "'undecided'"),
        (lambda r: r["comparisons"][0].update(low=1.0), "results.comparisons[0]", "an interval from 1.0"),
        (lambda r: r["comparisons"][0].update(arm="nobody"), "results", "'nobody' is compared or shown"),
        (lambda r: r["arms"].append(r["arms"][0]), "results", "two arms with the same name and seed"),
        (lambda r: r["arms"][0].update(training=None), "results.arms[0]", "either its training or the reason"),
        (lambda r: r["arms"][0]["infilling"].update(total=None), "results.arms[0].infilling", "either a total"),
        (lambda r: r["arms"][0]["suites"][0].update(pass_at=[]), "results.arms[0].suites[0]", "either pass_at"),
        (lambda r: r.update(created="2025-03-04T10:21:07"), "results", "no time zone"),
        (lambda r: r.update(schema="kringle-results/0"), "results", "expected results of schema"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(edit: Callable[[Any], None], where: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        Results.from_json(edited(edit))
    assert caught.value.where == where
    assert what in str(caught.value)


def test_fields_with_defaults_may_be_missing() -> None:
    def forget(raw: Any) -> None:
        for arm in raw["arms"]:
            del arm["training"]["held_out_curve"]
            del arm["not_run"]

    assert Results.from_json(edited(forget)).arms[0].training is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": "kringle-results/1", "study": "a", "study": "b"}'])
def test_what_is_no_results_file_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^report/results.json"):
        Results.from_json(text, "report/results.json")


def test_wrong_types_are_refused_before_anything_is_written() -> None:
    stage = sample().stages[0]
    for wrong, path in (
        (replace(stage, peak_memory_bytes=np.int64(3)), "results.stages[0].peak_memory_bytes"),  # type: ignore[arg-type]
        (replace(stage, wall_seconds=float("inf")), "results.stages[0].wall_seconds"),
        (replace(stage, cached=1), "results.stages[0].cached"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError) as caught:
            replace(sample(), stages=(wrong,)).to_json()
        assert str(caught.value).startswith(path)
    with pytest.raises(TypeError, match=r"results\.findings"):
        replace(sample(), findings=["a"]).to_json()  # type: ignore[arg-type]


def test_an_interval_must_be_one() -> None:
    for low, high, level in ((0.2, 0.1, 0.95), (float("nan"), 0.1, 0.95), (0.0, 0.1, 95.0)):
        with pytest.raises(ValueError, match=r"interval|coverage"):
            Estimate(0.15, low, high, level, "Wilson score")
