"""The first process of a jail: starts the others, watches their limits, ends them. It never sees a program or a test.

Its children are copies of it (fork), so what it does not hold they cannot find in their memory: a program's text goes
from the host straight to the process that runs it, and the tests go to processes that the program is not in.

Roles of its children:
- `warm`: runs harmless programs one after another, together with their tests (`warm.py`);
- `together`: runs one program with its tests (`together.py`);
- `apart`: runs one program and answers calls to it (`apart.py`);
- `referee`: runs the tests, calling programs that run apart (`referee.py`);
- `runtime`: becomes another language's runtime, which then plays one of these parts (`become.py`).

Every page that this process or its child writes to after a fork is copied, at two to three microseconds a page. So what
a fork can pass on is made before it, and neither side runs more of Python, nor loads more, than it needs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` around it looks up names of numbers at every call
import errno
import gc
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from . import apart, become, execute, linux, referee, seccomp, together, warm, wire

ROLES: dict[str, Callable[[int], None]] = {
    "warm": warm.main,
    "together": together.main,
    "apart": apart.main,
    "referee": referee.main,
}
OUT_OF_MEMORY = errno.ENOMEM  # exit status of a child that could not say so in a message
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.5  # seconds between two looks at the running programs' clocks
_HIGHEST_DESCRIPTOR = 256


class Child:
    """A process under watch, by the host's number for it. Times in seconds; its CPU time includes the companion's (the
    referee's).

    `idle_share` is of the second half of its wall time: a program that used less of it was waiting, not starved.
    """

    def __init__(self, request: wire.Message, companion: int | None) -> None:
        self.number: int = request["number"]
        self.pid = 0
        self.started = time.monotonic()
        self.cpu_limit: float | None = request["cpu"]
        self.wall_limit: float | None = request["wall"]
        self.idle_share: float = request["idle_share"]
        self.companion = companion
        self.companion_cpu_before = (linux.cpu_seconds(companion) or 0.0) if companion else 0.0
        self.cpu_at_half_time: float | None = None
        self.ended_because: str | None = None

    def cpu(self) -> float:
        return (linux.cpu_seconds(self.pid) or 0.0) + self.companion_cpu()

    def companion_cpu(self) -> float:
        if self.companion is None:
            return 0.0
        return max(0.0, (linux.cpu_seconds(self.companion) or 0.0) - self.companion_cpu_before)


class Keeper:
    """Serves one host over one socket until the host closes it or dies."""

    def __init__(self, control: socket.socket, address_space: int | None, filtered: bool, scratch: str | None) -> None:
        self._control = control
        self._scratch = scratch
        self._address_space = address_space
        self._filtered = filtered
        self._children: dict[int, Child] = {}  # by process number
        self._first = os.getpid() == 1  # of a process namespace: the kernel then ends all others with this one
        self._null = os.open("/dev/null", os.O_RDWR)
        self._wake_reader, self._wake_writer = os.pipe()
        for descriptor in (self._wake_reader, self._wake_writer):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        execute.prepare_interpreter()
        random.seed(execute.SEED)
        self._filter = seccomp.Prepared(linux.machine()) if self._filtered else None
        gc.collect()
        gc.freeze()  # children share these objects' pages with us for as long as no collector touches them
        look = time.monotonic()
        while True:
            started = False
            for descriptor, _ in poller.poll(max(0.0, look - time.monotonic()) * 1000):
                if descriptor == self._wake_reader:
                    os.read(self._wake_reader, 4096)
                    self._reap()
                elif self._obey():
                    started = True
                else:
                    self._end()
            if started or time.monotonic() >= look:
                self._enforce()
                look = time.monotonic() + self._wait()

    def _obey(self) -> bool:
        received = wire.receive_with_descriptors(self._control, 2)
        if received is None:
            return False
        request, descriptors = received
        if request["do"] == "start":
            self._start(request, descriptors)
        else:
            child = self._numbered(request["number"])
            if child is not None:
                self._stop(child, "stopped")
        return True

    def _numbered(self, number: int | None) -> Child | None:
        for child in self._children.values():
            if child.number == number:
                return child
        return None

    def _end(self) -> None:
        """The host is gone. Without a process namespace nobody else would end our children."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def _start(self, request: wire.Message, descriptors: list[int]) -> None:
        companion = self._numbered(request["companion"])
        child = Child(request, companion.pid if companion else None)
        child.pid = os.fork()
        if child.pid == 0:
            self._become(request, descriptors)
        self._children[child.pid] = child
        for descriptor in descriptors:
            os.close(descriptor)

    def _become(self, request: wire.Message, descriptors: list[int]) -> None:
        """In the child: keep its channel and its output, close all else, bind it to its limits, play the role."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            output = descriptors[1] if len(descriptors) > 1 else self._null
            for target, source in ((0, self._null), (1, output), (2, output)):
                os.dup2(source, target, inheritable=False)
            channel = os.dup2(descriptors[0], 3, inheritable=False) if descriptors[0] != 3 else 3
            os.closerange(4, _HIGHEST_DESCRIPTOR)
            if request["role"] == "runtime":
                become.become(request, channel, self._filtered)
            self._limit(request)
            if sys.platform == "linux" and not self._first:
                linux.call("prctl", linux.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if self._filter is not None:
                self._filter.install(os.getpid())
            ROLES[request["role"]](channel)
            status = 0
        except MemoryError:
            status = OUT_OF_MEMORY  # too little even for a report
        finally:
            # Not even an exception may return into the keeper's loop, and no clean-up of the copied state may run.
            try:
                sys.stdout.flush()
            finally:
                os._exit(status)

    def _limit(self, request: wire.Message) -> None:
        if self._address_space is not None:
            size = self._address_space + int(request["memory"])
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        if request.get("cpu") is not None:
            # In whole seconds, hence only the second line: it holds where this process could not look in time.
            seconds = int(request["cpu"]) + 2
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    @staticmethod
    def _stop(child: Child, reason: str) -> None:
        if child.ended_because is None:
            child.ended_because = reason
            os.kill(child.pid, signal.SIGKILL)

    def _wait(self) -> float:
        """Seconds until a limit can be reached at the earliest, if every program had a processor of its own."""
        wait = _LONGEST_WAIT
        now = time.monotonic()
        for child in self._children.values():
            if child.ended_because is not None:
                continue
            if child.cpu_limit is not None:
                wait = min(wait, child.cpu_limit - child.cpu())
            if child.wall_limit is not None:
                half = child.wall_limit / 2 if child.cpu_at_half_time is None else child.wall_limit
                wait = min(wait, child.started + half - now)
        return max(_SHORTEST_WAIT, wait)

    def _enforce(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.cpu_limit is None or child.wall_limit is None or child.ended_because is not None:
                continue
            used, age = child.cpu(), now - child.started
            if used >= child.cpu_limit:
                self._stop(child, "cpu")
            elif age >= child.wall_limit:
                progress = used - (child.cpu_at_half_time or 0.0)
                self._stop(child, "idle" if progress < child.idle_share * child.wall_limit / 2 else "wall")
            elif age >= child.wall_limit / 2 and child.cpu_at_half_time is None:
                child.cpu_at_half_time = used

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            wire.send(
                self._control,
                {
                    "ended": child.number,
                    "code": os.waitstatus_to_exitcode(status),
                    "because": child.ended_because,
                    "cpu": usage.ru_utime + usage.ru_stime + child.companion_cpu(),
                    "wall": time.monotonic() - child.started,
                    "peak_kb": usage.ru_maxrss if sys.platform == "linux" else usage.ru_maxrss // 1024,
                    "scratch_used": self._scratch_used(),
                },
            )

    def _scratch_used(self) -> bool:
        """Whether a program left something behind that the next one could find."""
        return self._scratch is not None and bool(os.listdir(self._scratch))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, because an ignored SIGCHLD would make the kernel reap children before their usage is read."""
