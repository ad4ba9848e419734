"""An engine on a thread of its own, for callers on other threads: what a server needs.

    with Service(model, tokenizer, rows=16) as service:
        ticket = service.submit(Request(prompt, max_new_tokens=64, stops=(b"\\n",)), deadline=20.0)
        for piece in ticket:              # kringle.generation.requests.Piece, one per token
            ...
        completions = ticket.result()     # kringle.generation.requests.Completion, one per sample, in their order

`submit` may be called from any thread and refuses what cannot run with UserError at once. `Ticket.cancel` ends a
request early from any thread; so does leaving the service. Requests are started in the order of submitting, as rows
become free, and advance together. Where a prompt cannot be run (no memory for it), its own ticket raises the fault;
where a step fails (logits that are not numbers), those in flight do. Either way the engine goes on with the next ones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from kringle.errors import UserError
from kringle.generation.engine import Engine
from kringle.generation.requests import Completion, Fault, Piece, Request, Vocabulary
from kringle.generation.weights import Precision
from kringle.model.transformer import Transformer

SERVICE_ROWS = 16  # samples that advance together; more wait. Two cores give each of 16 a sixteenth of their arithmetic


class Busy(UserError):
    """As many requests are waiting as may wait."""


class Ticket:
    """One submitted request. Iterating gives its pieces as they are drawn and ends when all its samples have ended.

    A caller that cannot wait on a thread gives `woken`: it is called, on the service's thread, whenever there is a new
    piece and at the end, and asks `poll` then.
    """

    def __init__(self, service: Canceller, request: Request, *, woken: Callable[[], None] | None = None) -> None:
        self.request = request
        self._woken = woken or _nobody
        self._service = service
        self._events: queue.SimpleQueue[Piece | Completion | None] = queue.SimpleQueue()
        self._completions: list[Completion] = []
        self._error: BaseException | None = None
        self._done = threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        """Pieces, once; raises the fault that ended the request, if one did."""
        while (piece := self.next()) is not None:
            yield piece

    def next(self, timeout: float | None = None) -> Piece | None:
        """The next piece, or None at the end; `queue.Empty` after `timeout` seconds without one."""
        while True:
            event = self._events.get(timeout=timeout)
            if event is None:
                self._events.put(None)  # whoever asks again is told the same
                if self._error is not None:
                    raise self._error
            if not isinstance(event, Completion):
                return event

    def poll(self) -> list[Piece | Completion]:
        """What became known since the last call, without waiting: pieces, and the completion of each sample after its
        last one. Raises the fault that ended the request once all before it has been told."""
        events: list[Piece | Completion] = []
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return events
            if event is None:
                self._events.put(None)
                if self._error is not None and not events:
                    raise self._error
                return events
            events.append(event)

    def result(self, timeout: float | None = None) -> list[Completion]:
        """All completions, ordered by sample; waits for them. TimeoutError after `timeout` seconds, or the fault that
        ended the request."""
        if not self._done.wait(timeout):
            raise TimeoutError("the request has not ended yet")
        if self._error is not None:
            raise self._error
        return sorted(self._completions, key=lambda completion: completion.sample)

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def cancel(self) -> None:
        """End it soon, with finish `cancelled` and what there is; does nothing if it has ended."""
        self._service.cancel(self)

    # -- for the service -----------------------------------------------------------------------------------------------

    def tell(self, piece: Piece) -> None:
        self._events.put(piece)
        self._woken()

    def complete(self, completion: Completion) -> bool:
        """Take one sample's completion; whether it was the last one, which ends the ticket."""
        self._completions.append(completion)
        self._events.put(completion)
        if len(self._completions) < self.request.samples:
            self._woken()
            return False
        self.finish()
        return True

    def finish(self, error: BaseException | None = None) -> None:
        if not self._done.is_set():
            self._error = error
            self._done.set()
            self._events.put(None)
            self._woken()


def _nobody() -> None:
    """Who waits in `next` needs no call."""


class Canceller(Protocol):
    """What a ticket needs of the service that made it."""

    def cancel(self, ticket: Ticket) -> None: ...


