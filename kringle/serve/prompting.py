"""What a request's text becomes: the ids that the model continues.

Text longer than its room is cut far from the cursor: the prefix keeps its end, the suffix its beginning, three quarters
of the room for the one and a quarter for the other, and what one does not need the other may have
(`kringle.generation.fim.share`). Cuts are made in steps of a sixteenth of the context, so that the prompt begins at the
same place for some keystrokes and its keys and values can be used again. Room for the new tokens asked for is kept, up
to a quarter of the context.

A prompt that a client has written in its own family's fill-in-the-middle template (`<fim_prefix>..<fim_suffix>..
<fim_middle>`, `<PRE> .. <SUF>.. <MID>`, ...) is taken apart and asked in the served model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from kringle.errors import UserError
from kringle.generation.fim import share
from kringle.generation.fim_formats import formats

Order = Literal["psm", "spm"]
STEPS = 16  # of the context: how finely prompts are cut
LEAST_COMPLETION = 4  # at most one part in so many of the context is kept for the completion


@dataclass(frozen=True)
class PromptIds:
    """`ids` are what the model is given; `required` bytes it must spell first (token healing); `truncated`, whether
    text was left out."""

    ids: list[int]
    required: bytes = b""
    truncated: bool = False


def room_for_prompt(context: int, new_tokens: int) -> int:
    """Tokens that a prompt may have."""
    return context - max(1, min(new_tokens, context // LEAST_COMPLETION))


def cut(before: Sequence[int], after: Sequence[int], room: int, step: int) -> tuple[list[int], list[int]]:
    """The end of `before` and the beginning of `after` that fit into `room` tokens, cut in whole steps."""
    kept_before, kept_after = share(len(before), len(after), room)
    drop = -(-(len(before) - kept_before) // step) * step
    kept = min(len(after), kept_after // step * step) if kept_after < len(after) else kept_after
    return list(before[min(drop, len(before)) :]), list(after[:kept])


@dataclass(frozen=True)
class Template:
    """How one family writes a request to fill in: what stands before, between and behind the two texts."""

    begin: str
    between: str
    end: str
    suffix_first: bool


@cache
def templates() -> tuple[Template, ...]:
    """Of all families that `fim_formats.json` knows; the mark ▁ of a SentencePiece vocabulary is a space or nothing."""
    found = []
    for entry in formats():
        for order in (entry.psm, entry.spm):
            if len(order) < 4 or order[0] == "PREFIX":
                continue
            places = order.index("PREFIX"), order.index("SUFFIX")
            first, second = min(places), max(places)
            parts = [
                "".join(piece.removeprefix("▁") for piece in order[a:b])
                for a, b in ((0, first), (first + 1, second), (second + 1, len(order)))
            ]
            found.append(Template(parts[0], parts[1], parts[2], suffix_first=places[1] < places[0]))
    return tuple(sorted(set(found), key=lambda template: -len(template.begin)))  # the most particular first


def taken_apart(text: str) -> tuple[str, str] | None:
    """(prefix, suffix) of a prompt in a known template; None for any other text. UserError where it could be read in
    more than one way."""
    for template in templates():
        if not text.startswith(template.begin) or not text.rstrip(" ").endswith(template.end):
            continue
        inside = text[len(template.begin) :]
        if template.end:
            inside = inside.rstrip(" ").removesuffix(template.end)
        count = inside.count(template.between)
        if count == 0:
            continue
        if count > 1:
            raise UserError(
                f"the prompt has {template.between} {count} times",
                where="prompt",
                hint="send prefix and suffix in fields of their own",
            )
        first, second = inside.split(template.between)
        if template.begin == "<PRE>":  # Code Llama's template sets its sentinels off with spaces
            first, second = first.removeprefix(" ").removesuffix(" "), second.removesuffix(" ")
        return (second, first) if template.suffix_first else (first, second)
    return None
