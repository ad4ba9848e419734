"""The report's section on planted secrets: there with a result, absent without one, refused for anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_sample import sample

from kringle.errors import UserError
from kringle.study import canary, report
from kringle.study.results import Results


def record() -> dict[str, Any]:
    def rows(*extracted: int) -> list[dict[str, Any]]:
        return [
            {"repetitions": 4**i, "planted": 10, "extracted": n, "exposure_mean": 1.5 + n / 2}
            for i, n in enumerate(extracted)
        ]

    return {"tokens": "300k", "candidates": 256, "corpora": {"as it is": rows(0, 3, 10), "redacted": rows(0, 0, 0)}}


def test_without_a_result_there_is_no_section(tmp_path: Path) -> None:
    assert canary.read(tmp_path) is None
    assert "Planted secrets" not in report.render(sample())


def test_a_result_is_drawn_listed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "canary.json").write_text(json.dumps(record()))
    results = replace(sample(), canary=canary.read(tmp_path))
    page = report.render(results)
    assert "Planted secrets" in page
    assert "as it is, planted 16 times: 10 of 10 extracted" in page
    assert "redacted, planted 16 times: 0 of 10 extracted" in page
    files = report.files(results)
    assert any("canary" in name and name.endswith(".svg") for name in files)
    assert any("canary" in name and name.endswith(".csv") for name in files)
    assert Results.from_json(results.to_json()) == results


@pytest.mark.parametrize(
    "change",
    [
        "[]",
        "no json",
        '{"tokens": "1k"}',
        json.dumps({**record(), "corpora": {}}),
        json.dumps(
            {**record(), "corpora": {"a": [{"repetitions": 1, "planted": 2, "extracted": 3, "exposure_mean": 0}]}}
        ),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, change: str) -> None:
    (tmp_path / "canary.json").write_text(change)
    with pytest.raises(UserError, match="no result of a canary test"):
        canary.read(tmp_path)
