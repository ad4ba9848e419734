"""What the tests of the jail share: small suites, and a loud skip where this machine cannot jail at all."""

from __future__ import annotations

import functools

import pytest

from kringle.evaluation.jail.levels import Name, probe
from kringle.evaluation.jail.verdicts import Limits
from kringle.evaluation.problems import Problem
from kringle.evaluation.suites import Protocol, Suite

# Small, so that endless loops end soon; a run alone decides whatever a loaded machine makes doubtful.
LIMITS = Limits(cpu_seconds=0.2, memory_bytes=48 * 2**20, output_bytes=2**16)


@functools.cache
def level_name() -> Name:
    return probe().level.name


needs_jail = pytest.mark.skipif(
    level_name() is Name.NONE, reason=f"this machine cannot jail programs: {probe().why_not_full}"
)
needs_full_jail = pytest.mark.skipif(
    level_name() is not Name.FULL, reason=f"this machine has no full jail: {probe().why_not_full}"
)


def problem(task_id: str, entry_point: str, *checks: str, prompt: str = "") -> Problem:
    """A problem whose tests are these lines of `check(candidate)`."""
    test = "\n\ndef check(candidate):\n" + "".join(f"    {line}\n" for line in checks)
    return Problem(task_id, prompt, entry_point, "", test)


def suite(*problems: Problem, limits: Limits = LIMITS) -> Suite:
    protocol = Protocol(strip_prompt=False, max_new_tokens=64, count_prompt=False)
    return Suite("small", "for tests", "python", ("\ndef",), limits, protocol, problems)
