"""A small corpus, tokenizer and store that the tests of tokens, batches and training share."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer
from kringle.training.batches import Batches

VOCAB_SIZE = 320
CONTEXT = 32


@dataclass(frozen=True)
class Fim:
    rate: float = 0.5
    spm: float = 0.5


@dataclass(frozen=True)
class Settings:
    """Training settings as a recipe would give them, with a small run as default."""

    steps: int = 12
    batch_tokens: int = 4 * CONTEXT
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup: float = 0.1
    decay: float = 0.2
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip: float = 1.0
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    fim: Fim = field(default_factory=Fim)
    micro_batch_tokens: int | None = None
    recompute: bool = False
    compile: Literal["auto", "never"] = "auto"
    on_divergence: Literal["stop", "skip"] = "stop"
    decay_steps: int | None = None

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_tokens

    @property
    def horizon(self) -> int:
        return self.decay_steps or self.steps


def document_id(text: str) -> str:
    """Git blob SHA-1 of the text."""
    raw = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


@functools.cache
def texts() -> tuple[str, ...]:
    """Source code with characters of every UTF-8 length, from 1 token to many pieces."""
    functions = [
        f'def naïve_{name}(größe, 値):\n    """Rechnet {name} – {i} × 値 → 🍰."""\n    return größe * {i} + 値[{i}]\n\n'
        for i, name in enumerate(("summe", "anteil", "länge", "höhe", "дата", "時間", "x", "y"))
    ]
    long = ["".join(functions[i:] + functions[:i]) * (1 + i % 3) for i in range(len(functions))]
    return (*long, *functions, "x", "🍰", "\n", "    pass\n", "a = 1\n" * 40)


@functools.cache
def tokenizer() -> Tokenizer:
    folder = Path(tempfile.mkdtemp(prefix="kringle-tests-"))
    return train_tokenizer(iter(texts()), VOCAB_SIZE, folder)


def write_store(folder: Path, contents: Sequence[str] | None = None) -> TokenStore:
    """A store of these texts, in this order."""
    contents = texts() if contents is None else contents

    def documents() -> Iterator[tuple[str, str, int, np.ndarray]]:
        for text, ids in zip(contents, tokenizer().encode_batch(contents), strict=True):
            yield document_id(text), "python", len(text.encode()), ids

    return TokenStore.write(folder, documents(), vocab_size=VOCAB_SIZE, tokenizer=tokenizer().checksum)


@functools.cache
def store() -> TokenStore:
    return write_store(Path(tempfile.mkdtemp(prefix="kringle-tests-")) / "store")


def batches(view: Sequence[int] | None = None, settings: Settings | None = None, **changes: Any) -> Batches:
    """Batches over the shared store, or over `changes["store"]`."""
    settings = settings or Settings()
    given = {
        "context": CONTEXT,
        "batch_tokens": settings.batch_tokens,
        "fim": settings.fim,
        "seed": 0,
        "store": store(),
        "tokenizer": tokenizer(),
        **changes,
    }
    s, t = given.pop("store"), given.pop("tokenizer")
    return Batches(s, range(len(s)) if view is None else view, t, **given)


def model_config(attention: Literal["mqa", "mha"] = "mqa", **changes: Any) -> ModelConfig:
    """A tiny model for the shared tokenizer."""
    shape = {"layers": 2, "width": 16, "heads": 4, "context": CONTEXT, **changes}
    vocabulary = shape.pop("vocab_size", padded_vocabulary(tokenizer().vocab_size))
    return ModelConfig(attention=attention, vocab_size=vocabulary, **shape)
