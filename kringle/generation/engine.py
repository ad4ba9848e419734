"""The sampling engine: many samples of many prompts through one model.

Covers: one forward pass per prompt however many samples it has; a fixed number of rows that advance together, one
token a step; finished rows dropped at once and their places taken by samples of the next requests (continuous
batching); stop strings across token borders; the context's limit; a limit on memory. Does not cover: choosing the token
(`kringle.generation.selection`), the forward pass (`kringle.generation.decoder`), prompts (`kringle.generation.fim`).

What is drawn for a sample depends on (model, prompt, settings, seed, key, sample number) alone: its uniforms come from
a random stream of its own, one per position. Which rows share a matrix product does change the last bits of the logits,
so a sample whose uniform falls within such a rounding of a border may differ between two numbers of rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kringle.errors import UserError
from kringle.generation.decoder import Decoder, Prompt, Sharing
from kringle.generation.requests import Completion, Request, Vocabulary, special_ids
from kringle.generation.selection import Truncation, select
from kringle.generation.stops import completing_tokens, first_stop, tail
from kringle.model.transformer import ModelConfig, Transformer
from kringle.randomness import stream

ROWS = 256  # beyond about 64 rows a CPU is bound by arithmetic; more rows lengthen the batch before it runs dry
# Sharing a prompt costs some 50 microseconds of calls per layer and step; not sharing it, one reading per sample.
# Measured on one core, 20 samples a prompt: equal at 25 KB of keys and values per layer, a quarter faster at 100 KB.
SHARED_BYTES = 1 << 20


def generate(
    model: Transformer,
    tokenizer: Vocabulary,
    requests: Sequence[Request],
    *,
    rows: int = ROWS,
    memory_limit: int | None = None,
) -> Iterator[Completion]:
    """Yield every completion of `requests` as it ends, on the device and in the precision of the model's parameters.

    `rows` samples advance together. `memory_limit`, in bytes, bounds the keys, values and logits in flight; None means
    what the machine has free now. Raises UserError before any work for a request that cannot be run, or where `rows`
    rows do not fit. The caller may stop iterating at any time.
    """
    requests = list(requests)
    vocab_size = tokenizer.vocab_size
    if vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {vocab_size} tokens, the model {model.config.vocab_size}",
            where="sampling",
            hint="they do not belong together",
        )
    if rows < 1:
        raise UserError(f"rows must be at least 1, got {rows}", where="sampling")
    for request in requests:
        request.check(model.config, vocab_size)
    if not requests:
        return iter(())
    plans = [_Plan.of(request, model) for request in requests]
    rows = min(rows, sum(request.samples for request in requests))
    memory = _Memory.of(plans, model, vocab_size, memory_limit)
    memory.check(rows)
    return _Engine(model, tokenizer, plans, rows, memory).run()


@dataclass(frozen=True)
class _Plan:
    """How one request uses the memory."""

    request: Request
    limit: int  # tokens per sample
    shared: bool  # whether the samples read one copy of the prompt's keys and values
    prompt_bytes: int

    @classmethod
    def of(cls, request: Request, model: Transformer) -> _Plan:
        size = len(request.prompt) * _bytes_per_token(model)
        shared = (request.samples - 1) * size // model.config.layers >= SHARED_BYTES
        return cls(request, request.limit(model.config.context), shared, size)

    @property
    def offset(self) -> int:
        """Columns of its own memory that a row fills with the prompt."""
        return 0 if self.shared else len(self.request.prompt)

    @property
    def columns(self) -> int:
        """Columns that a row needs; the last token drawn is never fed."""
        return self.offset + self.limit - 1


def _bytes_per_token(model: Transformer) -> int:
    """Keys and values of one token in the precision of the model (the config counts 2 bytes a number)."""
    return model.config.key_value_bytes_per_token // 2 * model.transformer.wte.weight.element_size()


@dataclass(frozen=True)
class _Memory:
    """Bytes that sampling takes."""

    per_row: int  # own keys and values, logits
    largest_prompt: int
    limit: int | None

    @classmethod
    def of(cls, plans: Sequence[_Plan], model: Transformer, vocab_size: int, limit: int | None) -> _Memory:
        columns = max(1, *(plan.columns for plan in plans))
        per_row = columns * _bytes_per_token(model) + vocab_size * model.transformer.wte.weight.element_size()
        free = free_memory(model.transformer.wte.weight.device) if limit is None else limit
        return cls(per_row, max(plan.prompt_bytes for plan in plans), free)

    def check(self, rows: int) -> None:
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
        return int(torch.cuda.mem_get_info(device)[0])
    report = Path("/proc/meminfo")
    if not report.exists():
        return None
    fields = dict(line.split(":", 1) for line in report.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _row_type(longest: int) -> np.dtype[np.void]:
    """What is known of one row besides its keys and values."""
    return np.dtype(
        [
            ("active", np.bool_),
            ("plan", np.int64),
            ("sample", np.int64),
            ("count", np.int64),  # tokens drawn
            ("limit", np.int64),
            ("prompt", np.int64),  # its length
            ("offset", np.int64),  # first own column of a drawn token
            ("temperature", np.float64),
            ("top_p", np.float64),
            ("top_k", np.int64),
            ("stops", np.int64),
            ("uniforms", np.float64, (longest,)),
            ("tokens", np.int64, (longest,)),
            ("log_probabilities", np.float32, (longest,)),
        ]
    )


class _Engine:
    """Rows 0 .. active - 1 are busy between steps; `held` keeps the prompts that they share."""

    def __init__(
        self, model: Transformer, tokenizer: Vocabulary, plans: Sequence[_Plan], rows: int, memory: _Memory
    ) -> None:
        self.config: ModelConfig = model.config
        self.plans, self.memory = plans, memory
        self.token_bytes = tokenizer.token_bytes
        self.is_special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.is_special[list(special_ids(tokenizer))] = True
        stop_sets = list(dict.fromkeys(plan.request.stops for plan in plans))
        self.stop_number = {stops: number for number, stops in enumerate(stop_sets)}
        self.may_stop = np.stack([completing_tokens(tokenizer.token_bytes, stops) for stops in stop_sets])  # (sets, V)
        self.decoder = Decoder(
            model, rows=rows, columns=max(1, *(plan.columns for plan in plans)), vocab_size=tokenizer.vocab_size
        )
        self.rows = np.zeros(rows, _row_type(max(plan.limit for plan in plans)))
        self.active = 0
        self.waiting = deque((number, 0) for number in range(len(plans)))  # (plan, next sample), in the order given
        self.held: dict[int, Prompt] = {}
        self.sharings: list[Sharing] = []
        self.settled = False  # whether nothing has started or ended since the rows were last put in order

    def run(self) -> Iterator[Completion]:
        while True:
            yield from self._admit()
            if not self.active:
                return
            rows = self.rows[: self.active]
            logits = self.decoder.step(*self._inputs(rows), self.sharings)
            yield from self._advance(np.arange(self.active), logits)

    def _inputs(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Newest token, its position and its column, of each row."""
        fed = rows["count"] - 1
        newest = rows["tokens"][np.arange(len(rows)), fed]
        arrays = (newest, rows["prompt"] + fed, rows["offset"] + fed)
        tokens, positions, columns = (torch.from_numpy(array).to(self.decoder.device) for array in arrays)
        return tokens, positions, columns

    def _admit(self) -> Iterator[Completion]:
        """Fill the free rows with waiting samples, draw their first tokens, and close the gaps that remain."""
        if self.settled:
            return
        while self.waiting and not self.rows["active"].all():
            number, first = self.waiting[0]
            if number not in self.held and not self._fits(self.plans[number]):
                break
            plan = self.plans[number]
            free = np.flatnonzero(~self.rows["active"])[: plan.request.samples - first]
            if number not in self.held:
                self.held[number] = self.decoder.prefill(list(plan.request.prompt))
            prompt = self.held[number]
            self._start(free, number, first)
            if not plan.shared:
                self.decoder.store(prompt, torch.from_numpy(free).to(self.decoder.device))
            self.waiting.popleft()
            if first + len(free) < plan.request.samples:
                self.waiting.appendleft((number, first + len(free)))
            elif not plan.shared:
                del self.held[number]
            yield from self._advance(free, prompt.logits[None])
        self._compact()

    def _fits(self, plan: _Plan) -> bool:
        """Whether one more prompt fits beside those held; it always does when no row is busy."""
        if self.memory.limit is None or not self.rows["active"].any():
            return True
        held = sum(self.plans[number].prompt_bytes for number in self.held)
        return len(self.rows) * self.memory.per_row + held + plan.prompt_bytes <= self.memory.limit

    def _start(self, slots: np.ndarray, number: int, first: int) -> None:
        plan = self.plans[number]
        request = plan.request
        values = {
            "active": True,
            "plan": number,
            "sample": np.arange(first, first + len(slots)),
            "count": 0,
            "limit": plan.limit,
            "prompt": len(request.prompt),
            "offset": plan.offset,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or 0,
            "stops": self.stop_number[request.stops],
        }
        for name, value in values.items():
            self.rows[name][slots] = value
        if request.temperature > 0:
            for i, slot in enumerate(slots):
                draws = stream(request.seed, "sample", request.key, first + i).random(plan.limit)
                self.rows["uniforms"][slot, : plan.limit] = draws

    def _advance(self, slots: np.ndarray, logits: torch.Tensor) -> Iterator[Completion]:
        """Draw a token for each of rows `slots` (n,) from logits (n, V) or (1, V); yield and free those that ended."""
        rows = self.rows
        count = rows["count"][slots]
        truncation = Truncation(rows["temperature"][slots], rows["top_p"][slots], rows["top_k"][slots])
        tokens, log_probabilities = select(logits, truncation, rows["uniforms"][slots, count])
        rows["tokens"][slots, count] = tokens
        rows["log_probabilities"][slots, count] = log_probabilities
        rows["count"][slots] = count + 1
        special = self.is_special[tokens]
        full = count + 1 == rows["limit"][slots]
        may_stop = self.may_stop[rows["stops"][slots], tokens] & ~special
        ended = special | full
        for i in np.flatnonzero(may_stop):
            ended[i] |= self._stops(rows[slots[i]])
        finished = slots[ended]
        # All are freed before the first is yielded: the caller may never ask for the second.
        completions = [self._completion(rows[slot]) for slot in finished]
        rows["active"][finished] = False
        self.settled &= not len(finished)
        yield from completions

    def _stops(self, row: np.void) -> bool:
        """Whether the newest token completes a stop string; no earlier one did, or the row had ended."""
        stops = self.plans[row["plan"]].request.stops
        text = tail(self.token_bytes, row["tokens"][: row["count"]], max(map(len, stops)) - 1)
        return first_stop(text, stops) >= 0

    def _completion(self, row: np.void) -> Completion:
        plan, count = self.plans[row["plan"]], int(row["count"])
        tokens: list[int] = row["tokens"][:count].tolist()
        ends = bool(self.is_special[tokens[-1]])
        text = b"".join(self.token_bytes[token] for token in (tokens[:-1] if ends else tokens))
        stop = first_stop(text, plan.request.stops)
        finish: Literal["stop", "end", "length", "context"]
        if stop >= 0:
            text, finish = text[:stop], "stop"
        elif ends:
            finish = "end"
        else:
            finish = "length" if plan.limit == plan.request.max_new_tokens else "context"
        log_probabilities: list[float] = row["log_probabilities"][:count].tolist()
        return Completion(int(row["plan"]), int(row["sample"]), tokens, text, finish, log_probabilities)

    def _compact(self) -> None:
        """Move busy rows into the gaps so that they are the first ones, and note which rows share which prompt."""
        busy = np.flatnonzero(self.rows["active"])
        self.active = len(busy)
        sources = busy[busy >= self.active]
        if len(sources):
            targets = np.flatnonzero(~self.rows["active"][: self.active])
            columns = int((self.rows["offset"] + self.rows["count"])[sources].max()) - 1
            device = self.decoder.device
            self.decoder.move(torch.from_numpy(sources).to(device), torch.from_numpy(targets).to(device), columns)
            self.rows[targets] = self.rows[sources]
            self.rows["active"][sources] = False
        owners = self.rows["plan"][: self.active]
        groups = [number for number in dict.fromkeys(owners.tolist()) if self.plans[number].shared]
        needed = {*groups, *(number for number, first in self.waiting if first)}
        self.held = {number: prompt for number, prompt in self.held.items() if number in needed}
        self.sharings = []
        for number in groups:
            members = np.flatnonzero(owners == number)
            every = len(members) == self.active
            index = None if every else torch.from_numpy(members).to(self.decoder.device)
            self.sharings.append(Sharing(self.held[number], index))
        self.settled = True
