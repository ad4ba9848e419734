"""Map a function over shards. The engine is a pool of local processes, or a cluster's; nothing else knows which.

Results come back in the order of the inputs. A fault names its shard. Workers end with their parent, also when the
parent is killed, so that a rerun never competes with leftovers of the run before. `kringle.cluster` has the engine that
maps over the machines of a Ray cluster; a `Part` is the share of one machine of a job array.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kringle.errors import ShardError, UserError

# What nearly every worker needs is loaded once, by the process that workers are forked from: each of them would spend
# half a second on it. Both are made for it: NumPy's threads start anew in a forked process, numba has none.
SHARED = ["numpy", "numba"]
_SAFE_PATH = "PYTHONSAFEPATH"
_starting = threading.Lock()  # held while the environment of this process is changed

_channel: Connection | None = None  # to the parent, in a worker; None elsewhere


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tick(amount: float = 1) -> None:
    """Tell the parent that `amount` more units of the current shard are done; a no-op outside a worker."""
    if _channel is not None:
        _channel.send(("tick", amount))


def reset_peak_memory() -> None:
    """Start a new high-water mark, where the system can (Linux); elsewhere `peak_memory` goes on from process start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident size of this process, in bytes: since `reset_peak_memory` on Linux, else since its start."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """User and system time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Part(NamedTuple):
    """One of `of` processes, number `number` from 1 on, that share the shards of a stage: a job array's task."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """From `I/N`; UserError unless 1 <= I <= N."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f"expected I/N with I from 1 to N, got '{text}'", where="--part", hint="such as 3/16")
        return cls(int(number), int(of))

    def claims(self, fingerprint: str) -> bool:
        """Whether the shard with this fingerprint (hexadecimal) is this part's; every shard is exactly one part's."""
        return int(fingerprint, 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class PartDone(Exception):
    """A part has done its share of the shards; the stage goes on once the other parts have done theirs."""

    def __init__(self, mine: int, total: int, missing: int) -> None:
        self.mine, self.total, self.missing = mine, total, missing
        super().__init__(f"{mine:,} of {total:,} shards are this part's and done, {missing:,} of other parts are not")


@dataclass
class Outcome:
    """What a worker returns: the function's value and what it took. `peak_memory` in bytes."""

    value: Any
    cpu_seconds: float
    peak_memory: int


def _serve(channel: Connection, safe_path: str | None) -> None:
    """A worker's life: take (function, index, payload) from its own channel, send ticks and the outcome back.

    Nothing is shared between workers, above all no lock: a worker may be ended at any moment, and one that dies while
    it holds a lock would leave everyone else waiting for it.
    """
    global _channel
    _channel = channel
    _set_safe_path(safe_path)  # what it is in the parent, for whatever this worker starts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to do
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed the channel: no more work
        while True:
            function, payload = channel.recv()
            try:
                message: tuple[str, Any] = ("done", measured(function, payload))
            except Exception as error:
                message = ("fault", portable(error))
            channel.send(message)
            del function, payload, message  # nothing is held while it waits


@contextmanager
def _safe_path() -> Iterator[None]:
    """Interpreters that are started inside this block do not look for modules in the current folder.

    The fork server and the resource tracker are told what to do with `-c`, so they would begin there, where the user
    keeps whatever they like: a `numpy.py`, or a `socket.py`. Not so under `python -E`, which ignores the variable.
    """
    with _starting:
        before = os.environ.get(_SAFE_PATH)
        os.environ[_SAFE_PATH] = "1"
        try:
            yield
        finally:
            _set_safe_path(before)


def _set_safe_path(value: str | None) -> None:
    if value is None:
        os.environ.pop(_SAFE_PATH, None)
    else:
        os.environ[_SAFE_PATH] = value


def measured(function: Callable[[Any], Any], payload: Any) -> Outcome:
    """Call the function in a worker process, and measure."""
    reset_peak_memory()
    before = cpu_seconds()
    value = function(payload)
    return Outcome(value, cpu_seconds() - before, peak_memory())


def portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or its description where it cannot travel between processes."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own reduction may raise
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(trace)
    return error


class _Pool:
    """Workers, and while they have work a thread of this process that hands out payloads and collects what comes back.

    Workers stay when their work is done, for what comes next: what they have loaded and compiled costs more than many
    a shard. `events` gets (index, kind, value): "tick", "done", "fault" or "died". Only that thread touches the
    channels while it runs.
    """

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        self._processes: dict[Connection, Any] = {}  # by this end of their channel
        self._busy: dict[Connection, int] = {}  # the payload that the worker behind each channel is busy with
        self._thread: threading.Thread | None = None

    def start(self, workers: int, function: Callable[[Any], Any], payloads: Sequence[Any]) -> None:
        """Begin to work on payloads with so many workers, those that are there and new ones.

        Ctrl-C is held back meanwhile: a process half started would be in nobody's list, and the process that they are
        forked from would answer with a traceback of its own.
        """
        self._settle()
        self.events = queue.SimpleQueue()
        self._function, self._payloads, self._next = function, payloads, iter(range(len(payloads)))
        for channel in [channel for channel, process in self._processes.items() if not process.is_alive()]:
            self._processes.pop(channel).join()
            channel.close()
        context = multiprocessing.get_context("forkserver")
        with _safe_path():
            resource_tracker.ensure_running()  # first, because starting it lifts the block
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            if sys.platform == "linux":  # on macOS a forked process may not use the system's BLAS
                forkserver.set_forkserver_preload(SHARED)
            with _safe_path():
                forkserver.ensure_running()
            safe_path = os.environ.get(_SAFE_PATH)
            while len(self._processes) < workers:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, safe_path))
                process.start()
                theirs.close()
                self._processes[ours] = process
            self._busy = dict.fromkeys(list(self._processes)[:workers], -1)
            self._thread = threading.Thread(target=self._converse, daemon=True)
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End workers that have nothing to do, in their own time."""
        self._settle()
        for channel in self._processes:
            channel.close()  # which ends the worker
        for process in self._processes.values():
            process.join(5)
        self.kill()

    def kill(self) -> None:
        """End all workers at once."""
        for process in self._processes.values():
            process.terminate()
        self._settle()
        for channel, process in self._processes.items():
            process.join()
            channel.close()
        self._processes.clear()

    def _settle(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _converse(self) -> None:
        # A process' own sign of its end: a channel alone may stay open in a process that the worker started.
        ends = {self._processes[channel].sentinel: channel for channel in self._busy}
        for channel in list(self._busy):
            self._hand_out(channel)
        while self._busy:
            ready = wait_for([*self._busy, *ends])
            for channel in [channel for channel in self._busy if channel in ready]:
                self._receive(channel)
            for end in [end for end in ends if end in ready]:
                channel = ends.pop(end)
                while channel in self._busy and channel.poll():  # what it said before it ended
                    self._receive(channel)
                if channel in self._busy:
                    self._lost(channel)
        del self._function, self._payloads, self._next  # nothing is held while the workers wait

    def _receive(self, channel: Connection) -> None:
        try:
            kind, value = channel.recv()
        except (EOFError, OSError):
            self._lost(channel)
            return
        except Exception as error:  # an outcome that cannot be read back, whatever its own code raised
            kind, value = "fault", error
        self.events.put((self._busy[channel], kind, value))
        if kind != "tick":
            self._hand_out(channel)

    def _hand_out(self, channel: Connection) -> None:
        """Give the next payload to this worker, if there is one."""
        index = next(self._next, None)
        if index is None:
            self._busy.pop(channel)
            return
        self._busy[channel] = index
        try:
            channel.send((self._function, self._payloads[index]))
        except OSError:
            self._lost(channel)
        except Exception as error:  # a payload that cannot be pickled, whatever its own code raised
            self.events.put((index, "fault", error))

    def _lost(self, channel: Connection) -> None:
        self.events.put((self._busy.pop(channel), "died", None))


class Engine:
    """Local processes. `cpu_seconds` and `peak_memory` add up what the workers used since the engine was made.

    With a `part`, only the shards that it claims are worked on. To be used by one thread at a time.
    """

    def __init__(self, workers: int | None = None, part: Part | None = None) -> None:
        self.workers = default_workers() if workers is None else workers
        self.part = part
        if self.workers < 1:
            raise UserError(f"needs at least one worker, got {workers}", where="--workers")
        self.cpu_seconds = 0.0
        self.peak_memory = 0
        self._idle: _Pool | None = None  # of the last `map`, for the next one
        self._end_idle: Finalize | None = None

    def rest(self) -> None:
        """End the workers that wait for more, and free their memory; the next `map` starts others. Done as well when
        this engine goes, or the process ends."""
        if self._end_idle is not None:
            self._end_idle()
        self._idle = self._end_idle = None

    def _pool(self) -> _Pool:
        """Workers that wait for more, if there are some: another `map` meanwhile has its own."""
        pool, self._idle = self._idle or _Pool(), None
        if self._end_idle is not None:
            self._end_idle.cancel()
            self._end_idle = None
        return pool

    def _keep(self, pool: _Pool) -> None:
        if self._idle is None:
            # Multiprocessing's own, which ends them before it waits for all processes at the end of this one.
            self._idle, self._end_idle = pool, Finalize(self, pool.close, exitpriority=10)
        else:
            pool.close()

    def map(
        self,
        function: Callable[[Any], Any],
        payloads: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        on_tick: Callable[[int, float], None] | None = None,
    ) -> Iterator[Any]:
        """Yield `function(payload)` for each payload, in order.

        `function` must be importable (a module's own) and payloads picklable. `on_tick(index, amount)` is called in
        this thread for every `tick` in a worker. Raises `ShardError` for the first fault that is seen, also when an
        earlier payload is still being worked on; a `UserError` passes through as it is.
        """
        if not payloads:
            return
        names = [str(n) for n in names] if names is not None else [str(i) for i in range(len(payloads))]
        pool = self._pool()
        finished = False
        try:
            pool.start(min(self.workers, len(payloads)), function, payloads)
            done: dict[int, Any] = {}
            for number in range(len(payloads)):
                while number not in done:
                    try:
                        index, kind, value = pool.events.get(timeout=0.5)  # a bounded wait lets Ctrl-C through at once
                    except queue.Empty:
                        continue
                    if kind == "tick":
                        if on_tick is not None:
                            on_tick(index, value)
                    elif kind == "done":
                        done[index] = self.account(value)
                    else:
                        raise_fault(names[index], value)
                outcome = done.pop(number)
                finished = number == len(payloads) - 1
                yield outcome
        finally:
            # Reached early on a fault, on Ctrl-C, or when the caller stops iterating: do not finish what nobody reads.
            if finished:
                self._keep(pool)
            else:
                pool.kill()

    def account(self, outcome: Outcome) -> Any:
        """Add up what a worker used; its value comes back."""
        self.cpu_seconds += outcome.cpu_seconds
        self.peak_memory = max(self.peak_memory, outcome.peak_memory)
        return outcome.value


def raise_fault(name: str, fault: Exception | None) -> NoReturn:
    """A worker's fault as this process tells it; None where the worker died."""
    if isinstance(fault, UserError):
        raise fault
    if fault is None:
        raise ShardError(name, RuntimeError("a worker died (killed, or out of memory)"))
    raise ShardError(name, fault) from fault


class Stopwatch:
    """Wall seconds, CPU seconds and peak memory of a stretch of work, its engine's workers included."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._wall, self._cpu = engine, time.monotonic(), cpu_seconds()
        self._engine_cpu, engine.peak_memory = engine.cpu_seconds, 0
        reset_peak_memory()

    def read(self) -> dict[str, float]:
        """`peak_memory` is that of the largest single process, in bytes."""
        return {
            "wall_seconds": round(time.monotonic() - self._wall, 3),
            "cpu_seconds": round(cpu_seconds() - self._cpu + self._engine.cpu_seconds - self._engine_cpu, 3),
            "peak_memory": max(peak_memory(), self._engine.peak_memory),
        }
