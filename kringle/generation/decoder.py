"""The transformer's forward pass with a cache: whole prompts at once, then one token per row and step.

Covers: keys and values of R rows in preallocated memory, prompts whose keys and values many rows share, and the step
that feeds one token to each row. Multi-query keys and values are never expanded to the heads: the heads that share a
key are folded into the query axis, so each key is read once for all of them. Does not cover: which rows exist and what
is drawn (`kringle.generation.engine`), training (`kringle.model.transformer`, whose parameters are used by name).

Shapes: R rows, G key-value heads (1 for multi-query, H for multi-head), Q query heads per key-value head (H / G), D
head size, E width, P positions of a prompt, C columns of a row's own keys, L layers, V ids that may be drawn.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.errors import UserError
from kringle.generation.memory import aligned
from kringle.generation.weights import Matrix, Precision, Streams, choose_precision, effective
from kringle.model.shape import ModelConfig
from kringle.model.transformer import LAYER_NORM_EPSILON, Rotation, Transformer, angles, rotate

BLOCK = 64  # tokens of a prompt that are run at once where bits must not depend on which of them were known
NOBODY = -1  # owner of a column that belongs to no shared prompt
NONE_SHARED = -2  # what a row that shares no prompt looks for among the owners
FEW = 4  # up to as many rows, streaming the weights through one kernel beats the library's blocked products


class Norm(NamedTuple):
    """Weight and bias of a LayerNorm, float32."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPSILON)


class Layer(NamedTuple):
    """The parameters of one block."""

    ln_1: Norm
    attention_in: Matrix
    attention_out: Matrix
    ln_2: Norm
    mlp_in: Matrix
    mlp_out: Matrix


class Blocked(NamedTuple):
    """The whole model for many rows."""

    layers: list[Layer]
    final: Norm
    embedding: Tensor  # (V, E)
    positions: Tensor | None  # (context, E) float32; None with rotary positions
    output: Matrix


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

    all: Tensor  # (R, G, Q, longest shared prompt + columns in use, both aligned); what no layer writes to is -infinity
    mask: Tensor  # (R, 1, 1, columns in use): 0 where a row may look, -infinity elsewhere
    longest: int


Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Queries (R, G, Q, D), a layer's own keys and values (R, G, C, D) and its number -> (R, E)."""


class Shared(NamedTuple):
    """All shared prompts side by side in memory of a fixed size S, for `Decoder.fixed_step`."""

    keys: Tensor  # (L, G, S, D); where no prompt is, any finite numbers
    values: Tensor  # (L, G, S, D)
    owners: Tensor  # (S,) int64: the number of the prompt that a column belongs to, `NOBODY` where there is none


