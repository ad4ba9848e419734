"""The transformer's forward pass with a cache: whole prompts at once, then one token per row and step.

Covers: keys and values of R rows in preallocated memory, prompts whose keys and values many rows share, and the step
that feeds one token to each row. Multi-query keys and values are never expanded to the heads: the heads that share a
key are folded into the query axis, so each key is read once for all of them. Does not cover: which rows exist and what
is drawn (`kringle.generation.engine`), training (`kringle.model.transformer`, whose parameters are used by name).

Shapes: R rows, G key-value heads (1 for multi-query, H for multi-head), Q query heads per key-value head (H / G), D
head size, E width, P positions of a prompt, C columns of a row's own keys, L layers, V ids that may be drawn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.errors import UserError
from kringle.model.transformer import LAYER_NORM_EPSILON, ModelConfig, Rotation, Transformer, angles, rotate


class Affine(NamedTuple):
    """Weight and bias of a linear map or of a LayerNorm."""

    weight: Tensor
    bias: Tensor

    def linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPSILON)


class Layer(NamedTuple):
    """The parameters of one block."""

    ln_1: Affine
    attention_in: Affine
    attention_out: Affine
    ln_2: Affine
    mlp_in: Affine
    mlp_out: Affine


class Prompt(NamedTuple):
    """A prompt after its forward pass."""

    keys: Tensor  # (L, G, P, D)
    values: Tensor  # (L, G, P, D)
    logits: Tensor  # (V,) of the first new token

    @property
    def length(self) -> int:
        return self.keys.shape[2]


class Sharing(NamedTuple):
    """A prompt and the rows that attend to it."""

    prompt: Prompt
    rows: Tensor | None  # (n,) int64; None means all rows, in order


class Scores(NamedTuple):
    """Memory for the scores of one layer of one step, and what is masked in it."""

    all: Tensor  # (R, G, Q, longest shared prompt + columns in use); what no layer writes to is -infinity
    mask: Tensor  # (R, 1, 1, columns in use): 0 where a row may look, -infinity elsewhere
    longest: int


class Decoder:
    """A model with keys and values of `rows` rows of `columns` tokens; ids from `vocab_size` on are never scored."""

    def __init__(self, model: Transformer, *, rows: int, columns: int, vocab_size: int) -> None:
        self.config: ModelConfig = model.config
        named = dict(model.named_parameters())

        def affine(name: str) -> Affine:
            return Affine(named[f"transformer.{name}.weight"], named[f"transformer.{name}.bias"])

        parts = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        self.layers = [Layer(*(affine(f"h.{i}.{part}") for part in parts)) for i in range(self.config.layers)]
        self.final = affine("ln_f")
        self.token_embedding = named["transformer.wte.weight"]
        self.position_embedding = named.get("transformer.wpe.weight")  # None with rotary positions
        self.output = self.token_embedding[:vocab_size]
        self.scale = 1.0 / math.sqrt(self.config.head_size)
        self.allocate(rows, columns)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.device

    @torch.inference_mode()
    def allocate(self, rows: int, columns: int) -> None:
        c = self.config
        shape = (c.layers, rows, c.key_value_heads, columns, c.head_size)
        dtype = self.token_embedding.dtype
        try:
            # Masked columns are multiplied by probability 0, which hides what they hold only if that is finite.
            self.keys = torch.zeros(shape, dtype=dtype, device=self.device)
            self.values = torch.zeros(shape, dtype=dtype, device=self.device)
            self.logits = torch.empty((rows, self.output.shape[0]), dtype=dtype, device=self.device)
        except RuntimeError as error:
            raise UserError(
                f"no memory for keys and values of {rows} rows of {columns} tokens",
                where="sampling",
                hint="use fewer rows or fewer new tokens",
            ) from error

    @torch.inference_mode()
    def prefill(self, tokens: list[int]) -> Prompt:
        """Run a prompt (P,) alone, so that nothing else in flight can change its result by a rounding."""
        c = self.config
        ids = torch.tensor(tokens, device=self.device)
        x, rotation = self._embed(ids, torch.arange(len(tokens), device=self.device))
        keys, values = [], []
        for layer in self.layers:
            q, k, v = self._split(
                layer.attention_in.linear(layer.ln_1.normalise(x)), rotation
            )  # (P, G, Q, D), (P, G, D), (P, G, D)
            k, v = k.transpose(0, 1), v.transpose(0, 1)  # (G, P, D)
            # Stride 0 instead of a copy: each key-value head appears once per query head that reads it.
            heads = (c.key_value_heads, c.heads // c.key_value_heads, len(tokens), c.head_size)
            y = F.scaled_dot_product_attention(
                q.permute(1, 2, 0, 3).reshape(1, c.heads, len(tokens), c.head_size),
                k[:, None].expand(heads).flatten(0, 1)[None],
                v[:, None].expand(heads).flatten(0, 1)[None],
                is_causal=True,
            )
            x = self._finish(layer, x, y[0].transpose(0, 1).reshape(x.shape))
            keys.append(k)
            values.append(v)
        logits = F.linear(self.final.normalise(x[-1]), self.output)
        return Prompt(torch.stack(keys), torch.stack(values), logits)

    @torch.inference_mode()
    def store(self, prompt: Prompt, rows: Tensor) -> None:
        """Copy a prompt into the rows' own columns, for rows (n,) that do not share it."""
        self.keys[:, rows, :, : prompt.length] = prompt.keys[:, None]
        self.values[:, rows, :, : prompt.length] = prompt.values[:, None]

    @torch.inference_mode()
    def move(self, source: Tensor, target: Tensor, columns: int) -> None:
        """Copy the first columns of rows `source` (n,) to rows `target` (n,)."""
        for cache in (self.keys, self.values):
            cache[:, target, :, :columns] = cache[:, source, :, :columns]

    @torch.inference_mode()
    def step(self, tokens: Tensor, positions: Tensor, columns: Tensor, sharings: list[Sharing]) -> Tensor:
        """Feed tokens (R,) at positions (R,) to the first R rows, writing their keys at columns (R,).

        Returns logits (R, V) of the next token, valid until the next call.
        """
        rows = tokens.shape[0]
        used = int(columns.max()) + 1
        index = torch.arange(rows, device=self.device)
        scores = self._scores(columns, used, sharings)
        x, rotation = self._embed(tokens, positions)
        for number, layer in enumerate(self.layers):
            q, k, v = self._split(layer.attention_in.linear(layer.ln_1.normalise(x)), rotation)
            keys, values = self.keys[number], self.values[number]
            keys[index, :, columns], values[index, :, columns] = k, v
            y = self._attend(q, keys[:rows, :, :used], values[:rows, :, :used], scores, number, sharings)
            x = self._finish(layer, x, y)
        return torch.mm(self.final.normalise(x), self.output.t(), out=self.logits[:rows])

    def _embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Rotation | None]:
        """Tokens (N,) at positions (N,) -> (N, E), and the rotation of their queries and keys where positions turn."""
        x = F.embedding(tokens, self.token_embedding)
        if self.position_embedding is not None:
            return x + F.embedding(positions, self.position_embedding), None
        cosine, sine = angles(positions, self.config.head_size, x.dtype)
        return x, (cosine[:, None], sine[:, None])

    def _split(self, fused: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Output of c_attn (N, ..) -> queries (N, G, Q, D), keys and values (N, G, D)."""
        q, k, v = self._parts(fused)
        if rotation is not None:
            cosine, sine = rotation  # (N, 1, D / 2)
            q, k = rotate(q, (cosine[:, None], sine[:, None])), rotate(k, rotation)
        return q, k, v

    def _parts(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, e, h, d = fused.shape[0], self.config.width, self.config.heads, self.config.head_size
        if self.config.attention == "mqa":
            q, k, v = torch.split(fused, [e, d, d], dim=-1)
            return q.view(n, 1, h, d), k.view(n, 1, d), v.view(n, 1, d)
        q, k, v = fused.view(n, h, 3, d).unbind(2)
        return q[:, :, None], k, v

    def _finish(self, layer: Layer, x: Tensor, y: Tensor) -> Tensor:
        """The rest of a block: x (N, E) and the heads' outputs (N, E) -> (N, E)."""
        x = x + layer.attention_out.linear(y)
        out: Tensor = x + layer.mlp_out.linear(_gelu(layer.mlp_in.linear(layer.ln_2.normalise(x))))
        return out

    def _scores(self, columns: Tensor, used: int, sharings: list[Sharing]) -> Scores:
        c, rows = self.config, columns.shape[0]
        longest = max((sharing.prompt.length for sharing in sharings), default=0)
        shape = (rows, c.key_value_heads, c.heads // c.key_value_heads, longest + used)
        scores = torch.full(shape, -math.inf, dtype=self.keys.dtype, device=self.device)
        unseen = torch.arange(used, device=self.device) > columns[:, None]
        mask = torch.zeros_like(unseen, dtype=scores.dtype).masked_fill_(unseen, -math.inf)
        return Scores(scores, mask[:, None, None], longest)

    def _attend(
        self, q: Tensor, keys: Tensor, values: Tensor, scores: Scores, layer: int, sharings: list[Sharing]
    ) -> Tensor:
        """Queries (R, G, Q, D) over own keys and values (R, G, C, D) and shared prompts -> (R, E)."""
        rows, g, heads, d = q.shape
        q = q * self.scale
        own = torch.bmm(q.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(rows, g, heads, -1)
        torch.add(own, scores.mask, out=scores.all[..., scores.longest :])
        for prompt, members in sharings:
            folded = _fold(q if members is None else q[members])
            part = _unfold(torch.bmm(folded, prompt.keys[layer].transpose(1, 2)), heads)  # (n, G, Q, P)
            scores.all[slice(None) if members is None else members, :, :, : prompt.length] = part
        weights = torch.softmax(scores.all, dim=-1, dtype=torch.float32).to(q.dtype)  # `transformers` uses float32 too
        y = torch.bmm(weights[..., scores.longest :].flatten(0, 1), values.flatten(0, 1)).view(rows, g, heads, d)
        for prompt, members in sharings:
            seen = weights[..., : prompt.length] if members is None else weights[members, :, :, : prompt.length]
            part = _unfold(torch.bmm(_fold(seen), prompt.values[layer]), heads)
            if members is None:
                y += part
            else:
                y.index_add_(0, members, part)
        return y.view(rows, -1)


def _gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form. On a CPU tanh takes as long as the matrix product before it; x * sigmoid(2 z) is the same
    function, x * (1 + tanh(z)) / 2 with z = sqrt(2 / pi) * (x + 0.044715 x^3), and takes half the time."""
    if x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    linear = math.sqrt(8 / math.pi)
    return (x * x).mul_(0.044715 * linear).add_(linear).mul_(x).sigmoid_().mul_(x)


def _fold(x: Tensor) -> Tensor:
    """(n, G, Q, K) -> (G, n * Q, K): every query of a key-value head against one matrix."""
    return x.transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, heads: int) -> Tensor:
    """(G, n * Q, K) -> (n, G, Q, K)."""
    return x.view(x.shape[0], -1, heads, x.shape[2]).transpose(0, 1)
