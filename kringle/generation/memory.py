"""What sampling needs in memory, counted before anything is allocated.

Keys and values of R rows, the logits of one step, and the prompts that many samples share. Does not count the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kringle.errors import UserError
from kringle.generation.requests import Request
from kringle.model.shape import ModelConfig

# Sharing a prompt costs some 50 microseconds of calls per layer and step; not sharing it, one reading per sample.
# Measured on one core, 20 samples a prompt: equal at 25 KB of keys and values per layer, a quarter faster at 100 KB.
SHARED_BYTES = 1 << 20
# Columns are looked at in whole registers of 512 bits, 32 bfloat16 numbers. Then sums over them are added up in the
# same order however many there are (masked ones add zero), and roundings hardly ever depend on other rows' lengths: a
# library may still choose another product for another size, which `--invariant` alone rules out.
ALIGNED = 32


@dataclass(frozen=True)
class Plan:
    """How one request uses the memory."""

    request: Request
    limit: int  # tokens per sample
    shared: bool  # whether the samples read one copy of the prompt's keys and values
    prompt_bytes: int

    @classmethod
    def of(cls, request: Request, config: ModelConfig, element: int, *, sharing: bool) -> Plan:
        """`element`: bytes of a stored number; `sharing`: whether prompts may be shared at all."""
        size = len(request.prompt) * bytes_per_token(config, element)
        shared = sharing and (request.samples - 1) * size // config.layers >= SHARED_BYTES
        return cls(request, request.limit(config.context), shared, size)

    @property
    def offset(self) -> int:
        """Columns of its own memory that a row fills with the prompt."""
        return 0 if self.shared else len(self.request.prompt)

    @property
    def columns(self) -> int:
        """Columns that a row needs; the last token drawn is never fed."""
        return self.offset + self.limit - 1


def aligned(columns: int) -> int:
    """Columns that are allocated, and looked at, for `columns` tokens."""
    return -(-columns // ALIGNED) * ALIGNED


def bytes_per_token(config: ModelConfig, element: int) -> int:
    """Keys and values of one token, `element` bytes a number (the config counts 2)."""
    return config.key_value_bytes_per_token // 2 * element


@dataclass(frozen=True)
class Memory:
    """Bytes that sampling takes."""

    per_row: int  # own keys and values, logits
    largest_prompt: int
    limit: int | None

    @classmethod
    def of(
        cls,
        plans: Sequence[Plan],
        config: ModelConfig,
        element: int,
        columns: int,
        vocab_size: int,
        device: torch.device,
        limit: int | None,
    ) -> Memory:
        """For rows of `columns` tokens; `limit` None means what the machine has free now."""
        per_row = aligned(columns) * bytes_per_token(config, element) + vocab_size * element
        largest = max((plan.prompt_bytes for plan in plans), default=0)
        return cls(per_row, largest, free_memory(device) if limit is None else limit)

    def check(self, rows: int) -> None:
        """UserError unless `rows` rows fit."""
        if self.limit is None or rows * self.per_row + self.largest_prompt <= self.limit:
            return
        fit = (self.limit - self.largest_prompt) // self.per_row
        raise UserError(
            f"{rows} rows take {rows * self.per_row + self.largest_prompt:,} bytes for keys, values and logits, "
            f"{self.limit:,} are allowed",
            where="sampling",
            hint=f"{fit} rows fit"
            if fit > 0
            else "not even one row fits: ask for fewer new tokens or a shorter prompt",
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on the device without swapping; None where the system does not say."""
    if device.type == "cuda":
        # What torch keeps of freed tensors is taken for the system, and free for whoever allocates here.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    report = Path("/proc/meminfo")
    if not report.exists():
        return None
    fields = dict(line.split(":", 1) for line in report.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