class Service:
    """A model that serves requests from any thread until it is closed.

    `rows` samples advance together; each row holds up to the model's context. `memory_limit`, in bytes, bounds keys,
    values and logits (None: what is free now); where the rows do not fit, UserError says how many would. At most
    `waiting` requests may wait for a row (None: any number); one more is refused with `Busy`. Speculation applies to a
    request alone in flight; everything else is the engine's (`kringle.generation.engine`).
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Vocabulary,
        *,
        rows: int = SERVICE_ROWS,
        memory_limit: int | None = None,
        precision: Precision | None = None,
        waiting: int | None = None,
        invariant: bool = False,
        prefix_bytes: int = 0,
    ) -> None:
        self._engine = Engine(
            model,
            tokenizer,
            rows=rows,
            memory_limit=memory_limit,
            precision=precision,
            invariant=invariant,
            prefix_bytes=prefix_bytes,
        )
        self._most_waiting = waiting
        self._condition = threading.Condition()
        self._new: deque[tuple[Ticket, float | None]] = deque()
        self._cancelled: list[Ticket] = []
        self._tickets: dict[int, Ticket] = {}
        self._closing = False
        self._started, self._tokens = time.monotonic(), 0
        self._thread = threading.Thread(target=self._run, name="kringle-sampling", daemon=True)
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def context(self) -> int:
        """Positions that prompt and completion share."""
        return self._engine.config.context

    @property
    def load(self) -> tuple[int, int, int]:
        """(busy rows, requests that have not ended, tokens drawn so far), as of now."""
        with self._condition:
            return self._engine.active, len(self._tickets) + len(self._new), self._tokens

    def submit(
        self, request: Request, *, deadline: float | None = None, woken: Callable[[], None] | None = None
    ) -> Ticket:
        """Queue a request; `deadline` is in seconds from now. UserError for what this model cannot run."""
        request.check(self._engine.config, self._engine.vocab_size)
        ticket = Ticket(self, request, woken=woken)
        with self._condition:
            if self._closing:
                raise UserError("the service is closed", where="sampling")
            if self._most_waiting is not None and len(self._new) + self._queued() >= self._most_waiting:
                raise Busy(f"{self._most_waiting} requests are waiting already", where="sampling", hint="try later")
            self._new.append((ticket, None if deadline is None else time.monotonic() + deadline))
            self._condition.notify()
        return ticket

    def close(self, timeout: float | None = None) -> None:
        """Cancel what is in flight and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _queued(self) -> int:
        return len(self._engine.waiting)

    def cancel(self, ticket: Ticket) -> None:
        """As `Ticket.cancel`."""
        with self._condition:
            self._cancelled.append(ticket)
            self._condition.notify()

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._receive():
            try:
                for event in self._engine.advance():
                    self._tell(event)
            except (
                Exception
            ) as error:  # whatever it was, it is the tickets' to raise; the next ones find a fresh engine
                self._fail(error)
        for number in list(self._tickets):
            for completion in self._engine.cancel(number):
                self._tell(completion)

    def _receive(self) -> bool:
        """Take over what other threads asked for; waits while there is nothing to do. False when closing."""
        with self._condition:
            while not (self._closing or self._new or self._cancelled or not self._engine.idle):
                self._condition.wait()
            new, self._new = self._new, deque()
            cancelled, self._cancelled = self._cancelled, []
            closing = self._closing
        for ticket, deadline in new:
            try:
                number = self._engine.add(ticket.request, deadline=deadline, streaming=True)
            except Exception as error:
                ticket.finish(error)
            else:
                self._tickets[number] = ticket
        for ticket in cancelled:
            number = next((n for n, t in self._tickets.items() if t is ticket), -1)
            for completion in self._engine.cancel(number):
                self._tell(completion)
        return not closing

    def _tell(self, event: Completion | Piece | Fault) -> None:
        ticket = self._tickets.get(event.request)
        if ticket is None:
            return
        if isinstance(event, Fault):
            del self._tickets[event.request]
            ticket.finish(event.error)
            return
        if isinstance(event, Piece):
            self._tokens += 1
            ticket.tell(event)
            return
        if ticket.complete(event):
            del self._tickets[event.request]

    def _fail(self, error: Exception) -> None:
        broken, self._tickets = self._tickets, {}
        self._engine.reset()
        for ticket in broken.values():
            ticket.finish(error)
