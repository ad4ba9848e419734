"""`kringle serve`: load, listen, say where, serve until told to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.serve import editor, playground
from kringle.serve.app import build
from kringle.serve.attribution import Attribution, router
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
    documents: int | None = None  # in the attribution index, where there is one
    no_attribution: str = ""  # why there is none, although there is a workspace
    no_editor: str = ""  # why the playground has a plain text field

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
            *([] if self.documents is None else [f"  attribution to {self.documents:,} training documents"]),
            *([f"  no attribution: {self.no_attribution}"] if self.no_attribution else []),
            f"playground: {self.url}/playground/",
            *([f"  with a plain text field, {self.no_editor}"] if self.no_editor else []),
            "try it:",
            f"  curl {self.url}/v1/completions{key} -H 'content-type: application/json' "
            '-d \'{"prompt": "def fib(n):\\n", "max_tokens": 32}\'',
            "editors: docs/editors.md has the settings; stop with Ctrl-C",
        ]

    def record(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "models": [model.name for model in self.models],
            "keys": self.keys,
            "documents": self.documents,
        }


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
    """Serve until a signal; `work` is the workspace whose attribution index is served too. UserError, with nothing left
    open, for what cannot be loaded or listened on."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listen(host, port))  # before the models: a taken port is said at once
        journal = _journal(log, stack)
        models = open_models(names, options, work or DEFAULT_WORK)
        attribution, no_attribution = _attribution(names, work)
        no_editor = _fetch_editor(journal)
        extras = [playground.router(attribution=attribution is not None)]
        if attribution is not None:
            extras.append(router(attribution))
        app = build(models, settings, extras, attributor=attribution, open_paths=playground.OPEN_PATHS, journal=journal)
        documents = None if attribution is None else len(attribution.trained.index)
        listening = Listening(url(sock), models, len(settings.keys), documents, no_attribution, no_editor)
        run(app, sock, grace=grace, on_started=lambda: say(listening))


def _attribution(names: Sequence[str], work: Path | None) -> tuple[Attribution | None, str]:
    """The index of the workspace, and why there is none where it has none. The default workspace is asked for its own
    models alone: where the text of others comes from, it cannot know."""
    if work is None:
        places = [Path(name.partition("=")[2] or name).expanduser() for name in names]
        if not any(DEFAULT_WORK in place.parents or not place.exists() for place in places):
            return None, ""
    try:
        return Attribution.open(work or DEFAULT_WORK), ""
    except UserError as error:
        return None, str(error)


def _fetch_editor(journal: Journal) -> str:
    """Fetch the playground's code editor where it is not there yet; why that cannot be, or ""."""
    if editor.load() is None:
        journal.write("fetching", what="the playground's code editor, once, from npm")
        os.environ.setdefault("npm_config_fetch_retries", "0")  # without a network, starting shall not take minutes
        try:
            editor.fetch()
        except UserError as error:
            return f"because its code editor cannot be had: {error}"
    return ""


def _journal(log: Path | None, stack: contextlib.ExitStack) -> Journal:
    if log is None:
        return standard_error()
    try:
        return Journal(stack.enter_context(log.open("a", encoding="utf-8")))
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=str(log)) from None
