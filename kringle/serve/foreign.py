"""Models of other families, computed by `transformers` and served like ours, with less speed.

One request at a time, its samples as one batch; the others wait in a queue of the same bound. Drawing, stop strings,
streaming, cancelling and deadlines are as in ours. Not done for them: continuous batching, prompts known from earlier
requests, token healing, speculation. Filling in is in the family's own format, where
`kringle.generation.fim_formats` knows it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from kringle.errors import UserError
from kringle.evaluation.foreign import ForeignModel, Step
from kringle.generation.fim_formats import infilling_ids
from kringle.generation.requests import Alternatives, Completion, Finish, Piece, Request
from kringle.generation.service import Busy, Ticket
from kringle.generation.stops import first_stop, held_back
from kringle.serve.models import Load, ModelOptions, scored
from kringle.serve.prompting import STEPS, PromptIds, cut, room_for_prompt
from kringle.tokens.tokenizer import byte_of_character

SPACE, BYTE_LEVEL_SPACE = "▁", "Ġ"  # how SentencePiece and byte-level vocabularies write a space


class ForeignServed:
    """A `transformers` model behind `kringle.serve.models.ServedModel`."""

    engine = "transformers"

    def __init__(self, name: str, folder: Path, options: ModelOptions) -> None:
        if options.precision == "int8":
            raise UserError("other libraries' models run in fp32 or bf16, not int8", where="--precision")
        self.name = name
        self._foreign = ForeignModel(folder, "fp32" if options.precision == "auto" else options.precision)
        self._order = options.order or "spm"
        self.context = self._foreign.context
        self.parameters = sum(parameter.numel() for parameter in self._foreign.model.parameters())
        self.vocab_size = len(self._foreign.tokenizer)
        self._bytes = _token_bytes(self._foreign)
        self._queue = _Queue(self._foreign, self._bytes, options.waiting)

    @property
    def fills_gaps(self) -> bool:
        return self._foreign.format is not None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._foreign.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def token(self, id: int) -> bytes:
        return self._bytes[id] if 0 <= id < len(self._bytes) else b""

    def special(self, id: int) -> str:
        tokenizer = self._foreign.tokenizer
        known = id in tokenizer.all_special_ids or id in self._foreign.ends
        return str(tokenizer.convert_ids_to_tokens(id)) if known else ""

    def prompt(self, prefix: str, suffix: str, new_tokens: int, *, heal: bool) -> PromptIds:
        foreign = self._foreign
        room, step = room_for_prompt(self.context, new_tokens), max(1, self.context // STEPS)
        if not suffix:
            ids = foreign.prompt(prefix)
            kept, _ = cut(ids, [], room, step)
            return PromptIds(kept or ids[-1:], truncated=len(kept) < len(ids))
        entry = foreign.format
        assert entry is not None, "asked to fill in"
        before, after = self.encode(prefix), self.encode(suffix)
        special = len(entry.begin) + len(entry.psm) - 2
        kept_before, kept_after = cut(before, after, room - special, step)
        mode = self._order if entry.spm else "psm"
        to_id = foreign.tokenizer.convert_tokens_to_ids
        ids = infilling_ids(entry, to_id, kept_before, kept_after, mode=mode, room=room)
        whole = len(kept_before) + len(kept_after) == len(before) + len(after)
        return PromptIds(ids, truncated=not whole)

    def submit(self, request: Request, *, deadline: float, woken: Callable[[], None]) -> Ticket:
        length = len(request.prompt)
        if length + 1 > self.context:
            raise UserError(
                f"the prompt has {length} tokens, and the context of {self.context} must also hold one new token",
                where="prompt",
            )
        if max(request.prompt) >= self.vocab_size or min(request.prompt) < 0:
            raise UserError(f"ids run from 0 to {self.vocab_size - 1}", where="prompt")
        return self._queue.submit(request, time.monotonic() + deadline, woken)

    def score(self, ids: Sequence[int], alternatives: int) -> tuple[list[float], list[Alternatives]]:
        with torch.inference_mode():
            tokens = torch.tensor([list(ids)], device=self._foreign.model.device)
            logits = self._foreign.model(input_ids=tokens).logits[0, :-1].float()
            return scored(torch.log_softmax(logits, -1), tokens[0, 1:], alternatives)

    @property
    def load(self) -> Load:
        return self._queue.load

    def close(self) -> None:
        self._queue.close()


def _token_bytes(foreign: ForeignModel) -> list[bytes]:
    """The bytes of every id, none for those that are special: from the spelling of a byte-level vocabulary, or of
    SentencePiece's with its byte tokens."""
    tokenizer = foreign.tokenizer
    spellings: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids) | set(foreign.ends.tolist())
    added = {id: str(token.content) for id, token in tokenizer.added_tokens_decoder.items()}
    byte_of = byte_of_character()
    byte_level = any(spelling.startswith(BYTE_LEVEL_SPACE) for spelling in spellings if spelling)

    def raw(id: int, spelling: str | None) -> bytes:
        if spelling is None or id in special:
            return b""
        if id in added:
            return added[id].encode()
        if byte_level:
            return b"".join(
                bytes([byte_of[character]]) if character in byte_of else character.encode() for character in spelling
            )
        if len(spelling) == 6 and spelling.startswith("<0x") and spelling.endswith(">"):
            return bytes([int(spelling[3:5], 16)])
        return spelling.replace(SPACE, " ").encode()

    return [raw(id, spelling) for id, spelling in enumerate(spellings)]


