"""Map a function over shards. Today's engine is a pool of local processes; nothing else knows which engine it is.

Results come back in the order of the inputs. A fault names its shard. Workers end with their parent, also when the
parent is killed, so that a rerun never competes with leftovers of the run before.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait as wait_for_connection
from pathlib import Path
from typing import Any

from kringle.errors import ShardError, UserError

_ticks: Any = None  # the queue to the parent, in a worker; None elsewhere
_index = 0  # the shard a worker is busy with


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tick(amount: float = 1) -> None:
    """Tell the parent that `amount` more units of the current shard are done; a no-op outside a worker."""
    if _ticks is not None:
        _ticks.put((_index, amount))


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


def _start_forkserver() -> None:
    """Start the process that workers are forked from. Ctrl-C reaches the whole group, so it is held back meanwhile: a
    process that is not yet up would answer it with a traceback of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(queue: Any) -> None:
    global _ticks
    _ticks = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to do
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for_connection([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@dataclass
class _Outcome:
    value: Any
    cpu_seconds: float
    peak_memory: int


def _run(function: Callable[[Any], Any], index: int, payload: Any) -> _Outcome:
    global _index
    _index = index
    reset_peak_memory()
    before = cpu_seconds()
    value = function(payload)
    return _Outcome(value, cpu_seconds() - before, peak_memory())


class Engine:
    """Local processes. `cpu_seconds` and `peak_memory` add up what the workers used since the engine was made."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = default_workers() if workers is None else workers
        if self.workers < 1:
            raise UserError(f"needs at least one worker, got {workers}", where="--workers")
        self.cpu_seconds = 0.0
        self.peak_memory = 0

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
        this process for every `tick` in a worker. Raises `ShardError` for the first fault that is seen, within a
        second; a `UserError` passes through as it is.
        """
        if not payloads:
            return
        names = [str(n) for n in names] if names is not None else [str(i) for i in range(len(payloads))]
        _start_forkserver()
        context = multiprocessing.get_context("forkserver")
        queue = context.SimpleQueue()
        listener = threading.Thread(target=_listen, args=(queue, on_tick), daemon=True)
        listener.start()
        pool = ProcessPoolExecutor(
            min(self.workers, len(payloads)), mp_context=context, initializer=_start_worker, initargs=(queue,)
        )
        processes: list[Any] = []
        try:
            futures = [pool.submit(_run, function, i, payload) for i, payload in enumerate(payloads)]
            processes = list((pool._processes or {}).values())
            for number in range(len(futures)):
                outcome = self._result(names, futures, number)
                self.cpu_seconds += outcome.cpu_seconds
                self.peak_memory = max(self.peak_memory, outcome.peak_memory)
                yield outcome.value
            pool.shutdown()
        finally:
            # Reached early on a fault, on Ctrl-C, or when the caller stops iterating: do not finish what nobody reads.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                if process.is_alive():
                    process.terminate()
            queue.put(None)
            listener.join(timeout=5)

    @staticmethod
    def _result(names: Sequence[str], futures: Sequence[Future[_Outcome]], number: int) -> _Outcome:
        """One future's outcome; a later one's fault is raised as soon as it is seen, not when that one is due."""
        due = number
        while due == number and not wait([futures[number]], timeout=0.5, return_when=FIRST_COMPLETED).done:
            # A bounded wait lets Ctrl-C through at once.
            later = range(number + 1, len(futures))
            due = next((i for i in later if futures[i].done() and futures[i].exception() is not None), number)
        name, future = names[due], futures[due]
        try:
            return future.result()
        except UserError:
            raise
        except BrokenProcessPool as error:
            raise ShardError(name, RuntimeError("a worker died (killed, or out of memory)")) from error
        except Exception as error:
            raise ShardError(name, error) from error


def _listen(queue: Any, on_tick: Callable[[int, float], None] | None) -> None:
    while (item := queue.get()) is not None:
        if on_tick is not None:
            on_tick(*item)


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
