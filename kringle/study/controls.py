"""Controls: arms whose outcome is known beforehand, and what it means for a study when they come out otherwise.

- *Another seed*: the base again, every seed replaced by another. It must come out neither better nor worse; if it does,
  the study calls luck an effect.
- *Planted harm*: the base with the lines of 30% of its files shuffled. It must come out worse on bits per byte; if it
  does not, the study could not see an effect of this size in anything else either.
- *Matched size*, for each filter: the arm with as many bytes of each language as its filter keeps, chosen at random. A
  filter also changes how much there is to learn from; what it does beside that is its difference to this arm.

Covers which arms a study adds and what their outcome means. How their documents are chosen and changed is in
`kringle.study.altered`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kringle.errors import UserError
from kringle.settings import Arm, Control, ControlSettings, FilterSettings
from kringle.study.findings import CONTROL
from kringle.study.results import Comparison, ControlCheck

OTHER_SEED, HARM, SIZE = CONTROL + "seed", CONTROL + "harm", CONTROL + "size-"
PRIMARY = "bits per byte"  # the measure on which the planted harm must show: the steadiest one
REFUSED = "verdict refused: a control failed"


# -- the arms ----------------------------------------------------------------------------------------------------------


def control_arms(arms: Sequence[Arm], settings: ControlSettings) -> tuple[Arm, ...]:
    """The controls of a study with these arms, the base first."""
    base = arms[0]
    made = [
        replace(base, name=OTHER_SEED, control=Control("seed", base.name)),
        replace(base, name=HARM, control=Control("harm", base.name, settings.harm)),
    ]
    made += [
        replace(arm, name=SIZE + arm.name, control=Control("size", arm.name))
        for arm in arms
        if arm.filter != FilterSettings()
    ]
    taken = {arm.name for arm in arms}
    for arm in made:
        if arm.name in taken:
            raise UserError(f"'{arm.name}' is the name of a control", where="ablations", hint="choose another name")
    return tuple(made)


def pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Which arms are compared: each with the base; with other tokens than the base, also with the arm that has them
    and differs by nothing else; a filtered arm also with its control by size."""
    base, names = arms[0], {arm.name for arm in arms}
    found = []
    for arm in arms[1:]:
        found.append((arm.name, base.name))
        if arm.control is None:
            found += [(arm.name, twin.name) for twin in arms[1:] if _same_tokens(arm, twin)]
            found += [(arm.name, SIZE + arm.name)] if SIZE + arm.name in names else []
    return found


def _same_tokens(arm: Arm, twin: Arm) -> bool:
    """Whether `twin` is the base with this arm's tokens, as `fim-2x` is for `final`."""
    only_tokens = set(twin.difference) == {"training"} and set(twin.difference["training"]) == {"tokens"}
    same = twin.control is None and twin.training.tokens == arm.training.tokens
    return arm is not twin and only_tokens and same and bool(set(arm.training.seeds) & set(twin.training.seeds))


# -- the outcome -------------------------------------------------------------------------------------------------------


def check_controls(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> tuple[ControlCheck, ...]:
    """How the controls came out, judged by the study's own verdicts; the comparisons are those before any refusal."""
    checks = []
    for arm in arms:
        own = [c for c in comparisons if c.arm == arm.name]
        if arm.control is not None and arm.control.kind == "seed":
            checks.append(_same_again(arm.name, own))
        elif arm.control is not None and arm.control.kind == "harm":
            checks.append(_planted(arm.name, own))
    return tuple(checks)


def _same_again(arm: str, own: Sequence[Comparison]) -> ControlCheck:
    expected = "neither better nor worse"
    if not own:
        return ControlCheck(arm, expected, "failed", "The base with another seed was not measured beside the base.")
    claimed = [c for c in own if c.verdict in ("better", "worse")]
    if claimed:
        said = ", ".join(f"{c.verdict} on {c.measure}" for c in claimed)
        why = f"The base with another seed came out {said}: this study calls luck an effect."
        return ControlCheck(arm, expected, "failed", why)
    if any(c.this_pair_only for c in own):
        why = "One seed: how far another seed may lie from the base is not known."
        return ControlCheck(arm, expected, "not judged", why)
    why = "The base with another seed came out neither better nor worse on any measure."
    return ControlCheck(arm, expected, "passed", why)


def _planted(arm: str, own: Sequence[Comparison]) -> ControlCheck:
    expected = f"worse on {PRIMARY}"
    primary = next((c for c in own if c.measure == PRIMARY), None)
    if primary is None:
        return ControlCheck(arm, expected, "failed", f"The planted harm was not measured in {PRIMARY}.")
    c = primary
    by = f"{c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f}) {PRIMARY}"
    if c.verdict == "worse" or (c.this_pair_only and c.low > 0):
        only = ", for this pair of runs" if c.this_pair_only else ""
        return ControlCheck(arm, expected, "passed", f"The planted harm came out worse{only}: {by}.")
    said = "undecided" if c.this_pair_only else c.verdict
    why = f"The planted harm did not come out worse but {said}: {by}. This study could not see it."
    return ControlCheck(arm, expected, "failed", why)


def refuse(comparisons: Sequence[Comparison], checks: Sequence[ControlCheck]) -> tuple[Comparison, ...]:
    """The comparisons as they may be told: without a verdict where a control failed."""
    if all(check.outcome != "failed" for check in checks):
        return tuple(comparisons)
    return tuple(replace(c, verdict="undecided", remark=REFUSED, reservation="") for c in comparisons)
