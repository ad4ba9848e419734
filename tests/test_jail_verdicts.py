"""From a run to a verdict, without running anything."""

from __future__ import annotations

import pytest

from kringle.evaluation.jail.verdicts import Kind, Limits, Run, Verdict, decide, needs_run_alone

LIMITS = Limits(cpu_seconds=2.0, memory_bytes=1, output_bytes=1)


def run(outcome: str, cpu: float = 0.1) -> Run:
    return Run(outcome, "why", cpu, wall=cpu, peak_kb=None)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ("pass", Kind.PASS),
        ("fail", Kind.FAIL),
        ("syntax", Kind.SYNTAX),
        ("memory", Kind.MEMORY),
        ("output", Kind.OUTPUT),
        ("ended", Kind.FAIL),
        ("tampered", Kind.TAMPER),
        ("cpu", Kind.TIMEOUT),
        ("idle", Kind.TIMEOUT),
        ("wall", Kind.STARVED),
    ],
)
def test_outcomes(outcome: str, kind: Kind) -> None:
    assert decide(run(outcome), LIMITS)[0] is kind


@pytest.mark.parametrize("outcome", ["pass", "fail", "memory", "output", "ended"])
@pytest.mark.parametrize(
    ("cpu", "alone", "kind_is_timeout"), [(0.9, False, False), (1.1, True, False), (2.1, True, True)]
)
def test_the_limit_is_on_cpu_time(outcome: str, cpu: float, alone: bool, kind_is_timeout: bool) -> None:
    assert needs_run_alone(run(outcome, cpu), LIMITS) == alone
    assert (decide(run(outcome, cpu), LIMITS)[0] is Kind.TIMEOUT) == kind_is_timeout


def test_who_runs_again_alone() -> None:
    assert needs_run_alone(run("wall", 0.1), LIMITS)  # starved
    assert not needs_run_alone(run("cpu", 4.0), LIMITS)  # beyond twice the limit: certain
    assert not needs_run_alone(run("idle", 0.0), LIMITS)


def test_limits_of_both_runs() -> None:
    assert LIMITS.cpu_until_stopped(alone=False) == 2 * LIMITS.cpu_seconds
    assert LIMITS.cpu_until_stopped(alone=True) == LIMITS.cpu_seconds
    for alone in (False, True):
        assert LIMITS.wall_until_stopped(alone) > 2 * LIMITS.cpu_until_stopped(alone)


def test_equality_ignores_measurements() -> None:
    one = Verdict("t", Kind.FAIL, "why", "reject", "full", cpu_ms=1, wall_ms=2, peak_kb=3)
    other = Verdict("t", Kind.FAIL, "why", "reject", "full", cpu_ms=9, wall_ms=9, peak_kb=None)
    assert one == other
    assert one != Verdict("t", Kind.FAIL, "else", "reject", "full", 1, 2, 3)
    assert one.to_json() == {
        "task_id": "t",
        "verdict": "fail",
        "evidence": "why",
        "tier": "reject",
        "jail": "full",
        "cpu_ms": 1,
        "wall_ms": 2,
        "peak_kb": 3,
        "passed": False,
    }
