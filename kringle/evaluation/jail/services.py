"""Talking with the processes of a jail: those that serve many programs, and those that run one.

Whatever such a process sends, nothing here waits for it longer than it should, and nothing here believes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from select import POLLHUP, POLLIN, poll
from typing import NamedTuple

from kringle.evaluation.jail.host import Ended, Jail, JailError, Way
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send
from kringle.evaluation.jail.runtimes import Runtime

_TAIL = 4096  # bytes of a program's output that are looked at
_BEAT = 0.25  # seconds between two looks at the clock while a program runs
_LATE = 0.5  # seconds beyond a beat after which we were stopped or starved, and a program may have waited for us


class Heart:
    """Notices when this side did not run: a program that waited meanwhile did not wait of its own accord.

    A stop from the terminal (Ctrl-Z) stops us and not the jail, and so may a machine that is busy elsewhere.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._late = False

    def poll(self, poller: poll, deadline: float) -> list[tuple[int, int]]:
        """Poll until something is ready, or a beat is over, or a deadline of the monotonic clock has come."""
        ready = poller.poll(max(0.0, min(deadline - time.monotonic(), _BEAT)) * 1000)
        now = time.monotonic()
        self._late |= now - self._last > _BEAT + _LATE
        self._last = now
        return ready

    def judged(self, ended: Ended) -> Ended:
        """How a process ended, as far as we can tell: not by its own idleness where we were late ourselves."""
        return replace(ended, because="wall") if self._late and ended.because == "idle" else ended


