"""Whether the server is well, and what it has counted."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from starlette.responses import Response

from kringle import __version__
from kringle.serve.errors import ACCESS_RESPONSES, RESPONSES, response
from kringle.serve.metrics import CONTENT_TYPE
from kringle.serve.serving import serving

router = APIRouter()


class Version(BaseModel):
    """As Tabby's clients read it."""

    git_describe: str


class Health(BaseModel):
    """`ok`, or `stopping` with status 503. llama.cpp's clients read `status`, Tabby's the rest."""

    status: Literal["ok", "stopping"]
    models: list[str]
    model: str
    device: str
    version: Version


HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    403: RESPONSES[403],
    500: RESPONSES[500],
    503: {"model": Health, "description": "Stopping"},
}


@router.get("/health", response_model=Health, responses=HEALTH_RESPONSES)
@router.get("/v1/health", response_model=Health, responses=HEALTH_RESPONSES)
async def health(request: Request) -> Response:
    """Open to everybody, without a key."""
    here = serving(request)
    names = list(here.models)
    body = {
        "status": "stopping" if here.draining else "ok",
        "models": names,
        "model": names[0],
        "device": here.device,
        "version": {"git_describe": f"kringle {__version__}"},
    }
    return response(503 if here.draining else 200, body)


@router.get("/metrics", response_class=PlainTextResponse, responses=ACCESS_RESPONSES)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    here = serving(request)
    loads = {name: model.load for name, model in here.models.items()}
    gauges = [
        (f"kringle_{what}", text, [({"model": name}, float(getattr(load, field))) for name, load in loads.items()])
        for what, text, field in (
            ("rows", "Samples that can advance together.", "rows"),
            ("rows_busy", "Samples that advance now.", "busy"),
            ("requests_running", "Requests that have not ended, those that wait for a row included.", "requests"),
        )
    ]
    return Response(here.metrics.text(gauges), media_type=CONTENT_TYPE)
