"""Going on where a held-out file was cut, at several temperatures: what memorisation is looked for in.

Every model is given the same places, at most one in a file: the text above a line, as much of it as its context holds
beside the completion. Beside each completion stands what the file itself goes on with, of the same length in tokens,
so that common boilerplate is not taken for memorisation: it stands in other people's files too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kringle.generation.engine import generate
from kringle.generation.fim import left_to_right_prompt
from kringle.generation.requests import Request
from kringle.model.transformer import Transformer
from kringle.randomness import stream, uniform
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.batches import taught_positions

NEW_TOKENS = 96  # some 250 characters of a small vocabulary: room for several copies of 50
TEMPERATURES = (0.0, 0.2, 0.8, 1.0)  # greedy; what suites are sampled at for pass@1 and pass@100; the model's own
_CHARACTERS = 8  # of the text above a place, for each token of room: no token of code is longer on average


@dataclass(frozen=True)
class Opening:
    """A held-out file, cut before a line: `prefix` is what stands above it, `rest` what follows."""

    document: str
    repo: str
    path: str
    language: str
    line: int
    prefix: str
    rest: str


def openings(documents: Sequence[tuple[str, str, str, str, str]], count: int, seed: int = 0) -> list[Opening]:
    """Up to `count` places in documents (id, repo, path, language, text), the same in any order of the documents.

    A place is drawn among the lines of a file that have something above and something below them.
    """
    chosen = sorted(documents, key=lambda document: (uniform(seed, "continuation", document[0]), document[0]))
    found: list[Opening] = []
    for id, repo, path, language, text in chosen:
        lines = text.split("\n")
        places = [i for i in range(1, len(lines)) if lines[i].strip()]
        if places and len(found) < count:
            line = places[int(stream(seed, "continuation place", id).integers(len(places)))]
            prefix = "".join(f"{row}\n" for row in lines[:line])
            found.append(Opening(id, repo, path, language, line + 1, prefix, text[len(prefix) :]))
    return found


def continue_files(
    model: Transformer,
    tokenizer: Tokenizer,
    places: Sequence[Opening],
    headers: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each temperature and place: the completion, and as many tokens of the file itself.

    Nothing but the temperature bends the model's distribution. `headers`: what the model was taught to expect before
    each file.
    """
    context = taught_positions(model.config.context)
    new_tokens = min(NEW_TOKENS, context // 2)
    prompts = []
    for number, place in enumerate(places):
        text = ((headers[number] if headers else "") + place.prefix)[-_CHARACTERS * context :]
        prompts.append(left_to_right_prompt(tokenizer, text, context=context, new_tokens=new_tokens))
    requests = [
        Request(prompt, max_new_tokens=new_tokens, temperature=temperature, seed=seed, key=f"{place.document}:continue")
        for temperature in TEMPERATURES
        for place, prompt in zip(places, prompts, strict=True)
    ]
    follows = [tokenizer.encode(place.rest[: _CHARACTERS * new_tokens])[:new_tokens] for place in places]
    real = [tokenizer.decode_bytes(ids).decode("utf-8", "replace") for ids in follows]
    rows: dict[int, dict[str, Any]] = {}
    for completion in generate(model, tokenizer, requests):
        at = completion.request % len(places)
        place = places[at]
        rows[completion.request] = {
            "repo": place.repo,
            "path": place.path,
            "line": place.line,
            "language": place.language,
            "temperature": requests[completion.request].temperature,
            "completion": completion.text.decode("utf-8", "replace"),
            "expected": real[at],
        }
    return [rows[number] for number in sorted(rows)]
