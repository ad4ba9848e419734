"""OpenAI's completions and models, and Mistral's fill-in-the-middle endpoint, whose chunks carry `text` and
`delta.content` at once, so that clients of either read them.

Refused with 400, because it would change what is drawn and is not done: `best_of` above `n`, penalties and
`logit_bias` that are not zero. `suffix` asks for the text between `prompt` and it. Beyond OpenAI: `top_k`,
`attribution`, `logprobs` up to 20. What is said of `max_tokens`: see `kringle.serve.settings`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kringle.generation.requests import MOST_ALTERNATIVES
from kringle.serve.completing import Asked, Choice, Ending, Generation, TokenText
from kringle.serve.echo import Echo, echoes
from kringle.serve.errors import ACCESS_RESPONSES, RESPONSES, ApiError, response
from kringle.serve.fields import Body, Penalty, Seed, Stop, Stops, Temperature, TokenId, Tokens, TopP
from kringle.serve.serving import Serving, data, serving

router = APIRouter()
DEFAULT_TOKENS = 16  # OpenAI's
TABBY_TEMPERATURE = 0.1  # Tabby's own default
LOWEST_LOG_PROBABILITY = -9999.0  # JSON has no minus infinity
FINISH: dict[Ending, str] = {
    "stop": "stop",
    "end": "stop",
    "length": "length",
    "deadline": "length",
    "cancelled": "length",
}


class StreamOptions(Body):
    """`include_usage`: a last chunk with the counts."""

    include_usage: bool | None = None


class Segments(Body):
    """The text around the cursor, as Tabby's editor plug-ins send it."""

    prefix: str
    suffix: str | None = None


class CompletionRequest(Body):
    """OpenAI's body of `/v1/completions`; with `segments` Tabby's, whose answer is a part of OpenAI's."""

    model: str | None = None
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] = ""
    suffix: str | None = None
    max_tokens: Tokens | None = DEFAULT_TOKENS
    temperature: Temperature | None = 1.0
    top_p: TopP | None = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    echo: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Penalty | None = 0.0
    frequency_penalty: Penalty | None = 0.0
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    attribution: bool | None = False
    segments: Segments | None = None


class FimRequest(Body):
    """Mistral's body of `/v1/fim/completions`."""

    model: str | None = None
    prompt: str
    suffix: str | None = ""
    max_tokens: Tokens | None = None
    min_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = 1.0
    random_seed: Seed | None = None
    stop: Stop | Stops | None = None
    stream: bool | None = False
    presence_penalty: Penalty | None = 0.0  # not Mistral's; Continue sends what its settings say
    frequency_penalty: Penalty | None = 0.0


class Logprobs(BaseModel):
    """One entry a token of the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One completion, or a part of it."""

    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    attribution: list[dict[str, Any]] | None = None


class CachedTokens(BaseModel):
    """Of the prompt."""

    cached_tokens: int


class Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionResponse(BaseModel):
    """OpenAI's answer."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class FimMessage(BaseModel):
    """The text as a message."""

    role: Literal["assistant"]
    content: str


class FimChoice(BaseModel):
    """The text, in both shapes."""

    index: int
    text: str
    message: FimMessage
    finish_reason: Literal["stop", "length"]


class FimResponse(BaseModel):
    """Mistral's answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[FimChoice]
    usage: Usage


class ModelCard(BaseModel):
    """One served model."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    parameters: int
    fills_gaps: bool


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[ModelCard]


EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": EVENT}}}}


@router.post("/v1/completions", response_model=CompletionResponse, responses={**RESPONSES, **STREAM})
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Complete a prompt, or fill the gap before `suffix`."""
    here = serving(request)
    _refuse(body)
    model = here.model(body.model)
    if body.segments is not None:
        asked = [_tabby(body.segments, body, here.settings.new_tokens)]
    else:
        asked = [_asked(body, prompt) for prompt in _prompts(body.prompt)]
    generation = here.start(request, model, asked)
    head = _head(generation)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return here.stream(request, generation, _chunks(generation, head, body, usage))
    try:
        before = await echoes(generation, wanted=bool(body.echo))
    except BaseException:
        generation.cancel()
        raise
    await here.complete(request, generation)
    choices = [_choice_json(i, choice, before[choice.prompt]) for i, choice in enumerate(generation.choices)]
    if body.attribution:
        for choice, made in zip(generation.choices, choices, strict=True):
            made["attribution"] = [span.as_json() for span in choice.spans]
    return response(200, {**head, "choices": choices, "usage": usage_json(generation)})


def _refuse(body: CompletionRequest) -> None:
    """What is understood and not done."""
    if body.best_of is not None and body.best_of > (body.n or 1):
        raise ApiError(400, "best_of above n is not supported; ask for n and choose", param="best_of")
    _refuse_penalties(body)
    if body.logit_bias:
        raise ApiError(400, "logit_bias is not supported", param="logit_bias")
    if body.echo and body.suffix:
        raise ApiError(400, "echo repeats a prompt that goes on, and with a suffix none does", param="echo")


def _refuse_penalties(body: CompletionRequest | FimRequest) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name):
            raise ApiError(400, f"{name} is not supported", param=name)


