"""What filters keep at other thresholds: worked out again from the tables that the study left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report_sample import sample
from run_fixtures import Study, finished_study

from kringle.data.table import read_table
from kringle.study import published
from kringle.study.report import files, render
from kringle.tokens.store import TokenStore


@pytest.fixture(scope="module")
def study() -> Study:
    return finished_study()


@pytest.fixture(scope="module")
def found(study: Study) -> dict[str, Any]:
    filtering: dict[str, Any] = study.results()["filtering"]
    return filtering


@pytest.fixture(scope="module")
def pool(study: Study) -> list[tuple[str, int, float, float]]:
    """(language, bytes, comment ratio, characters a token) of every training document."""
    (encode,), (split,), (annotate,) = (study.work.glob(f"stages/{name}-*") for name in ("encode", "split", "annotate"))
    store = TokenStore.open(encode / "store")
    sides = read_table(split / "split.parquet")
    train = {i for i, s in zip(sides["id"].to_pylist(), sides["split"].to_pylist(), strict=True) if s == "train"}
    signals = {row["id"]: row for row in read_table(annotate / "signals.parquet").to_pylist()}
    lengths = np.diff(store.offsets)
    return [
        (
            store.languages[i],
            int(store.sizes[i]),
            signals[id]["comment_ratio"],
            signals[id]["characters"] / int(lengths[i]),
        )
        for i, id in enumerate(store.ids)
        if id in train
    ]


@pytest.mark.parametrize("language", ["all", "python", "javascript"])
def test_curves_are_shares_of_the_training_bytes(
    found: dict[str, Any], pool: list[tuple[str, int, float, float]], language: str
) -> None:
    own = [row for row in pool if language in ("all", row[0])]
    total = sum(row[1] for row in own)
    keeps = {
        "comments: floor": lambda row, t: row[2] > t,
        "comments: ceiling": lambda row, t: row[2] < t,
        "fertility": lambda row, t: row[3] >= t,
    }
    curves = {c["signal"]: c["points"] for c in found["curves"] if c["language"] == language}
    assert curves.keys() == keeps.keys()  # nobody knows a star of this corpus, and no arm asks for near-duplicates
    for signal, points in curves.items():
        for point in points[::17]:
            kept = sum(row[1] for row in own if keeps[signal](row, point["threshold"]))
            assert point["share"] == pytest.approx(kept / total, abs=1e-9), (signal, point)


def test_what_an_arm_removes_is_told_beside_santacoders(
    found: dict[str, Any], pool: list[tuple[str, int, float, float]]
) -> None:
    told = {(one["arm"], one["language"]): one for one in found["removed"]}
    assert {arm for arm, _ in told} == {"comments"}
    gone = sum(size for _, size, ratio, _ in pool if not 0.01 < ratio < 0.80)
    assert told["comments", "all"]["share"] == pytest.approx(gone / sum(row[1] for row in pool))
    assert {one["threshold"] for one in found["used"]} == {0.01, 0.80}
    # Table 3 of the paper, by hand: 57.5 of 82.7 GB of JavaScript were left, and 215.8 of 268.3 GB of all.
    assert told["comments", "javascript"]["published"] == pytest.approx(1 - 57.5 / 82.7)
    assert told["comments", "all"]["published"] == pytest.approx(1 - 215.8 / 268.3)
    assert published.REMOVED["stars"]["all"] == pytest.approx(0.690, abs=5e-4)


def test_the_report_draws_them_and_older_results_have_none() -> None:
    page, made = render(sample()), files(sample())
    for name in ("kept-comments-floor", "kept-fertility", "kept-near-duplicates", "collision"):
        assert f"figures/{name}.svg" in made
    assert "fertility, python at 2.5" in page
    assert made["tables/removed.csv"].splitlines()[1:] == ["comments,12.0,19.6", "mine,50.0,"]
    assert "32 to 63" in made["tables/clusters.csv"]
    assert "What the filters keep</h3>" not in render(replace(sample(), filtering=None))
