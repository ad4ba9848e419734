"""What a study found, in plain sentences: the verdicts as they are, and what the study cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kringle.study.results import Arm, Comparison, ControlCheck

CONTROL = "control-"  # how the names of controls begin


def findings(
    arms: Sequence[Arm], comparisons: Sequence[Comparison], controls: Sequence[ControlCheck] = ()
) -> tuple[str, ...]:
    """The study in one sentence, what its controls say, then every comparison by arm, then the arms that were not run,
    then how the models stand beside the 5-gram baseline."""
    failed = [check for check in controls if check.outcome == "failed"]
    if failed:
        sentences = ["No verdicts: a control failed, so nothing that this study measured may be relied upon."]
    else:
        sentences = [_headline(comparisons)] if comparisons else []
    sentences += [f"{check.arm}, expected {check.expected}: {check.outcome}. {check.why}" for check in controls]
    added = {check.arm for check in controls}
    for name, base in dict.fromkeys((c.arm, c.base) for c in comparisons if c.arm not in added):
        sentences.append(_pair([c for c in comparisons if (c.arm, c.base) == (name, base)]))
    sentences += _not_run(arms)
    return (*sentences, *_beside_ngrams(arms))


def _not_run(arms: Sequence[Arm]) -> list[str]:
    ran = {arm.name for arm in arms if arm.not_run is None}
    missing: dict[tuple[str, str], list[int]] = {}
    for arm in arms:
        if arm.not_run is not None:
            missing.setdefault((arm.name, arm.not_run), []).append(arm.seed)
    return [
        f"{name} was not run{f' with {_seeds(seeds)}' if name in ran else ''}: {reason}."
        for (name, reason), seeds in missing.items()
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _pair(own: Sequence[Comparison]) -> str:
    """One arm against another: the first measure and whatever was decided with numbers, the rest by name."""
    pair = f"{own[0].arm} against {own[0].base}"
    same = any(c.unit == "bits per byte" and c.low == c.difference == c.high == 0 for c in own)
    if same and all(c.verdict == "undecided" for c in own):
        return f"{pair}: the same bits per byte on every file; what sets them apart changed nothing in their training."
    told = [c for i, c in enumerate(own) if i == 0 or c.verdict != "undecided"]
    rest = [c.measure for c in own if c not in told]
    parts = "; ".join(_difference(c) for c in told)
    if len(rest) > 1 and len(rest) == len(own) - 1 and own[0].verdict == "undecided":
        return f"{pair}: {parts}, as on every other measure."
    return f"{pair}: {parts}" + (f"; undecided on {', '.join(rest)}." if rest else ".")


def _headline(comparisons: Sequence[Comparison]) -> str:
    """What was decided, by arm; or that nothing was, and why."""
    base = comparisons[0].base
    asked = [c for c in comparisons if not c.arm.startswith(CONTROL)]
    decided = [c for c in asked if c.verdict != "undecided"]
    if not asked:
        return f"Nothing but controls was compared with {base}."
    if not decided:
        arms = list(dict.fromkeys(c.arm for c in asked if c.base == base))
        which = f"neither {' nor '.join(arms)}" if len(arms) == 2 else f"none of {', '.join(arms)}"
        subject = f"{arms[0]} is not" if len(arms) == 1 else f"{which} is"
        reason = "; ".join(dict.fromkeys(c.remark for c in comparisons if c.remark))
        return f"Undecided: {subject} shown to differ from {base} or to equal it ({reason})."
    parts = []
    for name, beside in dict.fromkeys((c.arm, c.base) for c in decided):
        words = ", ".join(f"{c.verdict} on {c.measure}" for c in decided if (c.arm, c.base) == (name, beside))
        parts.append(f"{name} is {words}" + (f" (against {beside})" if beside != base else ""))
    open_ones = len(asked) - len(decided)
    rest = f" {open_ones} of {len(asked)} comparisons are undecided." if open_ones else ""
    return f"Against {base}, {'; '.join(parts)}.{rest}"


def _beside_ngrams(arms: Sequence[Arm]) -> list[str]:
    answers: dict[str, set[str]] = {}  # of each arm's runs
    for arm in arms:
        if arm.bits_per_byte is not None:
            answers.setdefault(arm.name, set()).add(arm.bits_per_byte.beats_ngram)
    groups: dict[str, list[str]] = {}
    for name, given in answers.items():
        groups.setdefault(given.pop() if len(given) == 1 else "undecided", []).append(name)
    words = {
        "yes": "needs fewer bits per byte of held-out code than the 5-gram model of its own training tokens",
        "no": "needs more bits per byte of held-out code than the 5-gram model of its own training tokens: not beaten",
        "undecided": "is not clearly better or worse on held-out code than the 5-gram model of its own training tokens",
    }
    said = []
    for answer, names in groups.items():
        every = len(names) == len(answers) and len(names) > 1
        who = "Every model" if every else " and ".join(names)
        said.append(f"{who} {words[answer] if every or len(names) == 1 else _plural(words[answer])}.")
    return said


def _plural(words: str) -> str:
    verb, _, rest = words.partition(" ")
    plural = {"needs": "need", "is": "are"}[verb]
    return f"{plural} {rest.replace('its own', 'their own')}"


def _difference(c: Comparison) -> str:
    if c.unit == "fraction":
        value, low, high = (f"{100 * x:+.1f}" for x in (c.difference, c.low, c.high))
        amount = f"{value} points ({low} to {high})"
    else:
        value, low, high = (f"{x:+.3f}" for x in (c.difference, c.low, c.high))
        amount = f"{value} ({low} to {high})"
    return f"{c.measure} {amount}, {c.verdict}"


def _size(arm: str) -> str:
    """The name of an arm's control by size."""
    return f"{CONTROL}size-{arm}"


