"""llama.cpp's own endpoints: `/infill`, `/completion` (`/completions`), `/tokenize`, `/detokenize`, `/props`.

`/infill` fills the gap between `input_prefix` + `prompt` (the current line up to the cursor) and `input_suffix`. The
texts of `input_extra` stand before the prefix, and are the first that is cut where the context is too small. `n_indent`
ends the text before a line that is indented by less, `t_max_predict_ms` once it has a whole line. `n_predict` 0 reads
the prompt, so that its beginning is known when it is asked for; -1 is the server's limit. Samplers other than
temperature, top-k and top-p are not there: a grammar or a penalty is refused, `samplers` is not looked at. What
`response_fields` names by a path (`timings/prompt_n`) is in the answer under that path too; nothing is left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kringle import __version__
from kringle.generation.requests import MOST_ALTERNATIVES
from kringle.serve.completing import Asked, Choice, Generation, TokenText
from kringle.serve.errors import ACCESS_RESPONSES, RESPONSES, ApiError, response
from kringle.serve.fields import LARGEST_SEED, MOST_TOKENS, Body, Stops, Temperature, TokenId, TopP
from kringle.serve.models import ServedModel
from kringle.serve.openai_api import STREAM
from kringle.serve.serving import Serving, data, serving

router = APIRouter()
MOST_EXTRA = 64
MOST_RESPONSE_FIELDS, LONGEST_PATH = 64, 256
STOP_TYPES = {"stop": "word", "end": "eos", "length": "limit", "deadline": "limit", "cancelled": "limit"}
Milliseconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Drawing(Body):
    """What `/infill` and `/completion` share."""

    model: str | None = None
    n_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS)] = -1
    n_cmpl: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Temperature = 0.8
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS)] = 40
    top_p: TopP = 0.95
    seed: Annotated[int, Field(ge=-1, le=LARGEST_SEED)] = -1
    stop: Stops | None = None
    stream: bool = False
    n_probs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] = 0
    n_indent: Annotated[int, Field(ge=0, le=1000)] = 0
    t_max_predict_ms: Milliseconds = 0
    response_fields: (
        Annotated[list[Annotated[str, Field(max_length=LONGEST_PATH)]], Field(max_length=MOST_RESPONSE_FIELDS)] | None
    ) = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    repeat_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    presence_penalty: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class Extra(Body):
    """A piece of another file."""

    text: str
    filename: str | None = None


class InfillRequest(Drawing):
    """Body of `/infill`."""

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: Annotated[list[Extra], Field(max_length=MOST_EXTRA)] | None = None
    prompt: str = ""


class CompletionRequest(Drawing):
    """Body of `/completion`."""

    prompt: str | list[TokenId] | list[str]


class Timings(BaseModel):
    """Times of one completion; the prompt's includes waiting."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class Completed(BaseModel):
    """One completion; several come as a list."""

    model_config = ConfigDict(protected_namespaces=())

    index: int
    content: str
    id_slot: int
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    generation_settings: dict[str, Any]
    has_new_line: bool
    truncated: bool
    stop_type: Literal["none", "eos", "limit", "word"]
    stopping_word: str
    timings: Timings
    completion_probabilities: list[dict[str, Any]] | None = None


@router.post("/infill", response_model=Completed | list[Completed], responses={**RESPONSES, **STREAM})
async def infill(body: InfillRequest, request: Request) -> Response:
    """Fill the gap at the cursor."""
    before = "".join(extra.text.rstrip("\n") + "\n\n" for extra in body.input_extra or ())
    return await _answer(body, request, [before + body.input_prefix + body.prompt], body.input_suffix)


@router.post("/completion", response_model=Completed | list[Completed], responses={**RESPONSES, **STREAM})
@router.post("/completions", response_model=Completed | list[Completed], responses={**RESPONSES, **STREAM})
async def completion(body: CompletionRequest, request: Request) -> Response:
    """Go on after a prompt, or several."""
    given = body.prompt
    if isinstance(given, str):
        return await _answer(body, request, [given], "")
    if not given:
        raise ApiError(400, "the prompt is an empty list", param="prompt")
    if isinstance(given[0], str):
        return await _answer(body, request, [str(one) for one in given], "")
    return await _answer(body, request, [tuple(int(one) for one in given)], "")


