from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_fixtures as shared

from kringle.errors import UserError
from kringle.training.parallel import World

HERE = Path(__file__).parent


def together(folder: Path, size: int, strategy: str, settings: dict[str, Any], **more: Any) -> list[float]:
    """Train with `size` processes as a launcher would start them; the logged losses."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.dumps({"folder": str(folder), "strategy": strategy, "settings": settings, **more})
    started(size, str(HERE / "parallel_worker.py"), asked)
    log = folder / "out" / "log.jsonl"
    log = log if log.exists() else folder / "checkpoints" / "log.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def started(size: int, *arguments: str) -> None:
    """Run Python with these arguments as so many processes, and see that all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(size):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, *arguments]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [p.returncode for p in processes] == [0] * size, "\n".join(said)[-3000:]


EXACT = {"steps": 12, "precision": "fp64", "batch_tokens": 4 * shared.CONTEXT}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return together(tmp_path_factory.mktemp("alone"), 1, "ddp", EXACT)


@pytest.mark.parametrize(("size", "strategy"), [(2, "ddp"), (2, "fsdp"), (4, "fsdp")])
def test_the_number_of_processes_changes_nothing(tmp_path: Path, alone: list[float], size: int, strategy: str) -> None:
    """A short version of benchmarks/evidence/worlds.py."""
    losses = together(tmp_path, size, strategy, EXACT)
    assert losses == pytest.approx(alone, rel=1e-10)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["processes"], result["steps"]) == (size, 12)
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, alone: list[float]) -> None:
    first = together(tmp_path, 2, "fsdp", EXACT, stop=5)
    assert len(first) == 5
    losses = together(tmp_path, 1, "ddp", EXACT)
    assert losses == pytest.approx(alone, rel=1e-10)
    assert json.loads((tmp_path / "result.json").read_text())["resumed_from"] == 5


def test_rows_that_cannot_be_shared_are_refused() -> None:
    assert [World(rank=r, size=4).rows(8) for r in range(4)] == [(0, 2), (2, 2), (4, 2), (6, 2)]
    with pytest.raises(UserError, match="8 rows cannot be shared by 3 processes"):
        World(rank=0, size=3).rows(8)


def test_a_mistake_of_the_first_process_reaches_its_caller() -> None:
    def fail() -> None:
        raise UserError("is full", where="disk")

    with pytest.raises(UserError, match="disk: is full"):
        World().first_only(fail)


_FAULTS = """
from kringle.errors import UserError
from kringle.training.parallel import join, leave

world = join()


def fail(error):
    raise error


def caught(work):
    try:
        work()
    except Exception as error:
        return error


def told(error):
    return type(error).__name__, str(error)


disk = OSError(28, "No space left on device")
error = caught(lambda: world.first_only(lambda: fail(disk)))
assert error is disk if world.first else told(error) == (
    "RuntimeError", "process 0 of this training failed: OSError: [Errno 28] No space left on device"
), error
error = caught(lambda: world.first_only(lambda: fail(UserError("is full", where="disk", hint="make room"))))
assert told(error) == ("UserError", "disk: is full; make room"), error
error = caught(lambda: world.every(lambda: None if world.first else fail(UserError("is damaged", where="store"))))
assert told(error) == ("UserError", "store: is damaged"), error
assert world.first_only(lambda: world.rank) == 0
assert world.every(lambda: world.rank) == world.rank
leave(finished=True)
"""


def test_an_error_of_one_process_ends_all_of_them() -> None:
    started(2, "-c", _FAULTS)


def test_parts_of_a_batch_are_the_batch() -> None:
    whole = shared.batches()
    for step in range(3):
        parts = [whole.batch(step, first, 1) for first in range(4)]
        for name in ("tokens", "targets", "positions", "segments"):
            assert [getattr(p, name)[0].tolist() for p in parts] == getattr(whole.batch(step), name).tolist()


def test_a_process_ends_with_what_it_said_and_without_what_python_does_last() -> None:
    """What aborts one of several processes is in Python's own end, which a failing exit handler stands for."""
    says = (
        "import atexit, os; from kringle.training.parallel import end; atexit.register(os.abort); print('said'); end()"
    )
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "said\n")
