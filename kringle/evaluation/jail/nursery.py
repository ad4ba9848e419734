"""Where jails come from: one fresh interpreter, started once, of which every jail's first process is a copy.

To start an interpreter and to load what a jail's first process needs takes ten times as long as to build the jail. The
nursery holds what is loaded and nothing else: no program, no test, nothing of the host's memory or environment.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from kringle.evaluation.jail.inside.wire import Malformed, Message, receive, send

_PATIENCE = 20.0  # seconds for the nursery to answer on a loaded machine
_lock = threading.Lock()
_current: Nursery | None = None


class Copy:
    """A process that the nursery has started, with those parts of a `Popen` that a jail needs."""

    def __init__(self, nursery: Nursery, pid: int, stderr: IO[bytes]) -> None:
        self.pid, self.stderr = pid, stderr
        self._nursery = nursery
        self._handle = os.pidfd_open(pid)  # nobody reaps it before we say so: the number is still its own
        self._ended = False

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended; subprocess.TimeoutExpired after so many seconds."""
        if self._ended:
            return
        poller = select.poll()
        poller.register(self._handle, select.POLLIN)
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired("jail", timeout or 0.0)
        self._ended = True
        os.close(self._handle)
        self._nursery.reap(self.pid)

    def kill(self) -> None:
        """End it now."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)


class Nursery:
    """The process that makes copies of itself; it ends when this one closes its socket, or ends in any way."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_PATIENCE)
        with theirs:
            self._process = interpreter(command, environment, theirs)

    def start(self, channel: socket.socket) -> Copy:
        """A copy that builds a jail for the host at the other end of `channel`. OSError if there is none to be had."""
        reader, writer = os.pipe()
        stderr = os.fdopen(reader, "rb", buffering=0)
        try:
            answer: Message | None = None
            send(self._socket, {}, (channel.fileno(), writer))
            with contextlib.suppress(Malformed):  # it was killed in the middle of a word
                answer = receive(self._socket)
            if answer is None:
                raise ConnectionResetError(f"no interpreter can be started: {self._last_words()}")
            return Copy(self, int(answer["pid"]), stderr)
        except BaseException:
            stderr.close()
            raise
        finally:
            os.close(writer)

    def reap(self, pid: int) -> None:
        """Let a process that has ended go; if the nursery is gone, the system has done so."""
        with _lock, contextlib.suppress(OSError):
            send(self._socket, {"reap": pid})

    def close(self) -> None:
        """End it. What it has started lives on."""
        self._socket.close()
        if self.owner == os.getpid():
            try:
                self._process.wait(timeout=_PATIENCE / 4)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
            if self._process.stderr is not None:
                words = self._process.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
                return words[-1] if words else ""
        return ""


def interpreter(
    command: Sequence[str], environment: Mapping[str, str], channel: socket.socket
) -> subprocess.Popen[bytes]:
    """A fresh interpreter with nothing of ours but its end of a channel, whose number ends the command."""
    return subprocess.Popen(
        [*command, str(channel.fileno())],
        pass_fds=(channel.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the host to handle
    )


@functools.cache
def possible() -> bool:
    """Whether this system, and this Python, have handles of processes, without which a copy's end could not be waited
    for."""
    if sys.platform != "linux" or not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def start(command: Sequence[str], environment: Mapping[str, str], channel: socket.socket) -> Copy:
    """A copy of this process's nursery, which is started (by `command`) when it is first needed, or has been lost."""
    global _current
    with _lock:
        if _current is not None and _current.owner == os.getpid():
            with contextlib.suppress(OSError):
                return _started(_current, channel)
        if _current is not None:
            _current.close()
        _current = Nursery(command, environment)
        return _started(_current, channel)


def _started(nursery: Nursery, channel: socket.socket) -> Copy:
    """Its copy. One that was interrupted in the middle is let go: its answer would be taken for the next one's."""
    global _current
    try:
        return nursery.start(channel)
    except BaseException:
        nursery.close()
        _current = None
        raise


@atexit.register
def close() -> None:
    """End this process's nursery, if it has one."""
    global _current
    with _lock:
        if _current is not None:
            _current.close()
            _current = None
