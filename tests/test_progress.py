"""Progress without a terminal: plain lines whose speed and time left are those of the work that is being done."""

from __future__ import annotations

import pytest

from kringle import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_with_speed_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Reporter().task("training", 1_000, unit="steps") as counter:
        clock[0] += 500  # it waits for its turn
        for _ in range(121):
            counter.advance(2)
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 122 of 1,000 steps, 2.0 steps/s, 439 s left",
        "training: 242 of 1,000 steps, 2.0 steps/s, 379 s left",
        "training: 242 steps in 121 s",
    ]


def test_what_an_earlier_attempt_did_counts_as_done_and_not_as_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.Reporter().tasks(["training"], [1_000], unit="steps") as (counter,):
        counter.advance(701)
        for _ in range(60):
            clock[0] += 1
            counter.advance(2)
    assert capsys.readouterr().err == "training: 821 of 1,000 steps, 2.0 steps/s, 90 s left\n"