def limitations(
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    cut: Mapping[str, int],
    controls: Sequence[ControlCheck] = (),
    of_the_run: Sequence[str] = (),
) -> tuple[str, ...]:
    """What a reader must not conclude; `cut`: by suite, how many problems lost the beginning of their prompt;
    `of_the_run`: sentences on how this study was run."""
    trained = [arm.training for arm in arms if arm.training is not None]
    size = max((t.parameters for t in trained), default=0)
    said = []
    pair_only = [c for c in comparisons if c.this_pair_only]
    if pair_only and len(pair_only) == len(comparisons):
        said.append(
            "One seed per arm: intervals are about this pair of runs, and another seed could turn any of these "
            "differences around. No verdict beyond 'undecided' is given."
        )
    elif pair_only:
        which = ", ".join(dict.fromkeys(f"{c.arm} on {c.measure}" for c in pair_only))
        said.append(
            "How far another seed may lie is not known everywhere, and where it is not, no verdict beyond 'undecided' "
            f"is given: {which}."
        )
    said += of_the_run
    if comparisons and not controls:
        said.append(
            "No controls were run (kringle run --controls adds them): nothing here shows that this study sees a "
            "difference where there is one, and none where there is none."
        )
    if size:
        said.append(
            f"The models have up to {size / 1e6:.3g} million parameters: what helps here need not help at SantaCoder's "
            "1.1 billion."
        )
    names = {arm.name for arm in arms}
    filtered = [arm.name for arm in arms if any("filter." in key for key in arm.changes)]
    alone = [name for name in dict.fromkeys(filtered) if not name.startswith(CONTROL) and _size(name) not in names]
    if alone:
        said.append(
            "A filter changes how much data there is as well as which; without a control of the same size this study "
            f"cannot tell the two apart for {', '.join(alone)} (kringle run --controls adds them)."
        )
    said.append(
        "Intervals are over files, lines and problems. Files of one repository are alike, so they say little about "
        "code of another kind."
    )
    said += [
        f"{count} problems of {name} were longer than the context allows and lost the beginning of their prompt."
        for name, count in sorted(cut.items())
        if count
    ]
    zero = {
        suite.suite
        for arm in arms
        for suite in arm.suites
        if suite.pass_at and all(p.estimate.value == 0 for p in suite.pass_at)
    }
    said += [
        f"No program passed for at least one arm on {name}: it is too hard to tell such models apart."
        for name in sorted(zero)
    ]
    return tuple(said)
