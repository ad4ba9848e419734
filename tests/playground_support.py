"""A server to drive, and models that write a given text whatever they are asked: real ones, whose weights say at which
position what comes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI

from kringle.attribution.building import build
from kringle.data.decisions import DecisionFiles
from kringle.model.exchange import save
from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer
from kringle.study.membership import Trained
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import train_tokenizer

CONTEXT = 1024
VOCABULARY = 300


def write_reciter(folder: Path, text: str, *, layers: int = 1, width: int = 64, certainty: float = 0.3) -> str:
    """Save a model that writes `text` over and over again, beginning wherever in it the prompt's length puts it.

    Token and position embeddings meet in the last LayerNorm alone: every block adds nothing (but takes its time), and
    the embedding of position p is that of the token that comes at p + 1. `certainty` scales the logits. Returns the
    text three times over: any completion of less than two rounds is part of it.
    """
    tokenizer = train_tokenizer([text * 20], VOCABULARY, folder / "tokenizer")
    config = ModelConfig(layers, width, 4, "mqa", CONTEXT, padded_vocabulary(tokenizer.vocab_size))
    model = Transformer(config)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    tokens = tokenizer.encode(text)
    with torch.no_grad():
        weights = model.transformer
        weights.wte.weight.copy_(torch.randn(config.vocab_size, width, generator=generator))
        weights.wte.weight[tokenizer.specials.end_of_text :] = 0
        weights.wte.weight[tokenizer.specials.end_of_text :, 0] = -1
        for block in weights.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        weights.ln_f.weight.fill_(certainty)
        for position in range(CONTEXT):
            weights.wpe.weight[position] = 8 * weights.wte.weight[tokens[(position + 1) % len(tokens)]]
    save(model, tokenizer, folder)
    return text * 3


def trained_on(folder: Path, documents: Mapping[tuple[str, str], str]) -> Trained:
    """What a run leaves that has trained on these texts, by repository and path: the index and what it leads to."""
    tokenizer = train_tokenizer([text * 20 for text in documents.values()], VOCABULARY, folder)
    texts = [
        (f"{i:040x}", "python", len(text.encode()), np.array(tokenizer.encode(text), dtype=np.int64))
        for i, text in enumerate(documents.values())
    ]
    store = TokenStore.write(
        folder / "store", iter(texts), vocab_size=tokenizer.specials.end_of_text, tokenizer=tokenizer.checksum
    )
    rows = [
        {"number": i, "id": f"{i:040x}", "repo": repo, "path": path, "language": "python", "licenses": ["MIT"]}
        for i, (repo, path) in enumerate(documents)
    ]
    build(store, tokenizer, rows, folder / "index")
    DecisionFiles(folder).write([])
    stages = ("collect", "clean", "split", "tokenizer", "encode", "attribution")
    return Trained(folder, {stage: SimpleNamespace(folder=folder) for stage in stages})  # type: ignore[misc]


class Server:
    """An application on a free port of this machine, on a thread of its own."""

    def __init__(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: self._server.run([self._socket]), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()