def _prompts(prompt: Any) -> list[str | tuple[int, ...]]:
    """One or several, as text or as ids."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or any(not isinstance(one, int) and not isinstance(one, str) and not one for one in prompt):
        raise ApiError(400, "a prompt is an empty list", param="prompt")
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [one if isinstance(one, str) else tuple(one) for one in prompt]


def _asked(body: CompletionRequest, prompt: str | tuple[int, ...]) -> Asked:
    return Asked(
        prompt,
        suffix=body.suffix or "",
        samples=body.n or 1,
        new_tokens=DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        stops=stop_strings(body.stop),
        alternatives=body.logprobs,
        attributed=bool(body.attribution),
        exact=bool(body.echo),
    )


def _tabby(segments: Segments, body: CompletionRequest, new_tokens: int) -> Asked:
    """Tabby's plug-ins leave everything but the text and the temperature to the server."""
    temperature = TABBY_TEMPERATURE if "temperature" not in body.model_fields_set else body.temperature
    return Asked(
        segments.prefix,
        suffix=segments.suffix or "",
        new_tokens=new_tokens,
        temperature=TABBY_TEMPERATURE if temperature is None else temperature,
        seed=body.seed,
    )


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """OpenAI's `stop`: one or several."""
    return () if stop is None else (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop))


def _head(generation: Generation, kind: str = "text_completion") -> dict[str, Any]:
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": generation.model.name,
    }


async def _chunks(
    generation: Generation, head: dict[str, Any], body: CompletionRequest, usage: bool
) -> AsyncIterator[str]:
    before = await echoes(generation, wanted=bool(body.echo))
    extra = {"usage": None} if usage else {}
    for i, choice in enumerate(generation.choices):
        if body.echo:
            echo = before[choice.prompt]
            yield data({**head, "choices": [_part(i, echo.text, echo.logprobs(body.logprobs), None)], **extra})
    async for delta in generation.deltas():
        offset = before[generation.choices[delta.choice].prompt].characters
        told = logprobs_json(delta.tokens, offset) if body.logprobs is not None else None
        made = _part(delta.choice, delta.text, told, delta.ending)
        if body.attribution:
            made["attribution"] = [span.as_json() for span in delta.spans or ()]
        yield data({**head, "choices": [made], **extra})
    if usage:
        yield data({**head, "choices": [], "usage": usage_json(generation)})
    yield "data: [DONE]\n\n"


def _part(index: int, text: str, logprobs: dict[str, Any] | None, ending: Ending | None) -> dict[str, Any]:
    return {
        "text": text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": None if ending is None else FINISH[ending],
    }


def _choice_json(index: int, choice: Choice, echo: Echo) -> dict[str, Any]:
    told = None
    if choice.alternatives is not None:
        told = echo.logprobs(choice.alternatives, logprobs_json(choice.tokens, echo.characters))
    return _part(index, echo.text + choice.text, told, choice.ending)


def logprobs_json(tokens: Sequence[TokenText], offset: int = 0) -> dict[str, Any]:
    """OpenAI's four lists; two alternatives that are spelled alike count as one, the likelier."""
    tops = []
    for token in tokens:
        best: dict[str, float] = {}
        for text, value in token.alternatives:
            best[text] = max(best.get(text, LOWEST_LOG_PROBABILITY), value)
        tops.append(best)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [max(LOWEST_LOG_PROBABILITY, token.log_probability) for token in tokens],
        "top_logprobs": tops,
        "text_offset": [offset + token.offset for token in tokens],
    }


def usage_json(generation: Generation) -> dict[str, Any]:
    """Counts of one request."""
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached},
    }


@router.post("/v1/fim/completions", response_model=FimResponse, responses={**RESPONSES, **STREAM})
async def fim_completions(body: FimRequest, request: Request) -> Response:
    """Fill the gap between `prompt` and `suffix`, as Mistral's clients ask."""
    here = serving(request)
    if body.min_tokens:
        raise ApiError(400, "min_tokens is not supported", param="min_tokens")
    _refuse_penalties(body)
    asked = Asked(
        body.prompt,
        suffix=body.suffix or "",
        new_tokens=here.settings.new_tokens if body.max_tokens is None else body.max_tokens,
        temperature=0.2 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.random_seed,
        stops=stop_strings(body.stop),
    )
    generation = here.start(request, here.model(body.model), [asked])
    head = _head(generation, "chat.completion.chunk" if body.stream else "chat.completion")
    if body.stream:
        return here.stream(request, generation, _fim_chunks(generation, head))
    await here.complete(request, generation)
    (choice,) = generation.choices
    assert choice.ending is not None
    made = {
        "index": 0,
        "text": choice.text,
        "message": {"role": "assistant", "content": choice.text},
        "finish_reason": FINISH[choice.ending],
    }
    return response(200, {**head, "choices": [made], "usage": usage_json(generation)})


async def _fim_chunks(generation: Generation, head: dict[str, Any]) -> AsyncIterator[str]:
    async for delta in generation.deltas():
        part = {
            "index": 0,
            "text": delta.text,
            "delta": {"role": "assistant", "content": delta.text},
            "finish_reason": None if delta.ending is None else FINISH[delta.ending],
        }
        last = {"usage": usage_json(generation)} if delta.ending is not None else {}
        yield data({**head, "choices": [part], **last})
    yield "data: [DONE]\n\n"


@router.get("/v1/models", response_model=ModelList, responses=ACCESS_RESPONSES)
async def models(request: Request) -> ModelList:
    """The served models, the default one first."""
    here = serving(request)
    return ModelList(object="list", data=[_card(here, name) for name in here.models])


@router.get(
    "/v1/models/{name:path}",
    response_model=ModelCard,
    responses={**ACCESS_RESPONSES, 404: RESPONSES[404], 422: RESPONSES[422]},
)
async def model(name: str, request: Request) -> ModelCard:
    """One served model."""
    here = serving(request)
    return _card(here, here.model(name).name)


def _card(here: Serving, name: str) -> ModelCard:
    served = here.models[name]
    return ModelCard(
        id=name,
        object="model",
        created=here.started,
        owned_by="kringle" if served.engine == "kringle" else "transformers",
        context_length=served.context,
        parameters=served.parameters,
        fills_gaps=served.fills_gaps,
    )
