"""Ollama's `/api/generate` (with `suffix`), and what its clients ask before: `/api/tags`, `/api/show`, `/api/version`.

Answers are JSON lines unless `stream` is false. Prompts go to the model as they are: it has no template of messages, so
`system`, `template`, `format` and `images` are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kringle import __version__
from kringle.serve.completing import Asked, Ending, Generation
from kringle.serve.errors import ACCESS_RESPONSES, RESPONSES, ApiError, response
from kringle.serve.fields import MOST_TOKENS, Body, Seed, Stop, Stops, Temperature, TopP
from kringle.serve.models import ServedModel
from kringle.serve.serving import serving

router = APIRouter()
NANOSECONDS = 10**9
FINISH: dict[Ending, str] = {
    "stop": "stop",
    "end": "stop",
    "length": "length",
    "deadline": "length",
    "cancelled": "length",
}
LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}


class Options(Body):
    """How to draw; Ollama's defaults."""

    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS)] = -1
    temperature: Temperature = 0.8
    top_p: TopP = 0.9
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 40
    seed: Seed | None = None
    stop: Stop | Stops | None = None


class GenerateRequest(Body):
    """Body of `/api/generate`."""

    model: str | None = None
    prompt: str = ""
    suffix: str | None = None
    stream: bool | None = True
    raw: bool | None = None
    options: Options | None = None
    system: str | None = None
    template: str | None = None
    format: str | dict[str, Any] | None = None
    images: list[str] | None = None


class Generated(BaseModel):
    """Ollama's answer; durations in nanoseconds."""

    model: str
    created_at: str
    response: str
    done: bool
    done_reason: str | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class ShowRequest(Body):
    """Body of `/api/show`."""

    model: str | None = None
    name: str | None = None


class Tags(BaseModel):
    """The served models."""

    models: list[dict[str, Any]]


class Shown(BaseModel):
    """One of them."""

    model_config = ConfigDict(protected_namespaces=())

    template: str
    parameters: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]


class Version(BaseModel):
    """Of the server."""

    version: str


@router.post("/api/generate", response_model=Generated, responses={**RESPONSES, **LINES})
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Complete a prompt, or fill the gap before `suffix`."""
    here = serving(request)
    for name in ("system", "template", "format", "images"):
        if getattr(body, name):
            raise ApiError(400, f"{name} is not supported", param=name)
    model, options = here.model(body.model), body.options or Options()
    if not body.prompt and not body.suffix:  # how clients ask for a model to be loaded
        return response(200, {**_head(model), "response": "", "done": True, "done_reason": "load"})
    stop = options.stop
    asked = Asked(
        body.prompt,
        suffix=body.suffix or "",
        new_tokens=here.settings.most_new_tokens if options.num_predict < 0 else options.num_predict,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k or None,
        seed=options.seed,
        stops=() if stop is None else (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop)),
    )
    generation = here.start(request, model, [asked])
    if body.stream is not False:
        return here.stream(request, generation, _lines(generation), lines=True)
    await here.complete(request, generation)
    return response(200, _last(generation, generation.choices[0].text))


def _head(model: ServedModel) -> dict[str, Any]:
    return {"model": model.name, "created_at": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def _lines(generation: Generation) -> AsyncIterator[str]:
    async for delta in generation.deltas():
        if delta.ending is None:
            part = {**_head(generation.model), "response": delta.text, "done": False}
        else:
            part = _last(generation, delta.text)
        yield json.dumps(part) + "\n"


def _last(generation: Generation, text: str) -> dict[str, Any]:
    (choice,) = generation.choices
    assert choice.ending is not None
    total, first = generation.seconds, generation.first_token or generation.seconds
    return {
        **_head(generation.model),
        "response": text,
        "done": True,
        "done_reason": FINISH[choice.ending],
        "total_duration": int(total * NANOSECONDS),
        "load_duration": 0,
        "prompt_eval_count": generation.prompt_tokens,
        "prompt_eval_duration": int(first * NANOSECONDS),
        "eval_count": generation.completion_tokens,
        "eval_duration": int((total - first) * NANOSECONDS),
    }


def _details(model: ServedModel) -> dict[str, Any]:
    return {
        "format": "safetensors",
        "family": model.engine,
        "parameter_size": f"{model.parameters / 1e6:.1f}M",
        "quantization_level": "",
    }


@router.get("/api/tags", response_model=Tags, responses=ACCESS_RESPONSES)
async def tags(request: Request) -> Response:
    """The served models. `digest` names the model, it is no checksum of its files."""
    here = serving(request)
    when = datetime.fromtimestamp(here.started, UTC).isoformat()
    models = [
        {
            "name": name,
            "model": name,
            "modified_at": when,
            "size": model.parameters * 4,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": _details(model),
        }
        for name, model in here.models.items()
    ]
    return response(200, {"models": models})


@router.post("/api/show", response_model=Shown, responses=RESPONSES)
async def show(body: ShowRequest, request: Request) -> Response:
    """What a model can do: a template with `.Suffix` tells clients that it fills in."""
    model = serving(request).model(body.model or body.name)
    fills = model.fills_gaps
    return response(
        200,
        {
            "template": "{{ .Prompt }}{{ .Suffix }}" if fills else "{{ .Prompt }}",
            "parameters": "",
            "details": _details(model),
            "model_info": {"general.parameter_count": model.parameters, "kringle.context_length": model.context},
            "capabilities": ["completion", *(["insert"] if fills else [])],
        },
    )


@router.get("/api/version", response_model=Version, responses=ACCESS_RESPONSES)
async def version() -> Version:
    """Of this server, not of Ollama."""
    return Version(version=__version__)
