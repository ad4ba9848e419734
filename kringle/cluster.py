"""Map a function over shards on the machines of a Ray cluster; everything else is as on one machine.

The workspace must lie in a folder that all machines share under the same path, and every machine needs the same version
of Kringle. A worker that dies and a machine that is lost cost their shards in flight, which are done again elsewhere; a
fault of the work itself ends the run and names its shard. Needs the extra `kringle[ray]`. Does not cover: starting a
cluster (`ray start`), and training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kringle.engine import Engine, Outcome, Part, measured, portable, raise_fault
from kringle.errors import UserError

TRIES = 5  # times that a shard is begun before its loss counts as its own fault, such as taking too much memory
AHEAD = 4  # shards handed out per core of the cluster: enough that none waits for this process


class RayEngine(Engine):
    """The cluster that `RAY_ADDRESS` or `ray start` names, or a local one where there is none."""

    def __init__(self, workers: int | None = None, part: Part | None = None) -> None:
        super().__init__(workers, part)
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed", where="--engine ray", hint="pip install 'kringle[ray]'") from None
        self._ray: Any = ray
        if not ray.is_initialized():
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"no Ray cluster can be reached: {reason}", where="RAY_ADDRESS") from None
        self._at_once = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) * AHEAD)

    def map(
        self,
        function: Callable[[Any], Any],
        payloads: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        on_tick: Callable[[int, float], None] | None = None,
    ) -> Iterator[Any]:
        """As `Engine.map`. Ticks stay on the machine where they arise: `on_tick` is called for none of them."""
        ray = self._ray
        names = [str(n) for n in names] if names is not None else [str(i) for i in range(len(payloads))]
        remote = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_call)
        waiting: dict[Any, int] = {}
        done: dict[int, Any] = {}
        following = 0
        try:
            for number in range(len(payloads)):
                while number not in done:
                    while following < len(payloads) and len(waiting) < self._at_once:
                        waiting[remote.remote(function, payloads[following])] = following
                        following += 1
                    (ready,), _ = ray.wait(list(waiting), num_returns=1)
                    index = waiting.pop(ready)
                    done[index] = self._result(ready, names[index])
                yield done.pop(number)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _result(self, reference: Any, name: str) -> Any:
        ray = self._ray
        try:
            outcome: Outcome | Exception = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # the function could not even be called
            raise_fault(name, error)
        except ray.exceptions.RayError:  # its worker died as often as it was begun
            raise_fault(name, None)
        if isinstance(outcome, Exception):
            raise_fault(name, outcome)
        return self.account(outcome)


def _call(function: Callable[[Any], Any], payload: Any) -> Outcome | Exception:
    """In a worker of the cluster. A fault comes back as a value: Ray would begin again what failed by itself."""
    try:
        return measured(function, payload)
    except Exception as error:
        return portable(error)
