"""The application: every dialect's endpoints around one `Serving`.

    app = build([model], Settings())
    app = build(models, settings, extras=[playground.router], open_paths=("/", "/page/"), attributor=index)

`extras` are routers of other rooms (the playground, attribution); `open_paths` are theirs that need no key. A page sets
a Content-Security-Policy of its own; what does not gets one that allows nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from kringle import __version__
from kringle.serve import errors, health, llama_cpp, ollama, openai_api, tgi
from kringle.serve.attributing import Attributor
from kringle.serve.guard import Guard
from kringle.serve.journal import Journal
from kringle.serve.metrics import Metrics
from kringle.serve.models import ServedModel
from kringle.serve.serving import Serving
from kringle.serve.settings import Settings

ROUTERS = (openai_api.router, llama_cpp.router, tgi.router, ollama.router, health.router)


def build(
    models: Sequence[ServedModel],
    settings: Settings,
    extras: Sequence[APIRouter] = (),
    *,
    attributor: Attributor | None = None,
    open_paths: Sequence[str] = (),
    journal: Journal | None = None,
) -> FastAPI:
    """The server for `models`, the first of which is the default; they are closed when it stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for model in models:
            model.close()

    app = FastAPI(
        title="Kringle",
        version=__version__,
        description="Code completion for editors.",
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    metrics, journal = Metrics(), journal or Journal()
    app.state.serving = Serving(models, settings, metrics=metrics, journal=journal, attributor=attributor)
    errors.install(app)
    for router in (*ROUTERS, *extras):
        app.include_router(router)
    app.add_middleware(Guard, settings=settings, metrics=metrics, journal=journal, open_paths=tuple(open_paths))
    return app
