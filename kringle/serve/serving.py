"""What the endpoints share: the models, the limits, starting a request, and the two ways of answering it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kringle.errors import UserError
from kringle.serve.attributing import Attributor
from kringle.serve.completing import Asked, Generation
from kringle.serve.errors import ApiError, error_response
from kringle.serve.journal import Journal
from kringle.serve.metrics import Metrics
from kringle.serve.models import ServedModel
from kringle.serve.settings import Settings


class Serving:
    """One server's state; `serving(request)` finds it."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        settings: Settings,
        *,
        metrics: Metrics,
        journal: Journal,
        attributor: Attributor | None = None,
    ) -> None:
        if not models:
            raise UserError("no model is given", where="kringle serve")
        self.models = {model.name: model for model in models}
        self.settings, self.metrics, self.journal, self.attributor = settings, metrics, journal, attributor
        self.started = int(time.time())
        self.draining = False
        self._running: set[Generation] = set()

    @property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def running(self) -> int:
        """Requests in flight."""
        return len(self._running)

    def model(self, name: str | None) -> ServedModel:
        """The model of that name (`NAME:latest` too, as Ollama's clients write); the first one where none is named."""
        if not name:
            return next(iter(self.models.values()))
        found = self.models.get(name) or self.models.get(name.removesuffix(":latest"))
        if found is None:
            raise ApiError(
                404, f"no such model; there are: {', '.join(self.models)}", param="model", code="model_not_found"
            )
        return found

    def start(self, request: Request, model: ServedModel, asked: Sequence[Asked]) -> Generation:
        """Start a request; ApiError says why it cannot be."""
        if self.draining:
            raise ApiError(503, "the server is stopping", code="stopping", retry=True)
        samples = sum(one.samples for one in asked)
        if samples > self.settings.most_samples:
            raise ApiError(
                400, f"{samples} completions in one request, {self.settings.most_samples} are allowed", param="n"
            )
        if any(one.attributed for one in asked) and self.attributor is None:
            raise ApiError(400, "this server has no attribution index", param="attribution")
        generation = Generation(
            model,
            asked,
            self.settings,
            attributor=self.attributor,
            on_first=lambda seconds: self.metrics.observe("kringle_first_token_seconds", seconds, model=model.name),
        )
        note(request)["model"] = model.name
        return generation

    @contextmanager
    def attending(self, request: Request, generation: Generation) -> Iterator[None]:
        """While a request is answered: whether its client is there; counts at the end."""

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            generation.leave()

        watcher = asyncio.create_task(watch())
        self._running.add(generation)
        try:
            yield
        finally:
            self._running.discard(generation)
            watcher.cancel()
            generation.cancel()
            name = generation.model.name
            self.metrics.count("kringle_prompt_tokens_total", generation.prompt_tokens, model=name)
            self.metrics.count("kringle_prompt_tokens_reused_total", generation.cached, model=name)
            self.metrics.count("kringle_completion_tokens_total", generation.completion_tokens, model=name)
            note(request).update(
                prompt_tokens=generation.prompt_tokens,
                known_tokens=generation.cached,
                completion_tokens=generation.completion_tokens,
                first_token=None if generation.first_token is None else round(generation.first_token, 4),
                endings=sorted({choice.ending or "left" for choice in generation.choices}),
            )

    async def complete(self, request: Request, generation: Generation) -> None:
        """Run it to the end. ClientGone where nobody waits any more."""
        with self.attending(request, generation):
            await generation.run()

    def stream(
        self, request: Request, generation: Generation, events: AsyncIterator[str], *, lines: bool = False
    ) -> Response:
        """Answer with events as they come: server-sent events, or JSON lines."""
        return EventStream(self, request, generation, events, lines=lines)

    def stop(self) -> None:
        """End every request in flight: each is told that the server stops."""
        for generation in list(self._running):
            generation.cancel()


class EventStream(Response):
    """Events as they come. The head is sent with the first of them, so that what goes wrong before has its status."""

    def __init__(
        self,
        serving: Serving,
        request: Request,
        generation: Generation,
        events: AsyncIterator[str],
        *,
        lines: bool = False,
    ) -> None:
        super().__init__(None, 200, media_type="application/x-ndjson" if lines else "text/event-stream")
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"  # a proxy would wait for more
        self._serving, self._request, self._generation = serving, request, generation
        self._events, self._lines = events, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def say(text: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        with self._serving.attending(self._request, self._generation):
            try:
                async for event in self._events:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        started = True
                    await say(event)
            except ApiError as error:
                await self._refuse(error, started, scope, receive, send)
            else:
                await say("", more=False)

    async def _refuse(self, error: ApiError, started: bool, scope: Scope, receive: Receive, send: Send) -> None:
        if not started:
            await error_response(error)(scope, receive, send)
            return
        text = json.dumps({"error": error.message} if self._lines else error.body)
        event = f"{text}\n" if self._lines else f"data: {text}\n\n"
        await send({"type": "http.response.body", "body": event.encode(), "more_body": False})


def data(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def serving(request: Request) -> Serving:
    """The server that a request came to."""
    found: Serving = request.app.state.serving
    return found


def note(request: Request) -> dict[str, Any]:
    """What the log says of a request besides the usual."""
    found: dict[str, Any] = request.scope.get("state", {}).setdefault("note", {})
    return found
