"""`echo`: the prompt in front of the completion, and how probable its tokens were.

With `logprobs` the prompt is run once more for the scores of all its positions, on a thread of the pool, one prompt at
a time. The first token of a file follows an end-of-text token and has a score; the first of a list of ids has none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from kringle.generation.requests import Alternatives
from kringle.serve.completing import Generation, spelled
from kringle.serve.errors import ApiError
from kringle.serve.models import ServedModel

LOWEST = -9999.0
_turn = asyncio.Lock()


@dataclass(frozen=True)
class Echo:
    """What stands before a completion: nothing, or the prompt; `scores` are the lists of OpenAI's `logprobs`."""

    text: str = ""
    scores: dict[str, Any] | None = None

    @property
    def characters(self) -> int:
        return len(self.text)

    def logprobs(self, wanted: int | None, following: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The prompt's scores with those of what follows; None where none were asked for."""
        if wanted is None:
            return None
        if self.scores is None:
            return following
        return {name: [*values, *(following[name] if following else [])] for name, values in self.scores.items()}


async def echoes(generation: Generation, *, wanted: bool) -> list[Echo]:
    """One for each prompt."""
    if not wanted:
        return [Echo() for _ in generation.prompts]
    found = []
    for one, prompt in zip(generation.asked, generation.prompts, strict=True):
        if one.alternatives is None:
            found.append(Echo(_text(generation.model, one.prefix)))
            continue
        if prompt.ids.truncated:
            raise ApiError(
                400, "the prompt is longer than the context: its tokens cannot all be scored", param="prompt"
            )
        async with _turn:
            own, others = await asyncio.to_thread(generation.model.score, prompt.ids.ids, one.alternatives)
        found.append(_scored(generation.model, prompt.ids.ids, own, others, isinstance(one.prefix, str)))
    return found


def _text(model: ServedModel, prompt: str | tuple[int, ...]) -> str:
    if isinstance(prompt, str):
        return prompt
    return b"".join(model.special(id).encode() or model.token(id) for id in prompt).decode("utf-8", "replace")


def _scored(model: ServedModel, ids: list[int], own: list[float], others: list[Alternatives], begins: bool) -> Echo:
    def name(id: int) -> str:
        return model.special(id) or spelled(model.token(id))

    first = bool(begins and model.special(ids[0]))  # put there by the server: no part of the prompt
    shown = ids[1:] if first else ids
    values: list[float | None] = [max(LOWEST, value) for value in own]
    tops: list[dict[str, float] | None] = [{name(id): max(LOWEST, p) for id, p in best} for best in others]
    if not first:
        values, tops = [None, *values], [None, *tops]
    offsets, characters, raw = [], 0, b""
    for id in shown:
        offsets.append(characters)
        piece = model.special(id).encode() or model.token(id)
        raw += piece
        characters += sum(byte & 0xC0 != 0x80 for byte in piece)
    scores = {
        "tokens": [name(id) for id in shown],
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
    return Echo(raw.decode("utf-8", "replace"), scores)
