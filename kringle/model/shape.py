"""A model's shape, and what follows from it: parameters, memory, work. Loads no PyTorch, so asking costs no time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kringle.errors import UserError

FIM_KEY = "fim_training"  # our own key in `config.json`; `transformers` keeps what it does not know
VOCABULARY_MULTIPLE = 128  # Megatron pads the embedding to a multiple of 128 rows: 49,157 -> 49,280 (Megatron-LM fork)


@dataclass(frozen=True)
class FimTraining:
    """How a model was trained to fill in: the share of pieces that were rearranged, and of those the share with the
    suffix first (SPM). A rate of 0 is left-to-right training alone."""

    rate: float
    spm: float

    @classmethod
    def of(cls, configuration: Mapping[str, Any], where: str) -> FimTraining | None:
        """What a model's `config.json` says of it; None where it says nothing, as others' do not. UserError names the
        file `where`."""
        said = configuration.get(FIM_KEY)
        if said is None:
            return None
        try:
            return cls(float(said["rate"]), float(said["spm"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{FIM_KEY} is {said!r} ({error!r})", where=where) from error


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model. `vocab_size` counts embedding rows, padding included."""

    layers: int
    width: int
    heads: int
    attention: Literal["mqa", "mha"]
    context: int
    vocab_size: int
    positions: Literal["learned", "rotary"] = "learned"
    dropout: float = 0.0  # of embeddings, attention and both residual branches; SantaCoder's script has 0.1

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context", "vocab_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}", where="model")
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} is not divisible by {self.heads} heads", where="model", hint="change one of them"
            )
        if self.attention not in ("mqa", "mha"):
            raise UserError(f"attention is 'mqa' or 'mha', not '{self.attention}'", where="model")
        if self.positions not in ("learned", "rotary"):
            raise UserError(f"positions are 'learned' or 'rotary', not '{self.positions}'", where="model")
        if self.positions == "rotary" and self.head_size % 2:
            raise UserError(f"rotary positions need an even head size, not {self.head_size}", where="model")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be at least 0 and below 1, got {self.dropout}", where="model")

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        return 1 if self.attention == "mqa" else self.heads

    @property
    def parameters(self) -> int:
        """Exact number of trainable parameters (1,124,886,528 for SantaCoder, 1,313,722,368 for its MHA arm)."""
        e, kv = self.width, 2 * self.key_value_heads * self.head_size
        attention = e * (e + kv) + (e + kv) + e * e + e
        mlp = e * 4 * e + 4 * e + 4 * e * e + e
        norms = 4 * e
        table = self.context * e if self.positions == "learned" else 0
        return self.vocab_size * e + table + self.layers * (attention + mlp + norms) + 2 * e

    @property
    def key_value_bytes_per_token(self) -> int:
        """Size of the key-value cache per token in 16-bit precision (12,288 for SantaCoder, 196,608 for MHA)."""
        return self.layers * 2 * self.key_value_heads * self.head_size * 2

    def flops_per_token(self, context: int | None = None) -> int:
        """Training FLOPs per token: 6 a matmul weight, 12 L E T of attention (PaLM appendix B, causal not halved)."""
        e, kv = self.width, 2 * self.key_value_heads * self.head_size
        matmul = self.layers * (e * (e + kv) + e * e + 8 * e * e) + self.vocab_size * e
        return 6 * matmul + 12 * self.layers * e * (context or self.context)


def padded_vocabulary(size: int) -> int:
    """Embedding rows for a vocabulary of `size` ids, specials included: the next multiple of 128."""
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def model_name(folder: Path) -> str:
    """What a model is called: the name of its folder, or of the link to it, since a workspace's links all lead to
    folders called `model`."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100 - `resolve` would follow the link
