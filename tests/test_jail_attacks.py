"""Every shipped attack, each followed by a right and a wrong program: nothing escapes, is fooled, or suffers."""

from __future__ import annotations

import functools

import pytest
from jail_support import level_name, needs_jail

from kringle.evaluation.jail.attack import KINDS, LANGUAGES, Outcome, attack, shipped_attacks
from kringle.evaluation.jail.levels import Level, Name, probe
from kringle.evaluation.jail.runner import missing_runtime

pytestmark = needs_jail

ATTACKS = shipped_attacks()


@functools.cache
def outcomes() -> dict[tuple[str, str], Outcome]:
    return {(one.language, f"{one.kind}: {one.name}"): one for one in attack(probe().level, ATTACKS)}


@pytest.mark.parametrize(("language", "name"), [(one.language, f"{one.kind}: {one.name}") for one in ATTACKS])
def test_attack_is_stopped(language: str, name: str) -> None:
    if why := missing_runtime(language):
        pytest.skip(why)
    outcome = outcomes()[language, name]
    assert outcome.blocked, outcome.by


def test_a_jail_without_namespaces_stops_them_too() -> None:
    """Landlock and the filter alone; the attacks that take seconds because they only end at a limit are left out."""
    if level_name() is not Name.FULL:
        pytest.skip("this machine's jail is already the one without namespaces, see above")
    python = [one for one in ATTACKS if one.kind == "machine" and one.language == "python"]
    quick = [one for one in python if one.verdicts != ("timeout",)]
    escaped = [outcome for outcome in attack(Level(Name.PARTIAL, "bare"), quick) if not outcome.blocked]
    if escaped and "landlock" not in {layer.name for layer in probe().layers if layer.ok}:
        pytest.skip("this kernel has no Landlock")
    assert not escaped


def test_the_list_of_attacks() -> None:
    assert len({(one.language, one.kind, one.name) for one in ATTACKS}) == len(ATTACKS)
    for language in LANGUAGES:
        count = {kind: sum((one.language, one.kind) == (language, kind) for one in ATTACKS) for kind in KINDS}
        assert all(number >= 18 for number in count.values()), (language, count)


def test_an_attack_that_works_is_reported() -> None:
    from kringle.evaluation.jail.attack import Attack

    works = Attack("gaming", "the sum itself", "total = sum")
    (outcome,) = attack(probe().level, [works])
    assert not outcome.blocked
    assert outcome.by == "pass: "