class Service:
    """A process of the jail that serves many programs, and which problems' tests it already has."""

    def __init__(
        self, jail: Jail, role: str, memory: int, command: Sequence[str] | None = None, channel_at: int = 3
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.number = jail.start(role, theirs, memory=memory, command=command, channel_at=channel_at)
        self.socket = ours
        self.inbox = Inbox(ours)
        self.problems: set[str] = set()
        self.served = 0

    def ask(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send a request; the service is always listening when it is asked, so this does not wait for long."""
        self.served += 1
        self.socket.setblocking(True)
        try:
            send(self.socket, message, descriptors)
        finally:
            self.socket.setblocking(False)

    def retire(self, jail: Jail) -> None:
        """End the process."""
        self.close()
        jail.stop(self.number)
        jail.wait(self.number)

    def close(self) -> None:
        """Let go of the process; it ends with its jail."""
        self.socket.close()


class Cell:
    """A jail with one service in it; both are started when first needed."""

    def __init__(
        self,
        way: Way,
        memory: int,
        role: str,
        service_memory: int,
        runtime: Runtime | None = None,
        command: Sequence[str] | None = None,
        channel_at: int = 3,
    ) -> None:
        self._way, self._memory, self._role, self._service_memory = way, memory, role, service_memory
        self._runtime, self._command, self._channel_at = runtime, command, channel_at
        self._jail: Jail | None = None
        self._service: Service | None = None

    @property
    def jail(self) -> Jail:
        if self._jail is None:
            self._jail = Jail(self._way, self._memory, self._runtime)
        return self._jail

    @property
    def service(self) -> Service:
        if self._service is None:
            self._service = Service(self.jail, self._role, self._service_memory, self._command, self._channel_at)
        return self._service

    def retire_service(self) -> None:
        """End the service; the next one will be fresh."""
        if self._service is not None:
            self._service.retire(self.jail)
            self._service = None

    def close(self) -> None:
        """End everything in the jail; the next use builds another."""
        if self._service is not None:
            self._service.close()
            self._service = None
        if self._jail is not None:
            self._jail.close()
            self._jail = None


class Bounds(NamedTuple):
    """The bytes that a program may print, and the seconds of wall time until its jail must have ended it."""

    output_bytes: int
    patience: float


def follow(
    jail: Jail,
    number: int,
    inbox: Inbox,
    output: int,
    bounds: Bounds,
    tail: bytearray | None = None,
    parting: float = 0.0,
) -> tuple[Message | None, Ended, bool]:
    """Drain a program's output and wait for the word on it, then end it.

    output is the reading end of its pipe; `tail` gets the end of what it printed; parting are the seconds that it has
    to end by itself once the word on it is here, which is cheaper than to stop it. Returns the message, how the process
    ended, and whether it printed more than its limit.
    """
    heart, deadline = Heart(), time.monotonic() + bounds.patience
    poller = poll()
    for source in (jail.fileno(), inbox.fileno(), output):
        poller.register(source, POLLIN | POLLHUP)
    os.set_blocking(output, False)
    message: Message | None = None
    printed, stopped = 0, False
    leave = deadline  # when the process is stopped if it has not ended by itself after the word on it
    while (ended := jail.ended(number)) is None:
        ready = heart.poll(poller, deadline if stopped else leave)
        if not ready and time.monotonic() >= deadline:
            raise JailError("a program was not ended in time")
        for source, _ in ready:
            if source == jail.fileno():
                jail.look()
            elif source == output:
                printed += _drain(output, poller, tail)
            else:
                inbox.fill()
                message = message or _take(inbox)
                if message is not None:
                    leave = min(leave, time.monotonic() + parting)
                if inbox.closed:
                    poller.unregister(inbox.fileno())
        if not stopped and (printed > bounds.output_bytes or (message is not None and time.monotonic() >= leave)):
            jail.stop(number)
            stopped = True
    jail.wait(number)
    inbox.fill()
    message = message or _take(inbox)
    printed += _drain(output, None, tail)
    return message, heart.judged(ended), printed > bounds.output_bytes


def relay(
    jail: Jail,
    number: int,
    program: socket.socket,
    referee: Service,
    request: Message,
    output: int,
    bounds: Bounds,
) -> tuple[Message | None, Ended, bool]:
    """Carry questions from a referee to a program and its answers back, until the referee's word on it; then end it.

    For runtimes that cannot be handed a connection. `request` goes to the referee once the program has loaded. Other
    arguments and the result as `follow`; the word is the referee's, or `unloaded` for a program that never got so far,
    or None for one that ended before.
    """
    inbox = Inbox(program)
    heart, deadline = Heart(), time.monotonic() + bounds.patience
    poller = poll()
    for source in (jail.fileno(), inbox.fileno(), referee.inbox.fileno(), output):
        poller.register(source, POLLIN | POLLHUP)
    os.set_blocking(output, False)
    word: Message | None = None
    asked_referee, waiting, printed, stopped = False, False, 0, False
    while (ended := jail.ended(number)) is None:
        ready = heart.poll(poller, deadline)
        if not ready and time.monotonic() >= deadline:
            raise JailError("a program was not ended in time")
        for source, _ in ready:
            if source == jail.fileno():
                jail.look()
            elif source == output:
                printed += _drain(output, poller)
            elif source == inbox.fileno():
                inbox.fill()
                while (said := _take(inbox)) is not None:
                    if "loaded" in said and not asked_referee:
                        asked_referee = True
                        referee.ask(request)
                    elif waiting:
                        waiting = False
                        referee.ask({"answer": said})
                    elif word is None:
                        raised = said.get("raised", "it said something that nobody had asked for")
                        word = {"outcome": "unloaded", "evidence": str(raised)}
                        break
                if inbox.closed:
                    poller.unregister(inbox.fileno())
            else:
                referee.inbox.fill()
                asked = referee.inbox.take()
                if asked is not None and "ask" in asked:
                    waiting = _tell(program, asked["ask"])
                elif asked is not None:
                    word = asked
                elif referee.inbox.closed:
                    raise JailError("the referee ended")
        if not stopped and (word is not None or printed > bounds.output_bytes):
            jail.stop(number)
            stopped = True
    jail.wait(number)
    printed += _drain(output, None)
    if asked_referee and (word is None or word["outcome"] == "unloaded"):
        # It still waits for an answer that nobody will give; what it says now keeps it in step with us.
        word = _last_word(jail, referee, bounds.patience) or word
    return word, heart.judged(ended), printed > bounds.output_bytes


def _last_word(jail: Jail, referee: Service, patience: float) -> Message | None:
    deadline = time.monotonic() + patience
    referee.ask({"gone": "its process ended"})
    while True:
        said = first_message(jail, referee, max(0.0, deadline - time.monotonic()))
        if said is None:
            raise JailError("the referee did not answer")
        if "ask" not in said:
            return said


def _tell(program: socket.socket, question: Message) -> bool:
    """Ask a program something; False if it is gone. Waits while it does not read, but its time is limited."""
    program.setblocking(True)
    try:
        send(program, question)
    except OSError:
        return False
    finally:
        program.setblocking(False)
    return True


def first_message(jail: Jail, service: Service, patience: float) -> Message | None:
    """The next message of a service; None if it ends, or says nothing for too long."""
    poller = poll()
    poller.register(jail.fileno(), POLLIN)
    poller.register(service.inbox.fileno(), POLLIN | POLLHUP)
    deadline = time.monotonic() + patience
    while not service.inbox.closed:
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            return None
        for source, _ in ready:
            if source == jail.fileno():
                jail.look()
            else:
                service.inbox.fill()
        message = service.inbox.take()
        if message is not None:
            return message
    return None


def _take(inbox: Inbox) -> Message | None:
    """A message from a process that may send anything: nonsense becomes a message that is no report."""
    try:
        return inbox.take()
    except Malformed as error:
        return {"outcome": None, "evidence": str(error)}


def _drain(output: int, poller: poll | None, tail: bytearray | None = None) -> int:
    """Read and forget what a program printed so far, but for its end; returns how many bytes that was."""
    total = 0
    while True:
        try:
            piece = os.read(output, 1 << 16)
        except BlockingIOError:
            return total
        if not piece:
            if poller is not None:
                poller.unregister(output)
            return total
        total += len(piece)
        if tail is not None:
            tail += piece
            del tail[:-_TAIL]


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe for one program's output; the caller closes the writing end once it has been handed on."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
