"""Talking with the processes of a jail: those that serve many programs, and those that run one.

Whatever such a process sends, nothing here waits for it longer than it should, and nothing here believes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from select import POLLHUP, POLLIN, poll

from kringle.evaluation.jail.host import Ended, Jail, JailError, Way
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send


class Service:
    """A process of the jail that serves many programs, and which problems' tests it already has."""

    def __init__(self, jail: Jail, role: str, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = jail.start(role, theirs, memory=memory)
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
        jail.stop(self.pid)
        jail.wait(self.pid)

    def close(self) -> None:
        """Let go of the process; it ends with its jail."""
        self.socket.close()


class Cell:
    """A jail with one service in it; both are started when first needed."""

    def __init__(self, way: Way, memory: int, role: str, service_memory: int) -> None:
        self._way, self._memory, self._role, self._service_memory = way, memory, role, service_memory
        self._jail: Jail | None = None
        self._service: Service | None = None

    @property
    def jail(self) -> Jail:
        if self._jail is None:
            self._jail = Jail(self._way, self._memory)
        return self._jail

    @property
    def service(self) -> Service:
        if self._service is None:
            self._service = Service(self.jail, self._role, self._service_memory)
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


def follow(
    jail: Jail, pid: int, inbox: Inbox, output: int, most: int, patience: float
) -> tuple[Message | None, Ended, bool]:
    """Drain a program's output and wait for the word on it, then end it.

    output is the reading end of its pipe, most the bytes that it may print, patience the seconds until the jail must
    have ended it. Returns the message, how the process ended, and whether it printed more than its limit.
    """
    deadline = time.monotonic() + patience
    poller = poll()
    for source in (jail.fileno(), inbox.fileno(), output):
        poller.register(source, POLLIN | POLLHUP)
    os.set_blocking(output, False)
    message: Message | None = None
    printed, stopped = 0, False
    while (ended := jail.ended(pid)) is None:
        ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise JailError("a program was not ended in time")
        for source, _ in ready:
            if source == jail.fileno():
                jail.look()
            elif source == output:
                printed += _drain(output, poller)
            else:
                inbox.fill()
                message = message or _take(inbox)
                if inbox.closed:
                    poller.unregister(inbox.fileno())
        if not stopped and (message is not None or printed > most):
            jail.stop(pid)
            stopped = True
    jail.wait(pid)
    inbox.fill()
    message = message or _take(inbox)
    printed += _drain(output, None)
    return message, ended, printed > most


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


def _drain(output: int, poller: poll | None) -> int:
    """Read and forget what a program printed so far; returns how many bytes that was."""
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


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe for one program's output; the caller closes the writing end once it has been handed on."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
