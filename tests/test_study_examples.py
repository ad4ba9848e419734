"""Which completions a report shows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kringle.evaluation.suites import load_suite
from kringle.study.examples import examples
from kringle.study.judgements import Measurements


def shown(folder: Path, *verdicts: str) -> list[tuple[str, bool | None]]:
    """(completion, whether it is shown as correct) of the programs that are shown, of completions named by number."""
    task = load_suite("starter").problems[0].task_id
    rows = [
        {"task_id": task, "sample": number, "verdict": kind, "passed": kind == "pass", "evidence": ""}
        for number, kind in enumerate(verdicts)
    ]
    samples = [{"task_id": task, "sample": number, "completion": str(number)} for number in range(len(verdicts))]
    (folder / "samples-starter.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    run = SimpleNamespace(arm=SimpleNamespace(name="base"), name="base-s0", evaluate=SimpleNamespace(folder=folder))
    measured = SimpleNamespace(lines=[], verdicts={"starter": rows})
    found = examples([cast(Any, run)], {"base-s0": cast(Measurements, measured)}, None)
    return [(one.completion, one.correct) for one in found]


def test_a_program_that_was_not_judged_is_no_example_of_failing(tmp_path: Path) -> None:
    assert shown(tmp_path, "infrastructure", "timeout", "pass", "fail") == [("2", True), ("1", False)]
    assert shown(tmp_path, "infrastructure", "pass") == [("1", True)]
