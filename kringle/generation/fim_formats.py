"""Fill-in-the-middle formats of other models, as data: which special tokens stand where, and which end the middle.

`fim_formats.json` holds one entry per family: the order of special tokens, prefix and suffix, the tokens that end a
middle, and those that a text begins with. Sources: the model cards of bigcode/santacoder, bigcode/starcoder2,
Qwen/Qwen2.5-Coder, deepseek-ai/deepseek-coder, facebook/incoder; for Code Llama its paper (arXiv 2308.12950, section
2.3), whose suffix-first order is `<PRE> <SUF> suffix <MID> prefix`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from kringle.errors import UserError
from kringle.generation.fim import share

FORMATS_FILE = Path(__file__).with_name("fim_formats.json")


@dataclass(frozen=True)
class FimFormat:
    """One family's format; `psm` and `spm` are sequences of special tokens, "PREFIX" and "SUFFIX"."""

    name: str
    psm: tuple[str, ...]
    spm: tuple[str, ...]  # empty where the family was not trained for it
    end: tuple[str, ...]
    begin: tuple[str, ...]

    @property
    def special(self) -> frozenset[str]:
        return frozenset({*self.psm, *self.spm} - {"PREFIX", "SUFFIX"})


@cache
def formats() -> tuple[FimFormat, ...]:
    raw = json.loads(FORMATS_FILE.read_text(encoding="utf-8"))
    return tuple(
        FimFormat(name, *(tuple(entry.get(part, ())) for part in ("psm", "spm", "end", "begin")))
        for name, entry in raw.items()
    )


def recognise(has_token: Callable[[str], bool]) -> FimFormat | None:
    """The family whose special tokens a vocabulary has all of; None if there is none."""
    return next((entry for entry in formats() if all(map(has_token, entry.special))), None)


def infilling_ids(
    entry: FimFormat,
    token_id: Callable[[str], int],
    prefix: Sequence[int],
    suffix: Sequence[int],
    *,
    mode: Literal["psm", "spm"] = "psm",
    room: int,
) -> list[int]:
    """Ids that ask for the middle between encoded prefix and suffix, cut to `room` tokens by the rule of
    `kringle.generation.fim`: three quarters for the prefix's end, one for the suffix's beginning, and what one does not
    need for the other."""
    order = entry.psm if mode == "psm" else entry.spm
    if not order:
        raise UserError(f"{entry.name} was not trained for the order '{mode}'", where="fill-in-the-middle")
    begin = [token_id(token) for token in entry.begin]
    left = room - len(begin) - len(order) + 2
    if left < 1:
        raise UserError("the context leaves no room for prefix and suffix", where="fill-in-the-middle")
    before, after = share(len(prefix), len(suffix), left)
    parts = {"PREFIX": list(prefix[len(prefix) - before :]), "SUFFIX": list(suffix[:after])}
    ids = begin
    for piece in order:
        ids += parts[piece] if piece in parts else [token_id(piece)]
    return ids
