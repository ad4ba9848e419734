"""The first process of a jail: starts the others, watches their limits, ends them. It never sees a program or a test.

Its children are copies of it (fork), so what it does not hold they cannot find in their memory: a program's text goes
from the host straight to the process that runs it, and the tests go to processes that the program is not in.

Roles of its children:
- `warm`: runs harmless programs one after another, together with their tests (`warm.py`);
- `together`: runs one program with its tests (`together.py`);
- `apart`: runs one program and answers calls to it (`apart.py`);
- `referee`: runs the tests, calling programs that run apart (`referee.py`);
- `runtime`: becomes another language's runtime, which then plays one of these parts (`become.py`).
"""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from . import apart, become, execute, linux, referee, seccomp, together, warm, wire

ROLES: dict[str, Callable[[socket.socket], None]] = {
    "warm": warm.main,
    "together": together.main,
    "apart": apart.main,
    "referee": referee.main,
}
OUT_OF_MEMORY = errno.ENOMEM  # exit status of a child that could not say so in a message
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.5  # seconds between two looks at the running programs' clocks
_HIGHEST_DESCRIPTOR = 256


@dataclass
class Child:
    """A process under watch. Times in seconds; `cpu_limit` counts the companion (the referee) too.

    `idle_share` is of the second half of its wall time: a program that used less of it was waiting, not starved.
    """

    pid: int
    started: float
    cpu_limit: float | None = None
    wall_limit: float | None = None
    idle_share: float = 0.0
    companion: int | None = None
    companion_cpu_before: float = 0.0
    cpu_at_half_time: float | None = None
    ended_because: str | None = None

    def cpu(self) -> float:
        own = linux.cpu_seconds(self.pid) or 0.0
        if self.companion is None:
            return own
        return own + max(0.0, (linux.cpu_seconds(self.companion) or 0.0) - self.companion_cpu_before)


class Keeper:
    """Serves one host over one socket until the host closes it or dies."""

    def __init__(self, control: socket.socket, address_space: int | None, filtered: bool, scratch: str | None) -> None:
        self._control = control
        self._scratch = scratch
        self._address_space = address_space
        self._filtered = filtered
        self._children: dict[int, Child] = {}
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
        if self._filtered:
            seccomp.program_filter(linux.machine(), 0)  # assembled once here, not in every child
        gc.collect()
        gc.freeze()  # children share these objects' pages with us for as long as no collector touches them
        while True:
            for descriptor, _ in poller.poll(self._wait() * 1000):
                if descriptor == self._wake_reader:
                    os.read(self._wake_reader, 4096)
                elif not self._obey():
                    self._end()
            self._reap()
            self._enforce()

    def _obey(self) -> bool:
        received = wire.receive_with_descriptors(self._control, 2)
        if received is None:
            return False
        request, descriptors = received
        if request["do"] == "start":
            self._start(request, descriptors)
        elif request["do"] == "stop":
            self._stop(int(request["pid"]), "stopped")
        return True

    def _end(self) -> None:
        """The host is gone. Without a process namespace nobody else would end our children."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def _start(self, request: wire.Message, descriptors: list[int]) -> None:
        companion = request.get("companion")
        child = Child(
            pid=0,
            started=time.monotonic(),
            cpu_limit=request.get("cpu"),
            wall_limit=request.get("wall"),
            idle_share=request["idle_share"],
            companion=companion,
            companion_cpu_before=(linux.cpu_seconds(companion) or 0.0) if companion else 0.0,
        )
        child.pid = os.fork()
        if child.pid == 0:
            self._become(request, descriptors)
        self._children[child.pid] = child
        for descriptor in descriptors:
            os.close(descriptor)
        wire.send(self._control, {"started": child.pid})

    def _become(self, request: wire.Message, descriptors: list[int]) -> None:
        """In the child: keep its channel and its output, close all else, bind it to its limits, play the role."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            output = descriptors[1] if len(descriptors) > 1 else self._null
            for target, source in ((0, self._null), (1, output), (2, output)):
                os.dup2(source, target, inheritable=False)
            channel = os.dup2(descriptors[0], 3, inheritable=False) if descriptors[0] != 3 else 3
            os.closerange(4, _HIGHEST_DESCRIPTOR)
            if request["role"] == "runtime":
                become.become(request, channel, self._filtered)
            self._limit(request)
            if sys.platform == "linux":
                linux.call("prctl", linux.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if self._filtered:
                seccomp.install(seccomp.program_filter(linux.machine(), os.getpid()))
            random.seed(execute.SEED)
            ROLES[request["role"]](socket.socket(fileno=channel))
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

    def _stop(self, pid: int, reason: str) -> None:
        child = self._children.get(pid)
        if child is not None and child.ended_because is None:
            child.ended_because = reason
            os.kill(pid, signal.SIGKILL)

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
                self._stop(child.pid, "cpu")
            elif age >= child.wall_limit:
                progress = used - (child.cpu_at_half_time or 0.0)
                self._stop(child.pid, "idle" if progress < child.idle_share * child.wall_limit / 2 else "wall")
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
            companion_cpu = child.cpu()  # its own clock is gone by now, only the companion's share remains
            wire.send(
                self._control,
                {
                    "ended": pid,
                    "code": os.waitstatus_to_exitcode(status),
                    "because": child.ended_because,
                    "cpu": usage.ru_utime + usage.ru_stime + companion_cpu,
                    "wall": time.monotonic() - child.started,
                    "peak_kb": usage.ru_maxrss if sys.platform == "linux" else usage.ru_maxrss // 1024,
                    "scratch_used": self._scratch_used(),
                },
            )

    def _scratch_used(self) -> bool:
        """Whether a program left something behind that the next one could find."""
        return self._scratch is not None and any(Path(self._scratch).iterdir())


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, because an ignored SIGCHLD would make the kernel reap children before their usage is read."""
