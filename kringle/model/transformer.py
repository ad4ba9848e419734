"""The transformer: GPT-2's decoder as SantaCoder trained it, multi-query or multi-head attention behind one switch.

Covers: the architecture of `gpt_bigcode` (pre-LayerNorm blocks, biases everywhere, learned absolute positions, tanh
GELU, embedding tied to the output), rotary positions instead of learned ones, dropout, its initialisation, document
masks, a loss summed over valid tokens, exact counts of parameters and FLOPs. Does not cover: sampling
(`kringle.generation`), storage (`kringle.model.exchange`), parallelism. Parameter names and tensor layouts are those of
`transformers`' GPTBigCode, so saving is writing.

Shapes: B rows, T positions, E width, H heads, D = E / H head size, G key-value heads (1 for multi-query, H for
multi-head), V vocabulary rows, L layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kringle.model.packed import Spans, gelu, linear, span_attention
from kringle.model.shape import ModelConfig
from kringle.randomness import torch_seed

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

LAYER_NORM_EPSILON = 1e-5  # SantaCoder's config.json
ROTARY_BASE = 10_000.0  # RoFormer (Su et al., 2021), section 3.3

Mask = Union[Tensor, Spans, "BlockMask", None]
"""What keeps attention where it belongs; see `Attention.forward`."""
Rotation = tuple[Tensor, Tensor]
"""Cosine and sine (.., D / 2) of the angles by which queries and keys at each position are turned."""


class Attention(nn.Module):
    """Causal self-attention; rows of `c_attn` are [Q | K | V] for MQA, (head, 3, D) for MHA, as GPTBigCode stores."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        e = config.width
        self.c_attn = nn.Linear(e, e + 2 * config.key_value_heads * config.head_size)
        self.c_proj = nn.Linear(e, e)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, E) -> queries (B, H, T, D), keys and values (B, G, T, D)."""
        b, t, e = x.shape
        h, d = self.config.heads, self.config.head_size
        fused = self.c_attn(x)
        if self.config.attention == "mqa":
            q, k, v = fused.split((e, d, d), dim=-1)
            return q.view(b, t, h, d).transpose(1, 2), k.unsqueeze(1), v.unsqueeze(1)
        q, k, v = fused.view(b, t, h, 3, d).unbind(dim=3)  # each (B, T, H, D)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, mask: Mask, rotation: Rotation | None = None) -> Tensor:
        """x (B, T, E); mask (B, 1, T, T), True where a query (row) may see a key (column); None means causal.

        A block mask is FlexAttention's: fast where the block is compiled for a GPU, right but slow elsewhere. With
        spans instead of a mask, x is (N, E): pieces end to end, each attending to itself alone.
        """
        if isinstance(mask, tuple):
            return self._within(x, mask, rotation)
        q, k, v = self.project(x)
        if rotation is not None:
            turn = (rotation[0].unsqueeze(1), rotation[1].unsqueeze(1))  # (B, 1, T, D / 2)
            q, k = rotate(q, turn), rotate(k, turn)
        shared = self.config.attention == "mqa"
        if mask is None or isinstance(mask, Tensor):
            dropout = self.config.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared, dropout_p=dropout
            )
        else:
            from torch.nn.attention.flex_attention import flex_attention  # half a second to import

            found: Any = flex_attention(q, k, v, block_mask=mask, enable_gqa=shared)
            y = found
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(x.shape))
        return out

    def _within(self, x: Tensor, spans: Spans, rotation: Rotation | None) -> Tensor:
        """x (N, E) -> (N, E); see `span_attention` for the order of the queries."""
        n, e = x.shape
        h, d = self.config.heads, self.config.head_size
        fused = linear(x, self.c_attn.weight, self.c_attn.bias)
        if self.config.attention == "mqa":
            q, k, v = torch.split(fused, [e, d, d], dim=-1)
            if rotation is not None:
                q = rotate(q.view(n, h, d), (rotation[0][:, None], rotation[1][:, None]))
                k = rotate(k, rotation)
            y = span_attention(q.reshape(1, n * h, d), k[None], v[None], spans).view(n, e)
        else:
            q, k, v = fused.view(n, h, 3, d).permute(2, 1, 0, 3).contiguous().unbind(0)  # each (H, N, D)
            if rotation is not None:
                q, k = rotate(q, rotation), rotate(k, rotation)
            y = span_attention(q, k, v, spans).transpose(0, 1).reshape(n, e)
        return linear(y, self.c_proj.weight, self.c_proj.bias)


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor, packed: bool = False) -> Tensor:
        if packed:
            return linear(gelu(linear(x, self.c_fc.weight, self.c_fc.bias)), self.c_proj.weight, self.c_proj.bias)
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        rotation: Rotation | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The residual stream x and its sum stay as they are; the two branches are computed in `dtype`, if given."""
        x = x + self._drop(self.attn(self.ln_1(x).to(dtype or x.dtype), mask, rotation))
        return x + self._drop(self.mlp(self.ln_2(x).to(dtype or x.dtype), packed=isinstance(mask, tuple)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """Embeddings, blocks and final LayerNorm; its parameter names are GPTBigCode's `transformer.*`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.width)
        if config.positions == "learned":
            self.wpe = nn.Embedding(config.context, config.width)
        self.h = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)


class Transformer(nn.Module):
    """A GPT-2-style decoder. `Transformer(config)` holds memory only; `initialise(seed)` draws the weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Decoder(config)
        self.recompute = False  # blocks' activations in the backward pass instead of keeping them: a third more time

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, E) of tokens (B, T) at positions (B, T); with spans for a mask, (N, E) of (N,).

        With spans, `dtype` is the type of the blocks' arithmetic; the residual stream keeps the weights' own.
        """
        x = self.transformer.wte(tokens)
        rotation = None
        if self.config.positions == "learned":
            x = x + self.transformer.wpe(positions)
        else:
            rotation = angles(positions, self.config.head_size, dtype or x.dtype)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        for block in self.transformer.h:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, rotation, dtype, use_reentrant=False)
            else:
                x = block(x, mask, rotation, dtype)
        out: Tensor = self.transformer.ln_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., E) -> (.., V) through the tied embedding."""
        return F.linear(hidden, self.transformer.wte.weight)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V). Without positions the rows count from 0; without a mask attention is causal."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return self.logits(self.hidden(tokens, positions, mask))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every tensor from (seed, its name): two arms share all tensors whose name and shape they have in common.

        N(0, 0.022) for weights and both embeddings, N(0, 0.022 / sqrt(2 L)) for the two projections back into the
        residual stream, biases 0, LayerNorm 1 and 0 (Megatron-LM fork, SantaCoder's script). 0.022 is 1/sqrt(2048) as
        the script rounds it; a width other than SantaCoder's keeps that rule, 1/sqrt(E).
        """
        std = 0.022 if self.config.width == 2048 else 1.0 / math.sqrt(self.config.width)
        for name, parameter in self.named_parameters():
            if ".ln_" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("c_attn.weight"):
                parameter.copy_(self._fuse(*(self._draw(seed, f"{name}.{part}", std) for part in ("q", "k", "v"))))
            else:
                scale = std / math.sqrt(2 * self.config.layers) if name.endswith("c_proj.weight") else std
                parameter.copy_(self._draw(seed, name, scale))

    def _draw(self, seed: int, name: str, std: float) -> Tensor:
        """One float32 tensor; queries, keys and values of a fused weight are tensors of their own, so that multi-query
        and multi-head models share their queries."""
        e = self.config.width
        shape: tuple[int, ...]
        if name.endswith((".k", ".v")):
            shape = (self.config.key_value_heads * self.config.head_size, e)
        elif name.endswith(".q"):
            shape = (e, e)
        else:
            shape = tuple(self.get_parameter(name).shape)
        generator = torch.Generator().manual_seed(torch_seed(seed, "initialise", name))
        return torch.empty(shape, dtype=torch.float32).normal_(0.0, std, generator=generator)

    def _fuse(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Separate projections (rows, E) in the row order of `c_attn`."""
        if self.config.attention == "mqa":
            return torch.cat((q, k, v))
        h, d, e = self.config.heads, self.config.head_size, self.config.width
        return torch.stack([x.view(h, d, e) for x in (q, k, v)], dim=1).reshape(3 * e, e)


def angles(positions: Tensor, head_size: int, dtype: torch.dtype) -> Rotation:
    """Cosine and sine (.., D / 2) for positions (..), worked out in float32 at least."""
    frequencies = ROTARY_BASE ** (
        -torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float64) / head_size
    )
    turned = positions.double()[..., None] * frequencies
    return turned.cos().to(dtype), turned.sin().to(dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn x (.., D): its halves are the two coordinates of D / 2 planes (the layout of GPT-NeoX and Llama)."""
    cosine, sine = rotation
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x.dtype)


def document_mask(segments: Tensor) -> Tensor:
    """Causal mask (B, 1, T, T) that keeps each position inside its own segment; segments (B, T) are segment numbers."""
    t = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    return (same & torch.ones(t, t, dtype=torch.bool, device=segments.device).tril())[:, None]


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats over positions whose target is not -100; logits (.., V), targets (..)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide.flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="sum")