async def _answer(body: Drawing, request: Request, prompts: list[Any], suffix: str) -> Response:
    here = serving(request)
    for name, nothing in (("repeat_penalty", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if getattr(body, name) != nothing:
            raise ApiError(400, f"{name} is not supported", param=name)
    for name in ("grammar", "json_schema"):
        if getattr(body, name):
            raise ApiError(400, f"{name} is not supported", param=name)
    asked = [_asked(here, body, prompt, suffix) for prompt in prompts]
    generation = here.start(request, _model(here, body.model), asked)
    if body.stream:
        return here.stream(request, generation, _events(generation, body))
    await here.complete(request, generation)
    made = [_completed(generation, i, choice, body) for i, choice in enumerate(generation.choices)]
    return response(200, made[0] if len(made) == 1 else made)


def _model(here: Serving, name: str | None) -> ServedModel:
    """llama.cpp looks at the name only where it has several models; llama.vscode sends its chat model's."""
    return here.model(name if len(here.models) > 1 else None)


def _asked(here: Serving, body: Drawing, prompt: str | tuple[int, ...], suffix: str) -> Asked:
    return Asked(
        prompt,
        suffix=suffix,
        samples=body.n_cmpl,
        new_tokens=here.settings.most_new_tokens if body.n_predict < 0 else body.n_predict,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k if body.top_k > 0 else None,
        seed=None if body.seed < 0 else body.seed,
        stops=tuple(dict.fromkeys(body.stop or ())),
        alternatives=body.n_probs or None,
        least_indent=body.n_indent,
        line_seconds=body.t_max_predict_ms / 1000 if body.t_max_predict_ms else None,
    )


async def _events(generation: Generation, body: Drawing) -> AsyncIterator[str]:
    async for delta in generation.deltas():
        if delta.ending is None:
            part: dict[str, Any] = {"index": delta.choice, "content": delta.text, "stop": False}
        else:
            part = _completed(generation, delta.choice, generation.choices[delta.choice], body)
            part["content"] = delta.text
        if body.n_probs:
            part["completion_probabilities"] = [_probabilities(token) for token in delta.tokens]
        yield data(part)


def _completed(generation: Generation, index: int, choice: Choice, body: Drawing) -> dict[str, Any]:
    prompt = generation.prompts[choice.prompt]
    evaluated, drawn = len(prompt.ids.ids), choice.drawn
    reading = generation.first_token or 0.0
    writing = max(0.0, generation.seconds - reading)
    ending = choice.ending or "cancelled"
    made: dict[str, Any] = {
        "index": index,
        "content": choice.text,
        "id_slot": 0,
        "stop": True,
        "model": generation.model.name,
        "tokens_predicted": drawn,
        "tokens_evaluated": evaluated,
        "tokens_cached": evaluated + drawn,
        "generation_settings": {
            "n_ctx": generation.model.context,
            "n_predict": prompt.new_tokens,
            "temperature": body.temperature,
            "top_k": body.top_k,
            "top_p": body.top_p,
            "seed": body.seed,
            "stop": body.stop or [],
            "stream": body.stream,
        },
        "has_new_line": "\n" in choice.text,
        "truncated": prompt.ids.truncated,
        "stop_type": STOP_TYPES[ending],
        "stopping_word": choice.stopped_by,
        "timings": _timings(evaluated, generation.cached, reading, drawn, writing),
    }
    if body.n_probs:
        made["completion_probabilities"] = [_probabilities(token) for token in choice.tokens]
    found = {path: _at(made, path) for path in body.response_fields or () if "/" in path}
    return made | {path: value for path, value in found.items() if value is not None}


def _at(made: Any, path: str) -> Any:
    """What stands at a path in an answer; None where nothing does."""
    for part in path.split("/"):
        made = made.get(part) if isinstance(made, dict) else None
    return made


def _timings(prompt: int, cached: int, reading: float, drawn: int, writing: float) -> dict[str, float]:
    read = prompt - cached
    return {
        "cache_n": cached,
        "prompt_n": read,
        "prompt_ms": reading * 1000,
        "prompt_per_token_ms": reading * 1000 / max(1, read),
        "prompt_per_second": read / reading if reading else 0.0,
        "predicted_n": drawn,
        "predicted_ms": writing * 1000,
        "predicted_per_token_ms": writing * 1000 / max(1, drawn),
        "predicted_per_second": drawn / writing if writing else 0.0,
    }


def _probabilities(token: TokenText) -> dict[str, Any]:
    return {
        "id": token.id,
        "token": token.text,
        "bytes": list(token.raw),
        "logprob": max(-9999.0, token.log_probability),
        "top_logprobs": [{"token": text, "logprob": max(-9999.0, value)} for text, value in token.alternatives],
    }


# -- the vocabulary, and what the server is ----------------------------------------------------------------------------


class TokenizeRequest(Body):
    """Body of `/tokenize`; special tokens are never made of text."""

    model: str | None = None
    content: str = ""
    with_pieces: bool = False


class DetokenizeRequest(Body):
    """Body of `/detokenize`."""

    model: str | None = None
    tokens: list[TokenId]


class TokenPiece(BaseModel):
    """An id and its text, or its bytes where they are no text."""

    id: int
    piece: str | list[int]


class Tokenized(BaseModel):
    """Ids, with their texts where they were asked for."""

    tokens: list[int] | list[TokenPiece]


class Detokenized(BaseModel):
    """Text."""

    content: str


class Props(BaseModel):
    """What llama.cpp's clients ask a server first."""

    model_config = ConfigDict(protected_namespaces=())

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    chat_template: str
    build_info: str


@router.post("/tokenize", response_model=Tokenized, responses=RESPONSES)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The ids of a text."""
    model = _model(serving(request), body.model)
    ids = model.encode(body.content)
    if not body.with_pieces:
        return response(200, {"tokens": ids})
    return response(200, {"tokens": [{"id": id, "piece": _piece(model.token(id))} for id in ids]})


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


@router.post("/detokenize", response_model=Detokenized, responses=RESPONSES)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of ids; special tokens have none."""
    model = _model(serving(request), body.model)
    if any(id >= model.vocab_size for id in body.tokens):
        raise ApiError(400, f"ids run from 0 to {model.vocab_size - 1}", param="tokens")
    return response(200, {"content": b"".join(map(model.token, body.tokens)).decode("utf-8", "replace")})


@router.get("/props", response_model=Props, responses=ACCESS_RESPONSES)
async def props(request: Request) -> Response:
    """Of the default model."""
    here = serving(request)
    model = here.model(None)
    settings = {"n_ctx": model.context, "n_predict": here.settings.most_new_tokens, "model": model.name}
    return response(
        200,
        {
            "default_generation_settings": settings,
            "total_slots": model.load.rows,
            "model_alias": model.name,
            "chat_template": "",
            "build_info": f"kringle {__version__}",
        },
    )