class Decoder:
    """A model with keys and values of `rows` rows of `columns` tokens; ids from `vocab_size` on are never scored.

    `precision` None is that of the model's parameters. `few`: steps of at most so many rows go through the streaming
    kernel (`kringle.generation.row_kernel`), which rounds differently than the blocked products. With `invariant` all
    steps do, in tiles, and prompts run on one thread: then bits depend on neither rows nor threads.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        rows: int,
        columns: int,
        vocab_size: int,
        precision: Precision | None = None,
        few: int = 0,
        invariant: bool = False,
    ) -> None:
        self.config: ModelConfig = model.config
        self.model, self.vocab_size, self.rows = model, vocab_size, rows
        self.device = model.transformer.wte.weight.device
        own = "bf16" if model.transformer.wte.weight.dtype == torch.bfloat16 else "fp32"
        self.precision: Precision = precision or own  # type: ignore[assignment]
        native = choose_precision("auto", self.device) == "bf16"
        self.dtype = torch.bfloat16 if self.precision != "fp32" and native else torch.float32
        self.cached = torch.bfloat16 if self.precision == "bf16" and native else torch.float32  # keys and values
        learned = self.config.positions == "learned"  # the kernel knows no others
        possible = self.device.type == "cpu" and self.config.width % 2 == 0 and learned and _numba_is_installed()
        if invariant and not (possible and self.precision == "fp32"):
            raise UserError(
                "samples that do not depend on the number of rows need a CPU, fp32, numba, an even width and learned "
                "positions",
                where="--invariant",
            )
        self.invariant, self.few = invariant, few if possible else 0
        self.scale = 1.0 / math.sqrt(self.config.head_size)
        self.allocate(rows, columns)

    @cached_property
    def blocked(self) -> Blocked:
        """The weights for many rows, made when first needed."""
        named = {name.removeprefix("transformer."): p.detach() for name, p in self.model.named_parameters()}

        def matrix(name: str) -> Matrix:
            weight = effective(named[f"{name}.weight"], self.precision)
            return Matrix(weight, named[f"{name}.bias"], self.dtype, self.rows)

        def norm(name: str) -> Norm:
            return Norm(named[f"{name}.weight"].float(), named[f"{name}.bias"].float())

        def layer(at: str) -> Layer:
            return Layer(
                norm(f"{at}.ln_1"),
                matrix(f"{at}.attn.c_attn"),
                matrix(f"{at}.attn.c_proj"),
                norm(f"{at}.ln_2"),
                matrix(f"{at}.mlp.c_fc"),
                matrix(f"{at}.mlp.c_proj"),
            )

        embedding = effective(named["wte.weight"][: self.vocab_size], self.precision)
        return Blocked(
            [layer(f"h.{i}") for i in range(self.config.layers)],
            norm("ln_f"),
            embedding,
            named["wpe.weight"].float() if self.config.positions == "learned" else None,
            Matrix(embedding, None, self.dtype, self.rows),
        )

    @cached_property
    def streams(self) -> Streams:
        """The weights for a few rows, made when first needed."""
        return Streams.of(self.model, self.precision, self.vocab_size)

    @torch.inference_mode()
    def allocate(self, rows: int, columns: int) -> None:
        c = self.config
        self.columns = aligned(columns)
        shape = (c.layers, rows, c.key_value_heads, self.columns, c.head_size)
        try:
            # Masked columns are multiplied by probability 0, which hides what they hold only if that is finite.
            self.keys = torch.zeros(shape, dtype=self.cached, device=self.device)
            self.values = torch.zeros(shape, dtype=self.cached, device=self.device)
        except RuntimeError as error:
            raise UserError(
                f"no memory for keys and values of {rows} rows of {columns} tokens",
                where="sampling",
                hint="use fewer rows or fewer new tokens",
            ) from error

    @torch.inference_mode()
    def prefill(self, tokens: list[int], past: Prompt | None = None, known: int = 0) -> Prompt:
        """Run a prompt (P,) alone, so that nothing else in flight can change its result by a rounding.

        The first `known` tokens are not run where `past` begins with them: its keys and values are taken over. Of an
        invariant decoder `known` is a multiple of `BLOCK`, and the result has the same bits whatever it is.
        """
        with _one_thread() if self.invariant else _as_it_is():
            c = self.config
            shape = (c.layers, c.key_value_heads, len(tokens), c.head_size)
            keys = torch.empty(shape, dtype=self.cached, device=self.device)
            values = torch.empty_like(keys)
            if past is not None:
                keys[:, :, :known], values[:, :, :known] = past.keys[:, :, :known], past.values[:, :, :known]
            ids = torch.tensor(tokens, device=self.device)
            step = BLOCK if self.invariant else len(tokens)
            for start in range(known, len(tokens), step):
                x = self._prefill(ids, keys, values, slice(start, min(start + step, len(tokens))))
            logits = self.blocked.output(self.blocked.final(x[-1:]))[0]
            return Prompt(keys, values, logits.float())

    def _prefill(self, ids: Tensor, keys: Tensor, values: Tensor, part: slice) -> Tensor:
        """Run tokens `part` of a prompt, of which keys and values (L, G, P, D) hold what is before them; fills in
        theirs. Returns (n, E)."""
        c = self.config
        start, end = part.start, part.stop
        x, rotation = self._embed(ids[part], torch.arange(start, end, device=self.device))
        seen = torch.ones(end - start, end, dtype=torch.bool, device=self.device).tril(start) if start else None
        # Stride 0 instead of a copy: each key-value head appears once per query head that reads it. Not all of a GPU's
        # kernels take that, and there a copy costs nothing beside the products.
        heads = (c.key_value_heads, c.heads // c.key_value_heads, end, c.head_size)

        def expanded(cache: Tensor, dtype: torch.dtype) -> Tensor:
            whole = cache[:, None, :end].to(dtype).expand(heads).flatten(0, 1)[None]  # (1, H, end, D)
            return whole.contiguous() if cache.device.type == "cuda" else whole

        for number, layer in enumerate(self.blocked.layers):
            q, k, v = self._split(layer.attention_in(layer.ln_1(x)), rotation)  # (n, G, Q, D), (n, G, D), (n, G, D)
            keys[number, :, part], values[number, :, part] = k.transpose(0, 1), v.transpose(0, 1)
            y = F.scaled_dot_product_attention(
                q.permute(1, 2, 0, 3).reshape(1, c.heads, end - start, c.head_size),
                expanded(keys[number], q.dtype),
                expanded(values[number], q.dtype),
                attn_mask=seen,
                is_causal=seen is None,
            )
            x = self._finish(layer, x, y[0].transpose(0, 1).reshape(x.shape))
        return x

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
    def step(
        self, tokens: Tensor, positions: Tensor, columns: Tensor, sharings: list[Sharing], used: int | None = None
    ) -> Tensor:
        """Feed tokens (R,) at positions (R,) to the first R rows, writing their keys at columns (R,).

        `used` is the largest of the columns plus one; None asks the tensor, for which a GPU must wait. Returns logits
        (R, V) of the next token.
        """
        rows = tokens.shape[0]
        if not sharings and (self.invariant or rows <= self.few):
            return self.stream_step(tokens, positions, columns, torch.arange(rows))
        used = aligned(int(columns.max()) + 1 if used is None else used)
        scores = self._scores(columns, used, sharings)

        def attend(q: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            return self._attend(q, keys, values, scores, layer, sharings)

        return self._run(tokens, positions, columns, used, attend)

    @torch.inference_mode()
    def fixed_step(
        self, tokens: Tensor, positions: Tensor, columns: Tensor, owners: Tensor, used: int, shared: Shared | None
    ) -> Tensor:
        """`step` in operations that depend on shapes alone, so that a GPU can record them once and repeat them.

        Rows look at their first `used` columns, as many as the largest of columns (R,) plus one or more, and at the
        columns of `shared` whose owner is theirs in owners (R,). What they may not see is masked: it has probability 0
        exactly, and the result is that of `step` but for the order of additions. Returns logits (R, V).
        """
        own = torch.arange(used, device=self.device) <= columns[:, None]
        seen = own if shared is None else torch.cat((shared.owners == owners[:, None], own), dim=1)
        mask = torch.zeros(seen.shape, dtype=self.cached, device=self.device).masked_fill_(~seen, -math.inf)

        def attend(q: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            return self._attend_fixed(q, keys, values, mask[:, None, None], layer, shared)

        return self._run(tokens, positions, columns, used, attend)

    def _run(self, tokens: Tensor, positions: Tensor, columns: Tensor, used: int, attend: Attend) -> Tensor:
        """One step of the first R rows, of which `attend` is the attention over the first `used` columns."""
        rows, blocked = tokens.shape[0], self.blocked
        index = torch.arange(rows, device=self.device)
        x, rotation = self._embed(tokens, positions)
        for number, layer in enumerate(blocked.layers):
            q, k, v = self._split(layer.attention_in(layer.ln_1(x)), rotation)
            keys, values = self.keys[number], self.values[number]
            keys[index, :, columns], values[index, :, columns] = k.to(self.cached), v.to(self.cached)
            y = attend(q.to(self.cached), keys[:rows, :, :used], values[:rows, :, :used], number)
            x = self._finish(layer, x, y)
        return blocked.output(blocked.final(x))

    def stream_step(self, tokens: Tensor, positions: Tensor, columns: Tensor, slots: Tensor) -> Tensor:
        """`step` through the streaming kernel, for rows in any slots (R,); several rows of one slot are successive
        tokens of it, in order. Returns logits (R, V) float32."""
        from kringle.generation.row_kernel import TILE, step

        rows = tokens.shape[0]
        logits = np.empty((rows, self.vocab_size), np.float32)
        keys, values = (_as_array(cache) for cache in (self.keys, self.values))
        inputs = [x.numpy() for x in (tokens, positions, columns, slots)]
        alone = rows == 1 and not self.invariant

        def run(part: slice) -> None:
            fed, at, column, slot = (x[part] for x in inputs)
            step(self.streams, keys, values, fed, at, column, slot, logits[part], alone=alone)

        tiles = -(-rows // TILE)
        threads = max(1, min(torch.get_num_threads(), tiles)) if self.invariant else 1
        if threads == 1:
            run(slice(0, rows))
        else:
            borders = (np.linspace(0, tiles, threads + 1).astype(int) * TILE).tolist()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, (slice(start, min(end, rows)) for start, end in pairwise(borders))))
        return torch.from_numpy(logits)

    def _embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Rotation | None]:
        """Tokens (N,) at positions (N,) -> (N, E), and the rotation of their queries and keys where positions turn."""
        x = F.embedding(tokens, self.blocked.embedding).float()
        if self.blocked.positions is not None:
            return x + F.embedding(positions, self.blocked.positions), None
        cosine, sine = angles(positions, self.config.head_size, torch.float32)
        return x, (cosine[:, None], sine[:, None])

    def _split(self, fused: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Output of c_attn (N, ..) -> queries (N, G, Q, D), keys and values (N, G, D)."""
        q, k, v = self._parts(fused)
        if rotation is not None:
            cosine, sine = (part.to(q.dtype) for part in rotation)  # (N, 1, D / 2)
            q, k = rotate(q, (cosine[:, None], sine[:, None])), rotate(k, (cosine, sine))
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
        x = x + layer.attention_out(y)
        out: Tensor = x + layer.mlp_out(layer.mlp_in.gelu(layer.ln_2(x)))
        return out

    def _scores(self, columns: Tensor, used: int, sharings: list[Sharing]) -> Scores:
        c, rows = self.config, columns.shape[0]
        longest = aligned(max((sharing.prompt.length for sharing in sharings), default=0))
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

    def _attend_fixed(
        self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, layer: int, shared: Shared | None
    ) -> Tensor:
        """Queries (R, G, Q, D) over S shared columns and own keys and values (R, G, C, D), under a mask
        (R, 1, 1, S + C) -> (R, E)."""
        rows, g, heads, d = q.shape
        s = 0 if shared is None else shared.keys.shape[2]
        q = q * self.scale
        scores = q.new_empty((rows, g, heads, s + keys.shape[2]))
        own = torch.bmm(q.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)).view(rows, g, heads, -1)
        torch.add(own, mask[..., s:], out=scores[..., s:])
        if shared is not None:
            part = _unfold(torch.bmm(_fold(q), shared.keys[layer].transpose(1, 2)), heads)  # (R, G, Q, S)
            torch.add(part, mask[..., :s], out=scores[..., :s])
        # Sums run in float32 whatever the type, as in `_attend`.
        weights = torch.softmax(scores, dim=-1)
        y = torch.bmm(weights[..., s:].flatten(0, 1), values.flatten(0, 1)).view(rows, g, heads, d)
        if shared is not None:
            y += _unfold(torch.bmm(_fold(weights[..., :s]), shared.values[layer]), heads)
        return y.view(rows, -1)


def _as_array(cache: Tensor) -> np.ndarray:
    """The memory of a tensor as float32, or as uint16 where it holds bfloat16."""
    return (cache.view(torch.uint16) if cache.dtype == torch.bfloat16 else cache).numpy()


def _numba_is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@contextmanager
def _one_thread() -> Iterator[None]:
    """How a product is cut among threads can change the order of its additions."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _fold(x: Tensor) -> Tensor:
    """(n, G, Q, K) -> (G, n * Q, K): every query of a key-value head against one matrix."""
    return x.transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, heads: int) -> Tensor:
    """(G, n * Q, K) -> (n, G, Q, K)."""
    return x.view(x.shape[0], -1, heads, x.shape[2]).transpose(0, 1)
