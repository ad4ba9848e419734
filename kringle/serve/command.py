"""`kringle serve`: load, listen, say where, serve until told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.serve.app import build
from kringle.serve.journal import Journal, standard_error
from kringle.serve.models import DEFAULT_WORK, ModelOptions, ServedModel, open_models
from kringle.serve.run import listen, run, url
from kringle.serve.settings import Settings


@dataclass(frozen=True)
class Listening:
    """A server that has started."""

    url: str
    models: Sequence[ServedModel]
    keys: int

    def lines(self) -> list[str]:
        """For people: where, what, and the next step."""
        names = [
            f"  {model.name}: {model.parameters:,} parameters, {model.context:,} tokens, by {model.engine}"
            + ("" if model.fills_gaps else ", cannot fill in")
            for model in self.models
        ]
        key = " -H 'Authorization: Bearer KEY'" if self.keys else ""
        return [
            f"serving at {self.url}",
            *names,
            "try it:",
            f"  curl {self.url}/v1/completions{key} -H 'content-type: application/json' "
            '-d \'{"prompt": "def fib(n):\\n", "max_tokens": 32}\'',
            "editors: docs/editors.md has the settings; stop with Ctrl-C",
        ]

    def record(self) -> dict[str, Any]:
        return {"url": self.url, "models": [model.name for model in self.models], "keys": self.keys}


def serve_models(
    names: Sequence[str],
    options: ModelOptions,
    settings: Settings,
    *,
    host: str,
    port: int,
    grace: float,
    log: Path | None,
    work: Path | None = None,
    say: Callable[[Listening], None],
) -> None:
    """Serve until a signal. UserError, with nothing left open, for what cannot be loaded or listened on."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listen(host, port))  # before the models: a taken port is said at once
        journal = _journal(log, stack)
        models = open_models(names, options, work or DEFAULT_WORK)
        app = build(models, settings, journal=journal)
        listening = Listening(url(sock), models, len(settings.keys))
        run(app, sock, grace=grace, on_started=lambda: say(listening))


def _journal(log: Path | None, stack: contextlib.ExitStack) -> Journal:
    if log is None:
        return standard_error()
    try:
        return Journal(stack.enter_context(log.open("a", encoding="utf-8")))
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=str(log)) from None
