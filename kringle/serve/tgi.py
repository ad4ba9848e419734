"""Text Generation Inference's `/generate` and `/generate_stream`, as Hugging Face's editor plug-ins ask.

Drawing is greedy unless `do_sample` or one of temperature, top-k and top-p is given, as there. Fill-in-the-middle
prompts come in the client's template and are taken apart (`kringle.serve.prompting`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from kringle.serve.completing import Asked, Choice, Ending, Generation, TokenText
from kringle.serve.errors import RESPONSES, ApiError, response
from kringle.serve.fields import Body, Seed, Stops, Temperature, Tokens, TopP
from kringle.serve.openai_api import STREAM
from kringle.serve.serving import Serving, data, serving

router = APIRouter()
FINISH: dict[Ending, str] = {
    "stop": "stop_sequence",
    "end": "eos_token",
    "length": "length",
    "deadline": "length",
    "cancelled": "length",
}
DEFAULT_TOKENS = 100  # TGI's


class Parameters(Body):
    """How to draw."""

    max_new_tokens: Tokens | None = DEFAULT_TOKENS
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    do_sample: bool = False
    seed: Seed | None = None
    stop: Stops | None = None
    return_full_text: bool | None = False
    details: bool = False
    best_of: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(allow_inf_nan=False)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    truncate: Annotated[int, Field(ge=1)] | None = None
    watermark: bool = False


class GenerateRequest(Body):
    """TGI's body."""

    inputs: str
    parameters: Parameters = Parameters()


class Token(BaseModel):
    """One token."""

    id: int
    text: str
    logprob: float
    special: bool


class Details(BaseModel):
    """How it ended."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    seed: int | None
    prefill: list[Token]
    tokens: list[Token]


class Generated(BaseModel):
    """TGI's answer."""

    generated_text: str
    details: Details | None = None


@router.post("/generate", response_model=Generated, responses=RESPONSES)
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Complete a prompt."""
    here = serving(request)
    generation = _start(here, body, request)
    await here.complete(request, generation)
    (choice,) = generation.choices
    made: dict[str, Any] = {"generated_text": _whole(body, choice)}
    if body.parameters.details:
        made["details"] = _details(body, choice) | {"tokens": [_token(token) for token in choice.tokens]}
    return response(200, made)


@router.post("/generate_stream", response_model=None, responses={**RESPONSES, **STREAM})
async def generate_stream(body: GenerateRequest, request: Request) -> Response:
    """Complete a prompt, token by token."""
    here = serving(request)
    generation = _start(here, body, request)
    return here.stream(request, generation, _events(generation, body))


def _start(here: Serving, body: GenerateRequest, request: Request) -> Generation:
    p = body.parameters
    refused = {
        "best_of": (p.best_of or 1) > 1,
        "repetition_penalty": p.repetition_penalty not in (None, 1.0),
        "frequency_penalty": bool(p.frequency_penalty),
        "typical_p": p.typical_p not in (None, 1.0),
        "truncate": p.truncate is not None,
        "watermark": p.watermark,
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise ApiError(400, f"{name} is not supported", param=f"parameters.{name}")
    drawn = p.do_sample or p.temperature is not None or p.top_k is not None or p.top_p is not None
    asked = Asked(
        body.inputs,
        new_tokens=DEFAULT_TOKENS if p.max_new_tokens is None else p.max_new_tokens,
        temperature=(1.0 if p.temperature is None else p.temperature) if drawn else 0.0,
        top_p=1.0 if p.top_p is None else p.top_p,
        top_k=p.top_k,
        seed=p.seed,
        stops=tuple(dict.fromkeys(p.stop or ())),
        alternatives=0,
    )
    return here.start(request, here.model(None), [asked])


def _whole(body: GenerateRequest, choice: Choice) -> str:
    return body.inputs + choice.text if body.parameters.return_full_text else choice.text


def _details(body: GenerateRequest, choice: Choice) -> dict[str, Any]:
    assert choice.ending is not None
    return {
        "finish_reason": FINISH[choice.ending],
        "generated_tokens": choice.drawn,
        "seed": body.parameters.seed,
        "prefill": [],
    }


def _token(token: TokenText) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": max(-9999.0, token.log_probability), "special": False}


async def _events(generation: Generation, body: GenerateRequest) -> AsyncIterator[str]:
    """An event a token; one without text closes the answer, since what a token shows may be known only after it."""
    index = 0
    async for delta in generation.deltas():
        for token in delta.tokens:
            index += 1
            yield data({"index": index, "token": _token(token), "generated_text": None, "details": None})
    (choice,) = generation.choices
    last = {"id": -1, "text": "", "logprob": 0.0, "special": True}
    details = {**_details(body, choice), "tokens": []}
    yield data({"index": index + 1, "token": last, "generated_text": _whole(body, choice), "details": details})
