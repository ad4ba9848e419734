"""Example completions with prefix, middle and suffix in colours.

Code of others and text of models: every character is escaped or spelled out, and what is far from the gap is left out
of the page (the full text is in `results.json`). Examples at the same place are shown together, the place once.
"""

from __future__ import annotations

from collections.abc import Sequence

from kringle.study.markup import Markup, join, tag
from kringle.study.page import Section, chip, notice, present, reproduce
from kringle.study.results import Example, Results

_ABOVE, _BELOW, _WRITTEN, _LONG = 16, 8, 40, 400  # lines before, after and of the completion; characters of a line
_KINDS = {
    "infilling": "Fill in the middle",
    "left-to-right": "Left to right",
    "starter": "Problem",
}


def _lines(number: int, what: str) -> Markup:
    return tag("span", f"\N{MIDLINE HORIZONTAL ELLIPSIS} {number:,} {what}", class_="cut")


def _short(line: str, keep_end: bool = False) -> Markup:
    """A line, or its first (or last) `_LONG` characters and how many were left out."""
    if len(line) <= _LONG:
        return join(line)
    note = _lines(len(line) - _LONG, "characters")
    return join(note, " ", line[-_LONG:]) if keep_end else join(line[:_LONG], " ", note)


def _clip_end(text: str, most: int) -> Markup:
    """The first `most` lines, and how many were left out."""
    lines = text.split("\n")
    shown = [_short(line) for line in lines[:most]]
    if len(lines) > most:
        shown.append(_lines(len(lines) - most, "more lines"))
    return join(*shown, between="\n")


def _clip_start(text: str, most: int) -> Markup:
    """The last `most` lines, after how many were left out."""
    lines = text.split("\n")
    shown = [_short(line, keep_end=index == len(lines) - 1) for index, line in enumerate(lines)][-most:]
    if len(lines) > most:
        shown.insert(0, _lines(len(lines) - most, "lines above"))
    return join(*shown, between="\n")


def lines_around(text: str, keep_end: bool = False) -> Markup:
    """The first lines of a text, or the last ones, and how much was left out."""
    return _clip_start(text, _ABOVE) if keep_end else _clip_end(text, _WRITTEN)


def _outcome(example: Example) -> Markup:
    if example.correct is None:
        return chip("not judged", "muted")
    right, wrong = ("exact match", "missed") if example.kind == "infilling" else ("passed", "failed")
    return (
        chip(f"\N{CHECK MARK} {right}", "better") if example.correct else chip(f"\N{MULTIPLICATION X} {wrong}", "worse")
    )


def _credit(example: Example) -> Markup:
    """Who wrote a completion, and whether it was right."""
    remark = [" ", tag("span", example.remark, class_="remark")] if example.remark else []
    return join(tag("b", example.arm), " ", _outcome(example), *remark)


def _middle(example: Example) -> Markup:
    return tag("mark", _clip_end(example.completion, _WRITTEN))


def _block(*children: str, label: str) -> Markup:
    return tag("pre", tag("code", *children), tabindex="0", role="region", aria_label=label)


def _card(group: Sequence[Example]) -> Markup:
    first = group[0]
    head = tag(
        "header",
        tag("h3", tag("span", _KINDS[first.kind], class_="kind"), " ", tag("span", first.where, class_="where")),
        tag("p", first.language, " \N{MIDDLE DOT} written by ", _credit(first)),
    )
    code = _block(
        tag("span", _clip_start(first.prefix, _ABOVE), class_="prefix"),
        _middle(first),
        tag("span", _clip_end(first.suffix, _BELOW), class_="suffix"),
        label=f"Completion by {first.arm} in {first.where}",
    )
    rest: list[Markup] = []
    for example in group[1:]:
        rest.append(tag("dt", _credit(example)))
        rest.append(tag("dd", _block(_middle(example), label=f"Completion by {example.arm}")))
    if first.expected is not None:
        expected = tag("span", _clip_end(first.expected, _WRITTEN), class_="expected")
        rest += [tag("dt", "Expected"), tag("dd", _block(expected, label="Expected middle"))]
    return tag("article", head, code, tag("dl", *rest) if rest else "", class_="example")


def examples(results: Results) -> Section:
    """Example completions; those at the same place in one card."""
    if not results.examples:
        return Section("examples", "Completions", (notice("No example completions were kept."),))
    groups: dict[tuple[str | None, ...], list[Example]] = {}
    for e in results.examples:
        groups.setdefault((e.kind, e.language, e.where, e.prefix, e.suffix, e.expected), []).append(e)
    key = tag(
        "p",
        "Read as ",
        tag("code", tag("span", "prefix", class_="prefix")),
        ", ",
        tag("code", tag("mark", "what the model wrote")),
        ", ",
        tag("code", tag("span", "suffix", class_="suffix")),
        ". Left to right there is no suffix.",
        class_="key",
    )
    cards = tag("div", *(_card(group) for group in groups.values()), class_="examples")
    return Section("examples", "Completions", present(key, cards, reproduce(results, "examples")))