@dataclass
class _Row:
    """One sample in the making."""

    number: int
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    text: bytes = b""
    shown: int = 0


class _Queue:
    """A thread that runs one request after the other."""

    def __init__(self, foreign: ForeignModel, token_bytes: Sequence[bytes], waiting: int) -> None:
        self._foreign, self._bytes, self._most_waiting = foreign, token_bytes, waiting
        self._ends = set(foreign.ends.tolist())
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Ticket, float]] = deque()
        self._running: Ticket | None = None
        self._cancelled: set[int] = set()
        self._closing = False
        self._tokens = self._busy = 0
        self._thread = threading.Thread(target=self._run, name="kringle-foreign", daemon=True)
        self._thread.start()

    @property
    def load(self) -> Load:
        with self._condition:
            return Load(1, self._busy, len(self._waiting) + (self._running is not None), self._tokens)

    def submit(self, request: Request, deadline: float, woken: Callable[[], None]) -> Ticket:
        ticket = Ticket(self, request, woken=woken)
        with self._condition:
            if self._closing:
                raise UserError("the service is closed", where="sampling")
            if len(self._waiting) >= self._most_waiting:
                raise Busy(f"{self._most_waiting} requests are waiting already", where="sampling", hint="try later")
            self._waiting.append((ticket, deadline))
            self._condition.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        with self._condition:
            if not ticket.done:
                self._cancelled.add(id(ticket))

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._closing or self._waiting):
                    self._condition.wait()
                if not self._waiting:
                    return
                ticket, deadline = self._waiting.popleft()
                self._running = ticket
            try:
                self._complete(ticket, deadline)
            except Exception as error:  # this request's to tell; the next one is run all the same
                ticket.finish(error)
            with self._condition:
                self._running, self._busy = None, 0
                self._cancelled.discard(id(ticket))

    def _early(self, ticket: Ticket, deadline: float) -> Finish | None:
        with self._condition:
            if self._closing or id(ticket) in self._cancelled:
                return "cancelled"
        return "deadline" if time.monotonic() > deadline else None

    def _complete(self, ticket: Ticket, deadline: float) -> None:
        request = ticket.request
        limit = min(request.max_new_tokens, self._foreign.context - len(request.prompt))
        rows = [_Row(request.first + i) for i in range(request.samples)]
        steps = self._foreign.steps(request, np.array([row.number for row in rows]), limit)
        self._busy = len(rows)
        step: Step | None = None
        going: list[int] = []
        while rows:
            early = self._early(ticket, deadline)
            if early is not None:
                for row in rows:
                    ticket.complete(_completion(row, early))
                return
            step = next(steps) if step is None else steps.send(np.array(going))
            going = []
            for place, row in enumerate(rows):
                finish = self._take(ticket, row, step, place, limit)
                if finish is None:
                    going.append(place)
                else:
                    ticket.complete(_completion(row, finish))
            rows = [rows[place] for place in going]
            self._busy = len(rows)

    def _take(self, ticket: Ticket, row: _Row, step: Step, place: int, limit: int) -> Finish | None:
        """Add the new token to a row and tell it; how the row ends, if it does."""
        request, token = ticket.request, int(step.tokens[place])
        row.tokens.append(token)
        row.log_probabilities.append(float(step.log_probabilities[place]))
        newest: Alternatives = []
        if request.alternatives:
            newest = _alternatives(step.logits[min(place, len(step.logits) - 1)], request.alternatives)
            row.alternatives.append(newest)
        self._tokens += 1
        row.text += self._bytes[token] if token < len(self._bytes) else b""
        finish: Finish | None = None
        stop = first_stop(row.text, request.stops)
        if stop >= 0:
            row.text, finish = row.text[:stop], "stop"
        elif token in self._ends or (token < len(self._bytes) and not self._bytes[token]):
            finish = "end"
        elif len(row.tokens) == limit:
            finish = "length" if limit == request.max_new_tokens else "context"
        border = len(row.text) - (held_back(row.text, request.stops) if finish is None else 0)
        shown = row.text[row.shown : max(border, row.shown)]
        row.shown = max(border, row.shown)
        ticket.tell(Piece(0, row.number, token, shown, row.log_probabilities[-1], newest))
        return finish


def _alternatives(logits: torch.Tensor, count: int) -> Alternatives:
    best = torch.log_softmax(logits, -1).topk(min(count, len(logits)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _completion(row: _Row, finish: Finish) -> Completion:
    return Completion(0, row.number, row.tokens, row.text, finish, row.log_probabilities, row.alternatives)
