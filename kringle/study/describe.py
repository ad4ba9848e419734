"""What an arm is, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kringle.settings import LANGUAGES, Arm, FilterSettings, Recipe

_CONTROLS = {
    "seed": "Control: {of} again with another seed",
    "harm": "Control: {of} with the lines of {share:.0%} of its files shuffled",
    "size": "Control: as many bytes of each language as {of} keeps, chosen at random",
}


def describe(arm: Arm, recipe: Recipe) -> str:
    """What an arm is, in words; the base is described by what it has, every other arm by what it changes."""
    if arm is recipe.base:
        attention = {"mqa": "multi-query", "mha": "multi-head"}[arm.model.attention]
        return f"The base: {attention} attention, {arm.training.fim.rate:.0%} of the pieces rearranged for infilling"
    changes = flat(arm.difference)
    words = (
        [] if arm.control is None else [_CONTROLS[arm.control.kind].format(of=arm.control.of, share=arm.control.share)]
    )
    if arm.control is not None and arm.control.kind == "size":
        changes = {key: value for key, value in changes.items() if not key.startswith("filter.")}
    for key in list(changes):
        if key == "model.attention":
            words.append({"mqa": "multi-query attention", "mha": "multi-head attention"}[changes.pop(key)])
        elif key == "training.fim.rate" and arm.training.fim.rate == 0:
            words.append("left-to-right training only")
            changes.pop(key)
        elif key == "training.tokens":
            words.append(f"{arm.training.tokens:,} tokens instead of {recipe.base.training.tokens:,}")
            changes.pop(key)
        elif key == "training.metadata" and arm.training.metadata:
            words.append("each file begins with a line of its language and path")
            changes.pop(key)
    if arm.control is None:
        words += _filters(arm.filter)
        changes = {key: value for key, value in changes.items() if not key.startswith("filter.")}
    text = "; ".join(words + [f"{key} = {value}" for key, value in changes.items()])
    return text[:1].upper() + text[1:]


def _filters(chosen: FilterSettings) -> list[str]:
    words = []
    if (stars := chosen.stars) is not None:
        if stars.quantile is not None:
            words.append(f"only files of the {1 - stars.quantile:.0%} with the most stars")
        else:
            least = stars.at_least if stars.at_least is not None else (stars.above or 0) + 1
            words.append(f"only files of repositories with {least:,} stars or more")
    if (comments := chosen.comments) is not None:
        words.append(f"only files whose comment-to-code ratio is above {comments.above:g} and below {comments.below:g}")
    if (near := chosen.near_dedup) is not None:
        words.append(f"without near-duplicates (similarity of {near.ngram}-grams of words from {near.threshold:g})")
    if (fertility := chosen.fertility) is not None:
        if fertility.percentile is not None:
            words.append(f"without the {fertility.percentile:g}% of files with the fewest characters per token")
        else:
            limits = {name: getattr(fertility, name) for name in LANGUAGES}
            told = ", ".join(f"{name} {limit:g}" for name, limit in limits.items() if limit is not None)
            words.append(f"only files with as many characters per token or more: {told}")
    return words


def flat(difference: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"training": {"fim": {"rate": 0}}}` -> `{"training.fim.rate": "0"}`."""
    found: dict[str, str] = {}
    for key, value in difference.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found
