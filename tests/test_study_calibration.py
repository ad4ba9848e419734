"""The simulation behind docs/images/calibration.svg: that its truth is true, and a short run of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kringle.study.calibration import ARMS, SCENARIOS, Scenario, run_studies, simulate

RESULTS = Path(__file__).parent.parent / "benchmarks/results/calibration.json"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_stated_truth_is_what_many_studies_average_to(scenario: Scenario) -> None:
    found = {arm: [] for arm in ARMS[1:]}
    for number in range(250):
        study = simulate(scenario, 3, number)
        weight = study.weights.sum() if study.weights is not None else scenario.items
        for arm in ARMS[1:]:
            gaps = [(study.runs[arm][s] - study.runs["base"][s]).sum() / weight for s in range(3)]
            found[arm].append(float(np.mean(gaps)))
    for arm in ARMS[1:]:
        error = np.std(found[arm]) / np.sqrt(len(found[arm]))
        assert abs(np.mean(found[arm]) - study.truth[arm]) < 4 * error
    assert study.truth["equal"] == 0
    assert study.truth["at the margin"] == study.margin > 0


def test_a_study_is_a_function_of_its_number() -> None:
    one, same, other = (simulate(SCENARIOS[0], 2, number).runs["far"][1] for number in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_and_verdicts_are_rarely_false(seeds: int) -> None:
    """240 studies; four standard errors of the whole allow 7 points below the promise."""
    tally = run_studies(SCENARIOS[1], seeds, 0, 240, resamples=2000)
    coverage, error = tally.coverage
    assert coverage > 0.90 - 4 * error - 0.01
    assert tally.rate(tally.false_claims)[0] < 0.10 + 4 * 0.02
    assert tally.rate(tally.false_equal)[0] < 0.05 + 4 * 0.015
    assert tally.rate(tally.found)[0] > 0.9


def test_one_seed_alone_claims_too_much_and_is_given_no_verdict() -> None:
    tally = run_studies(SCENARIOS[2], 1, 0, 120, resamples=2000)
    assert tally.coverage[0] < 0.6
    assert tally.naive_claims / 120 > 0.4
    assert tally.false_claims == tally.found == tally.equal == 0


def test_the_kept_results_are_those_that_the_documents_speak_of() -> None:
    record = json.loads(RESULTS.read_text())
    assert {row["scenario"] for row in record["rows"]} == {scenario.name for scenario in SCENARIOS}
    assert {(row["seeds"], row["stored_variance"]) for row in record["rows"]} == {
        (1, False),
        (1, True),
        (3, False),
        (5, False),
    }
    for row in record["rows"]:
        assert row["studies"] >= 4000
        if row["seeds"] > 1:
            assert row["coverage"]["value"] > 0.9 - 3 * row["coverage"]["standard_error"]
            assert row["false_better_or_worse"]["value"] < 0.1 + 3 * row["false_better_or_worse"]["standard_error"]
