"""A tiny model with a tokenizer of its own, and a server around it, for the tests of `kringle.serve`."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from test_generation_engine import random_model

from kringle.model.exchange import save
from kringle.serve.app import build
from kringle.serve.models import ModelOptions, NativeModel, ServedModel
from kringle.serve.run import Server, listen, url
from kringle.serve.settings import Settings
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer

CONTEXT = 256
VOCABULARY = 400
OPTIONS = ModelOptions(rows=4, waiting=8, precision="fp32", invariant=True, prefix_bytes=1 << 24)


def texts() -> list[str]:
    """This package's own sources: code with words, indentation and all."""
    import kringle.generation as room

    return [path.read_text(encoding="utf-8") for path in sorted(Path(room.__file__).parent.glob("*.py"))[:6]]


def make_tokenizer(folder: Path) -> Tokenizer:
    return train_tokenizer([*texts(), "häßlich 世界 🍰 " * 5], VOCABULARY, folder)


def make_model(*, ends: bool = True, context: int = CONTEXT, attention: str = "mqa") -> torch.nn.Module:
    """Random weights; without `ends` no completion ends itself."""
    model = random_model(attention, vocab_size=VOCABULARY + 8, context=context, spread=0.3)
    if not ends:
        with torch.no_grad():
            model.transformer.ln_f.bias[0] = 5
            model.transformer.wte.weight[:, 0] = 0
            model.transformer.wte.weight[VOCABULARY : VOCABULARY + 5] = 0
            model.transformer.wte.weight[VOCABULARY : VOCABULARY + 5, 0] = -10
    return model


def native(folder: Path, name: str = "tiny", *, options: ModelOptions = OPTIONS, **shape: Any) -> NativeModel:
    return NativeModel(name, make_model(**shape), make_tokenizer(folder), options)  # type: ignore[arg-type]


def saved(folder: Path, **shape: Any) -> Path:
    """A model's folder."""
    save(make_model(**shape), make_tokenizer(folder / "tokenizer"), folder / "model")  # type: ignore[arg-type]
    return folder / "model"


@contextmanager
def running(models: Sequence[ServedModel], settings: Settings | None = None, **options: Any) -> Iterator[str]:
    """A server on a free port of this machine; gives its address. The models are closed at the end."""
    app = build(models, settings or Settings(), **options)
    server = Server(app, grace=5)
    sock = listen("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield url(sock)
    finally:
        server.should_exit = True
        thread.join(30)
        sock.close()


def until(happens: Any, seconds: float = 30.0) -> None:
    """Wait for something that is bound to happen."""
    limit = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Any]:
        """The JSON of server-sent events, without the closing mark."""
        lines = [line.removeprefix("data:").strip() for line in self.text.split("\n") if line.startswith("data:")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def call(
    address: str, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """One request; a body that is no string of bytes is sent as JSON."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        sent = {} if body is None else {"content-type": "application/json"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        if "host" in sent:
            connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if data is not None:
                connection.putheader("content-length", str(len(data)))
            connection.endheaders(data)
        else:
            connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read().decode())
    finally:
        connection.close()
