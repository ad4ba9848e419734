"""The sampling engine: many samples of many prompts through one model.

Covers: one forward pass per prompt however many samples it has; a fixed number of rows that advance together, one
token a step; finished rows dropped at once and their places taken by samples of the next requests (continuous
batching); stop strings across token borders; the context's limit; a limit on memory; streaming, cancellation and
deadlines. Does not cover: choosing the token (`kringle.generation.selection`), the forward pass
(`kringle.generation.decoder`), prompts (`kringle.generation.fim`), threads (`kringle.generation.service`).

What is drawn for a sample depends on (model, prompt, settings, seed, key, sample number) alone: its uniforms come from
a random stream of its own, one per position. Which rows share a matrix product does change the last bits of the logits,
so a sample whose uniform falls within such a rounding of a border may differ between two numbers of rows, unless the
engine is `invariant`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from kringle.errors import UserError
from kringle.generation.decoder import BLOCK, FEW, NONE_SHARED, Decoder, Prompt, Sharing
from kringle.generation.graphs import Steps
from kringle.generation.healing import Vocabulary as Healer
from kringle.generation.lookup import guess
from kringle.generation.memory import SHARED_BYTES, Memory, Plan, free_memory
from kringle.generation.prefixes import PrefixCache
from kringle.generation.requests import (
    Alternatives,
    Completion,
    Fault,
    Finish,
    Piece,
    Request,
    Vocabulary,
    special_ids,
)
from kringle.generation.selection import Truncation, place, select
from kringle.generation.stops import completing_tokens, first_stop, held_back, tail
from kringle.generation.weights import Precision, choose_precision
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream

__all__ = ["ROWS", "SHARED_BYTES", "Engine", "free_memory", "generate"]

ROWS = 256  # beyond about 64 rows a CPU is bound by arithmetic; more rows lengthen the batch before it runs dry
GUESSES = 3  # tokens guessed ahead: with the newest one they fill a tile of the streaming kernel
STOP_SETS = 256  # tables of stop strings that are kept, one byte per token each


def generate(
    model: Transformer,
    tokenizer: Vocabulary,
    requests: Sequence[Request],
    *,
    rows: int = ROWS,
    memory_limit: int | None = None,
    precision: Precision | None = None,
    invariant: bool = False,
    graphs: bool = True,
) -> Iterator[Completion]:
    """Yield every completion of `requests` as it ends, on the device of the model's parameters.

    `rows` samples advance together. `memory_limit`, in bytes, bounds the keys, values and logits in flight; None means
    what the machine has free now. `precision` None is that of the parameters. With `invariant` a sample's bits depend
    on neither `rows` nor order nor threads. `graphs`: whether a GPU repeats recorded steps
    (`kringle.generation.graphs`). Raises UserError before any work for a request that cannot be run, or where `rows`
    rows do not fit. The caller may stop iterating at any time.
    """
    requests = list(requests)
    if rows < 1:
        raise UserError(f"rows must be at least 1, got {rows}", where="sampling")
    _check_vocabulary(model, tokenizer)
    for request in requests:
        request.check(model.config, tokenizer.vocab_size)
    if not requests:
        return iter(())
    rows = min(rows, sum(request.samples for request in requests))
    engine = Engine(
        model,
        tokenizer,
        rows=rows,
        requests=requests,
        memory_limit=memory_limit,
        precision=precision,
        few=FEW if rows <= FEW else 0,
        invariant=invariant,
        graphs=graphs,
    )
    return _completions(engine)


def _completions(engine: Engine) -> Iterator[Completion]:
    while not engine.idle:
        for event in engine.advance():
            if isinstance(event, Fault):
                raise event.error
            if isinstance(event, Completion):
                yield event


def _check_vocabulary(model: Transformer, tokenizer: Vocabulary) -> None:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}",
            where="sampling",
            hint="they do not belong together",
        )


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
            ("watched", np.bool_),  # whether something besides the draw is asked for
            ("uniforms", np.float64, (longest,)),
            ("tokens", np.int64, (longest,)),
            ("log_probabilities", np.float32, (longest,)),
        ]
    )


class _Watched:
    """What rows with streaming, alternatives or required bytes carry beside the arrays."""

    def __init__(self, required: bytes) -> None:
        self.required = required  # bytes that must still be spelled
        self.alternatives: list[Alternatives] = []
        self.shown = 0  # bytes of the text that pieces have told


class Engine:
    """Rows that advance together. Not thread-safe: one thread calls `add`, `cancel` and `advance`.

    `columns` is the most tokens that a row can hold, prompt and completion (less one: the last token is never fed);
    with `requests` it is what these need, and they are added. Between steps rows 0 .. active - 1 are busy. Up to
    `prefix_bytes` of the memory hold prompts that were run before (`kringle.generation.prefixes`).
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Vocabulary,
        *,
        rows: int,
        columns: int | None = None,
        requests: Sequence[Request] = (),
        memory_limit: int | None = None,
        precision: Precision | None = None,
        few: int = FEW,
        invariant: bool = False,
        prefix_bytes: int = 0,
        graphs: bool = True,
    ) -> None:
        _check_vocabulary(model, tokenizer)
        self.config: ModelConfig = model.config
        self.vocab_size, self.token_bytes = tokenizer.vocab_size, tokenizer.token_bytes
        self.is_special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.is_special[list(special_ids(tokenizer))] = True
        self.sharing = not invariant
        weight = model.transformer.wte.weight
        half = precision == "bf16" if precision else weight.dtype == torch.bfloat16
        self.element = 2 if half and choose_precision("auto", weight.device) == "bf16" else 4
        plans = [self._plan(request) for request in requests]
        if columns is None:
            columns = max((plan.columns for plan in plans), default=model.config.context - 1)
        self.columns = max(1, columns)
        self.memory = Memory.of(
            plans, model.config, self.element, self.columns, self.vocab_size, weight.device, memory_limit
        )
        if prefix_bytes and self.memory.limit is not None:
            self.memory = replace(self.memory, limit=self.memory.limit - prefix_bytes)
        self.memory.check(rows)
        self.prefixes = PrefixCache(prefix_bytes, BLOCK if invariant else 1) if prefix_bytes else None
        self.known: dict[int, int] = {}  # tokens of a plan's prompt that did not have to be run
        self.decoder = Decoder(
            model,
            rows=rows,
            columns=self.columns,
            vocab_size=self.vocab_size,
            precision=precision,
            few=few,
            invariant=invariant,
        )
        on_gpu = self.decoder.device.type == "cuda"
        self.steps = Steps(self.decoder, record=True) if graphs and on_gpu else None
        longest = max((plan.limit for plan in plans), default=self.columns + 1)
        self.rows = np.zeros(rows, _row_type(longest))
        self.active = 0
        self.plans: dict[int, Plan] = {}
        self.unfinished: dict[int, int] = {}  # samples of a plan that have not ended
        self.deadlines: dict[int, float] = {}
        self.streamed: set[int] = set()
        self.watched: dict[tuple[int, int], _Watched] = {}
        self.stop_number: dict[tuple[bytes, ...], int] = {}
        self.may_stop = np.zeros((0, self.vocab_size), dtype=bool)
        self.waiting: deque[tuple[int, int]] = deque()  # (plan, next sample), in the order given
        self.held: dict[int, Prompt] = {}
        self.sharings: list[Sharing] = []
        self.owners = np.zeros(0, dtype=np.int64)  # the sharing of each busy row by its number, or NONE_SHARED
        self.settled = False  # whether nothing has started or ended since the rows were last put in order
        self.added = 0
        self._healer: Healer | None = None
        for request in requests:
            self.add(request)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.plans

    def _plan(self, request: Request) -> Plan:
        return Plan.of(request, self.config, self.element, sharing=self.sharing)

    def add(self, request: Request, *, deadline: float | None = None, streaming: bool = False) -> int:
        """Queue a request and return its number; `advance` starts it when rows are free, in the order of adding.

        `deadline` is a time of `time.monotonic`, after which its samples end with what they have. With `streaming`
        every token is told as a `Piece`. UserError if this engine cannot ever run it.
        """
        request.check(self.config, self.vocab_size)
        plan = self._plan(request)
        if plan.columns > self.columns:
            room = self.columns + 1 - plan.offset
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens and {plan.limit} new ones need {plan.columns} positions of "
                f"a row's memory, {self.columns} are set aside",
                where=request.label,
                hint=f"ask for at most {room} new tokens" if room > 0 else "shorten the prompt",
            )
        limit = self.memory.limit
        if limit is not None and len(self.rows) * self.memory.per_row + plan.prompt_bytes > limit:
            raise UserError(
                f"the prompt takes {plan.prompt_bytes:,} bytes for keys and values, more than the memory limit leaves",
                where=request.label,
                hint="shorten it, or use fewer rows",
            )
        number, self.added = self.added, self.added + 1
        self.plans[number], self.unfinished[number] = plan, request.samples
        if deadline is not None:
            self.deadlines[number] = deadline
        if streaming:
            self.streamed.add(number)
        self._know_stops(request.stops)
        self.waiting.append((number, 0))
        self.settled = False
        return number

    def _know_stops(self, stops: tuple[bytes, ...]) -> None:
        """Give a set of stop strings a number and a table; of many, only those of requests in flight are kept."""
        if stops in self.stop_number:
            return
        if len(self.stop_number) >= STOP_SETS:
            used = {plan.request.stops for plan in self.plans.values()} & self.stop_number.keys()
            old = {self.stop_number[one]: number for number, one in enumerate(used)}
            self.may_stop = self.may_stop[list(old)]
            self.stop_number = {one: number for number, one in enumerate(used)}
            for slot in np.flatnonzero(self.rows["active"]):
                self.rows["stops"][slot] = old[int(self.rows["stops"][slot])]
        self.stop_number[stops] = len(self.stop_number)
        self.may_stop = np.concatenate([self.may_stop, completing_tokens(self.token_bytes, stops)[None]])

    def cancel(self, number: int, finish: Finish = "cancelled") -> list[Completion]:
        """End a request now: the completions of its samples so far, those that had not started with empty texts."""
        plan = self.plans.get(number)
        if plan is None:
            return []
        mine = np.flatnonzero(self.rows["active"] & (self.rows["plan"] == number))
        completions = [self._completion(self.rows[slot], finish) for slot in mine]
        first = next((first for waiting, first in self.waiting if waiting == number), plan.request.samples)
        missing = range(plan.request.first + first, plan.request.first + plan.request.samples)
        completions += [Completion(number, i, [], b"", finish, []) for i in missing]
        self.waiting = deque(entry for entry in self.waiting if entry[0] != number)
        self.rows["active"][mine] = False
        self.settled = False
        self._forget(number)
        return completions

    def reset(self) -> None:
        """Drop everything in flight, after a fault."""
        for number in list(self.plans):
            self.cancel(number)
        self.held, self.sharings, self.active = {}, [], 0

    def advance(self) -> Iterator[Completion | Piece | Fault]:
        """Start what can start, then draw the next token of every busy row; yields what became known.

        Exhaust the iterator, or call nothing but `advance` again: rows are in order before each yield.
        """
        yield from self._expire()
        yield from self._admit()
        if not self.active:
            return
        if self._alone():
            yield from self._advance_alone()
            return
        rows = self.rows[: self.active]
        logits = self._step(rows)
        yield from self._draw(np.arange(self.active), logits)

    def _expire(self) -> Iterator[Completion]:
        if self.deadlines:
            now = time.monotonic()
            for number in [number for number, deadline in self.deadlines.items() if deadline <= now]:
                yield from self.cancel(number, "deadline")

    def _forget(self, number: int) -> None:
        for key in [key for key in self.watched if key[0] == number]:
            del self.watched[key]
        self.deadlines.pop(number, None)
        self.streamed.discard(number)
        self.unfinished.pop(number, None)
        self.known.pop(number, None)
        del self.plans[number]

    def _step(self, rows: np.ndarray) -> torch.Tensor:
        """Feed the newest token of each busy row; logits (R, V)."""
        fed = rows["count"] - 1
        newest = rows["tokens"][np.arange(len(rows)), fed]
        arrays = (newest, rows["prompt"] + fed, rows["offset"] + fed)
        if self.steps is not None:
            logits = self.steps.step(*arrays, self.owners, [sharing.prompt for sharing in self.sharings])
            if logits is not None:
                return logits
        tokens, positions, columns = (place(array, self.decoder.device) for array in arrays)
        return self.decoder.step(tokens, positions, columns, self.sharings, int(arrays[2].max()) + 1)

    # -- one greedy sample, with guesses ---------------------------------------------------------------------------

    def _alone(self) -> bool:
        if self.active != 1 or self.sharings or not self.decoder.few:
            return False
        row = self.rows[0]
        return row["temperature"] == 0 and self.plans[int(row["plan"])].request.speculate

    def _advance_alone(self) -> Iterator[Completion | Piece]:
        """Feed the newest token and guesses for the next ones; draw from each position while the guesses are right."""
        row = self.rows[0]
        number, count = int(row["plan"]), int(row["count"])
        history = np.concatenate([np.asarray(self.plans[number].request.prompt), row["tokens"][:count]])
        guesses = guess(history, min(GUESSES, int(row["limit"]) - count - 1))
        fed = torch.from_numpy(np.concatenate([history[-1:], guesses]).astype(np.int64))
        ahead = torch.arange(len(fed))
        first = int(row["prompt"]) + count - 1, int(row["offset"]) + count - 1
        logits = self.decoder.stream_step(fed, first[0] + ahead, first[1] + ahead, torch.zeros_like(ahead))
        for i in range(len(fed)):
            yield from self._draw(np.zeros(1, np.int64), logits[i : i + 1])
            if not self.rows["active"][0] or number not in self.plans:
                return
            if i < len(guesses) and self.rows["tokens"][0, count + i] != guesses[i]:
                return

    # -- starting ------------------------------------------------------------------------------------------------------

    def _admit(self) -> Iterator[Completion | Piece | Fault]:
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
                try:
                    self.held[number] = self._read(number)
                except Exception as error:  # whatever it is, it is this prompt's alone: the others go on
                    self.waiting.popleft()
                    self._forget(number)
                    yield Fault(number, error)
                    continue
            prompt = self.held[number]
            self._start(free, number, first)
            if not plan.shared:
                self.decoder.store(prompt, torch.from_numpy(free).to(self.decoder.device))
            self.waiting.popleft()
            if first + len(free) < plan.request.samples:
                self.waiting.appendleft((number, first + len(free)))
            elif not plan.shared:
                del self.held[number]
            yield from self._draw(free, prompt.logits[None])
        self._compact()

    def _read(self, number: int) -> Prompt:
        """Run a plan's prompt, or what of it was not run before."""
        tokens = list(self.plans[number].request.prompt)
        if self.prefixes is None:
            return self.decoder.prefill(tokens)
        past, known = self.prefixes.find(tokens)
        same = past is not None and known == len(tokens)
        prompt = past if past is not None and same else self.decoder.prefill(tokens, past, known)
        self.known[number] = known
        self.prefixes.keep(tokens, prompt)
        return prompt

    def _fits(self, plan: Plan) -> bool:
        """Whether one more prompt fits beside those held; it always does when no row is busy."""
        if self.memory.limit is None or not self.rows["active"].any():
            return True
        held = sum(self.plans[number].prompt_bytes for number in self.held if number in self.plans)
        return len(self.rows) * self.memory.per_row + held + plan.prompt_bytes <= self.memory.limit

    def _start(self, slots: np.ndarray, number: int, first: int) -> None:
        plan = self.plans[number]
        request = plan.request
        number_of_first = request.first + first
        watched = bool(request.required or request.alternatives or number in self.streamed)
        values = {
            "active": True,
            "plan": number,
            "sample": np.arange(len(slots)) + number_of_first,
            "count": 0,
            "limit": plan.limit,
            "prompt": len(request.prompt),
            "offset": plan.offset,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or 0,
            "stops": self.stop_number[request.stops],
            "watched": watched,
        }
        for name, value in values.items():
            self.rows[name][slots] = value
        for i, slot in enumerate(slots):
            if request.temperature > 0:
                draws = stream(request.seed, "sample", request.key, number_of_first + i).random(plan.limit)
                self.rows["uniforms"][slot, : plan.limit] = draws
            if watched:
                self.watched[number, number_of_first + i] = _Watched(request.required)

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _draw(self, slots: np.ndarray, logits: torch.Tensor) -> Iterator[Completion | Piece]:
        """Draw a token for each of rows `slots` (n,) from logits (n, V) or (1, V); yield what became known and free the
        rows that ended."""
        rows = self.rows
        count = rows["count"][slots]
        truncation = Truncation(rows["temperature"][slots], rows["top_p"][slots], rows["top_k"][slots])
        narrowed = self._narrowed(slots, logits)
        tokens, log_probabilities = select(narrowed, truncation, rows["uniforms"][slots, count])
        if narrowed is not logits:
            log_probabilities = _log_probabilities(logits, tokens)
        rows["tokens"][slots, count] = tokens
        rows["log_probabilities"][slots, count] = log_probabilities
        rows["count"][slots] = count + 1
        special = self.is_special[tokens]
        full = count + 1 == rows["limit"][slots]
        may_stop = self.may_stop[rows["stops"][slots], tokens] & ~special
        ended = special | full
        for i in np.flatnonzero(may_stop):
            ended[i] |= self._stops(rows[slots[i]])
        pieces = self._watch(slots, logits, ended)
        finished = slots[ended]
        # All are freed before the first is yielded: the caller may never ask for the second.
        completions = [self._completion(rows[slot]) for slot in finished]
        rows["active"][finished] = False
        self.settled &= not len(finished)
        for completion in completions:
            self.watched.pop((completion.request, completion.sample), None)
            self.unfinished[completion.request] -= 1
            if not self.unfinished[completion.request]:
                self._forget(completion.request)
        yield from pieces
        yield from completions

    def _narrowed(self, slots: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
        """The logits with everything ruled out that does not agree with a row's required bytes."""
        rows = self.rows
        bound = [
            (i, required)
            for i in np.flatnonzero(rows["watched"][slots])
            if (required := self._state(rows[slots[i]]).required)
        ]
        if not bound:
            return logits
        if self._healer is None:
            self._healer = Healer(self.token_bytes)
        narrowed = logits.expand(len(slots), -1).clone()
        for i, required in bound:
            allowed = self._healer.allowed(required)
            if not len(allowed):
                raise UserError("no token of the vocabulary spells the required bytes", where="token healing")
            kept = torch.from_numpy(allowed).to(logits.device)
            values = narrowed[i, kept]
            narrowed[i] = -torch.inf
            narrowed[i, kept] = values
        return narrowed

    def _state(self, row: np.void) -> _Watched:
        return self.watched[int(row["plan"]), int(row["sample"])]

    def _watch(self, slots: np.ndarray, logits: torch.Tensor, ended: np.ndarray) -> list[Piece]:
        """Keep what was asked for beside the tokens; the pieces to be told."""
        pieces = []
        best = self._best(slots, logits)
        for i in np.flatnonzero(self.rows["watched"][slots]).tolist():
            row = self.rows[slots[i]]
            number, count, state = int(row["plan"]), int(row["count"]), self._state(row)
            request = self.plans[number].request
            token = int(row["tokens"][count - 1])
            if request.alternatives:
                state.alternatives.append(best[i][: request.alternatives])
            state.required = state.required[len(self.token_bytes[token]) :]
            if number in self.streamed:
                text = self._text(row)
                if ended[i]:
                    at = first_stop(text, request.stops)
                    shown = len(text) if at < 0 else at
                else:
                    shown = len(text) - held_back(text, request.stops)
                shown = max(shown, state.shown)
                newest = state.alternatives[-1] if request.alternatives else []
                log_probability = float(row["log_probabilities"][count - 1])
                pieces.append(
                    Piece(number, int(row["sample"]), token, text[state.shown : shown], log_probability, newest)
                )
                state.shown = shown
        return pieces

    def _best(self, slots: np.ndarray, logits: torch.Tensor) -> dict[int, Alternatives]:
        """The most probable tokens of those rows, by position in `slots`, that were asked for them: as many as any of
        them wants, and fetched from the device at once."""
        rows = self.rows[["watched", "plan"]][slots]
        wanted = {
            i: self.plans[int(rows["plan"][i])].request.alternatives for i in np.flatnonzero(rows["watched"]).tolist()
        }
        asking = [i for i, number in wanted.items() if number]
        if not asking:
            return {}
        at = place(np.minimum(asking, len(logits) - 1), logits.device)
        scores = torch.log_softmax(logits[at].float(), -1)
        values, ids = scores.topk(min(max(wanted.values()), self.vocab_size))
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return {i: list(zip(*pair, strict=True)) for i, pair in zip(asking, pairs, strict=True)}

    def _text(self, row: np.void) -> bytes:
        """The bytes of a row's tokens, without a special token at the end and without what the prompt required."""
        tokens: list[int] = row["tokens"][: row["count"]].tolist()
        if tokens and self.is_special[tokens[-1]]:
            tokens.pop()
        text = b"".join(self.token_bytes[token] for token in tokens)
        return text[len(self.plans[int(row["plan"])].request.required) :]

    def _stops(self, row: np.void) -> bool:
        """Whether the newest token completes a stop string; no earlier one did, or the row had ended."""
        request = self.plans[row["plan"]].request
        if request.required:
            return first_stop(self._text(row), request.stops) >= 0
        text = tail(self.token_bytes, row["tokens"][: row["count"]], max(map(len, request.stops)) - 1)
        return first_stop(text, request.stops) >= 0

    def _completion(self, row: np.void, early: Finish | None = None) -> Completion:
        plan, count = self.plans[int(row["plan"])], int(row["count"])
        tokens: list[int] = row["tokens"][:count].tolist()
        text = self._text(row)
        stop = first_stop(text, plan.request.stops)
        finish: Finish
        if early is not None:
            finish = early
        elif stop >= 0:
            text, finish = text[:stop], "stop"
        elif self.is_special[tokens[-1]]:
            finish = "end"
        else:
            finish = "length" if plan.limit == plan.request.max_new_tokens else "context"
        log_probabilities: list[float] = row["log_probabilities"][:count].tolist()
        state = self.watched.get((int(row["plan"]), int(row["sample"])))
        alternatives = state.alternatives if state else []
        number = int(row["plan"])
        known = self.known.get(number, 0)
        return Completion(
            number, int(row["sample"]), tokens, text, finish, log_probabilities, alternatives, known=known
        )

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
        self.owners = np.full(self.active, NONE_SHARED)
        for number in groups:
            members = np.flatnonzero(owners == number)
            self.owners[members] = len(self.sharings)
            every = len(members) == self.active
            index = None if every else torch.from_numpy(members).to(self.decoder.device)
            self.sharings.append(Sharing(self.held[number], index))
        self.settled = True


def _log_probabilities(logits: torch.Tensor, tokens: np.ndarray) -> np.ndarray:
    """Of tokens (n,) under logits (n, V) or (1, V), float32."""
    scores = torch.log_softmax(logits.float(), -1).expand(len(tokens), -1)
    return scores.gather(1, torch.from_numpy(tokens).to(logits.device)[:, None])[:, 0].cpu().numpy()
