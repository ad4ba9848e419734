"""One step of all rows as a recording that a GPU repeats: some 500 kernels for one call instead of 500.

Launching them one by one takes a host three times as long as a GPU needs to run them (1.1 billion parameters, one
stream, H100: 111 tokens a second so, 360 recorded; `kringle bench generate` measures both). A CUDA graph fixes
addresses and shapes, so the inputs lie in buffers of their own and shapes are rounded up to a few sizes: rows (padded
rows feed token 0 into rows of the cache that nobody uses), a row's columns in use, and the columns of shared prompts,
all of which lie side by side, each row looking at those of its own. What is padding is masked inside the step
(`Decoder.fixed_step`), from numbers in the buffers: which rows share which prompt may change from step to step, a graph
stays.

A shape's first step runs without a recording (which also warms the libraries up), its second one is recorded. Graphs
are dropped when the memory for shared prompts gets another size, and when there are too many. Not covered, and run by
`Decoder.step` as on a CPU: steps whose shared prompts have more than `MOST_SHARED` tokens together. Not recorded:
prompts' own passes and the choice of tokens, a handful of kernels whose launches hide behind the running graph.

Shapes as in `kringle.generation.decoder`; S columns of shared prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kringle.generation.decoder import NOBODY, NONE_SHARED, Decoder, Prompt, Shared
from kringle.generation.selection import place

COLUMNS = 64  # own columns in use are rounded up to a multiple of this
LEAST_SHARED, MOST_SHARED = 64, 4096  # every row is multiplied with every shared column, its own prompt's or not
MOST_GRAPHS = 64  # a graph holds its launches, a few megabytes


def padded_rows(rows: int, most: int) -> int:
    """Powers of two up to 64, then multiples of 64, at most `most`."""
    size = 1 << (rows - 1).bit_length() if rows <= 64 else -(-rows // 64) * 64
    return min(size, most)


def padded_columns(used: int, most: int) -> int:
    return min(-(-used // COLUMNS) * COLUMNS, most)


def padded_shared(tokens: int) -> int:
    """Powers of two from `LEAST_SHARED` on; 0 where nothing is shared."""
    return max(LEAST_SHARED, 1 << (tokens - 1).bit_length()) if tokens else 0


class Steps:
    """Steps of a decoder's rows in buffers of fixed sizes; one thread uses it. `record=False` runs the same operations
    without recording them, on any device."""

    def __init__(self, decoder: Decoder, *, record: bool) -> None:
        self.decoder, self.record = decoder, record
        device = decoder.device
        self.inputs = torch.zeros((4, decoder.rows), dtype=torch.int64, device=device)
        self.logits = torch.zeros((decoder.rows, decoder.vocab_size), dtype=decoder.dtype, device=device)
        self.shared: Shared | None = None
        self.prompts: list[Prompt] = []  # that `shared` holds
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph | None] = {}  # by rows and columns; None: seen once
        if record:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def step(
        self,
        tokens: np.ndarray,
        positions: np.ndarray,
        columns: np.ndarray,
        owners: np.ndarray,
        prompts: Sequence[Prompt],
    ) -> Tensor | None:
        """Feed tokens (R,) at positions (R,) to the first R rows, writing their keys at columns (R,); owners (R,) are
        the numbers of the prompts that rows share, or `NONE_SHARED`. None if this step is not covered.

        Returns logits (R, V), which the next step overwrites.
        """
        if sum(prompt.length for prompt in prompts) > MOST_SHARED:
            return None
        self._share(list(prompts))
        active, decoder = len(tokens), self.decoder
        rows = padded_rows(active, decoder.rows)
        used = padded_columns(int(columns.max()) + 1, decoder.columns)
        inputs = np.zeros((4, rows), dtype=np.int64)
        inputs[3] = NONE_SHARED
        inputs[:, :active] = tokens, positions, columns, owners
        self.inputs[:, :rows].copy_(place(inputs, decoder.device))
        graph = self._graph(rows, used)
        if graph is None:
            self._run(rows, used)
        else:
            graph.replay()
        return self.logits[:active]

    def _run(self, rows: int, used: int) -> None:
        tokens, positions, columns, owners = self.inputs[:, :rows].unbind()
        logits = self.decoder.fixed_step(tokens, positions, columns, owners, used, self.shared)
        self.logits[:rows].copy_(logits)

    def _graph(self, rows: int, used: int) -> torch.cuda.CUDAGraph | None:
        if not self.record:
            return None
        key = (rows, used)
        if key not in self.graphs:
            if len(self.graphs) >= MOST_GRAPHS:
                self._drop()
            self.graphs[key] = None
            return None
        graph = self.graphs[key]
        if graph is None:
            graph = self.graphs[key] = self._recorded(rows, used)
        return graph

    def _recorded(self, rows: int, used: int) -> torch.cuda.CUDAGraph:
        """Record a step without running it; what it has written before, it may write again."""
        here = torch.cuda.current_stream(self.decoder.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            self._run(rows, used)  # the libraries' workspaces belong to a stream and are made outside the recording
        here.wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads (a server's) may use the GPU meanwhile: only this one's calls are watched.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            self._run(rows, used)
        return graph

    def _share(self, prompts: list[Prompt]) -> None:
        """Put prompts side by side into the memory that recordings read."""
        if len(prompts) == len(self.prompts) and all(a is b for a, b in zip(prompts, self.prompts, strict=True)):
            return
        size = padded_shared(sum(prompt.length for prompt in prompts))
        held = 0 if self.shared is None else self.shared.keys.shape[2]
        # A somewhat larger one serves as well, and prompts that come and go do not cost a recording each.
        if not size <= held <= 4 * size:
            self._drop()
            self.shared = self._room(size) if size else None
        start = 0
        if self.shared is not None:
            self.shared.owners.fill_(NOBODY)
            for number, prompt in enumerate(prompts):
                part = slice(start, start + prompt.length)
                self.shared.keys[:, :, part], self.shared.values[:, :, part] = prompt.keys, prompt.values
                self.shared.owners[part] = number
                start += prompt.length
        self.prompts = prompts

    def _room(self, size: int) -> Shared:
        c, device = self.decoder.config, self.decoder.device
        # Finite wherever no prompt is, since masked columns are multiplied by probability 0.
        keys = torch.zeros((c.layers, c.key_value_heads, size, c.head_size), dtype=self.decoder.cached, device=device)
        owners = torch.full((size,), NOBODY, dtype=torch.int64, device=device)
        return Shared(keys, torch.zeros_like(keys), owners)

    def _drop(self) -> None:
        self.graphs.clear()
        if self.record:
            torch.cuda.synchronize(self.decoder.device)
            self.pool = torch.cuda.graph_pool_handle()  # a pool without graphs cannot be used again
