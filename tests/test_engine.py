"""The engine keeps order, names faults, and leaves no worker behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kringle.engine import Engine, tick
from kringle.errors import ShardError, UserError


def square(x: int) -> int:
    tick(x)
    return x * x


def fail_on_three(x: int) -> int:
    if x == 3:
        raise ValueError("three is too much")
    return x


def refuse(x: int) -> int:
    raise UserError("wrong", where=f"item {x}")


def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_results_come_in_order_and_ticks_arrive() -> None:
    ticks: dict[int, float] = {}

    def note(index: int, amount: float) -> None:
        ticks[index] = ticks.get(index, 0) + amount

    engine = Engine(2)
    assert list(engine.map(square, list(range(20)), on_tick=note)) == [x * x for x in range(20)]
    assert ticks == {x: float(x) for x in range(20)}
    assert engine.cpu_seconds >= 0
    assert engine.peak_memory > 1_000_000


def test_a_fault_names_its_shard() -> None:
    with pytest.raises(ShardError, match="shard c: ValueError: three is too much"):
        list(Engine(2).map(fail_on_three, [1, 2, 3, 4], names=["a", "b", "c", "d"]))


def test_a_users_mistake_passes_through_and_a_dead_worker_is_named() -> None:
    with pytest.raises(UserError, match="item 7: wrong"):
        list(Engine(1).map(refuse, [7]))
    with pytest.raises(ShardError, match="a worker died"):
        list(Engine(1).map(die, [1]))
    with pytest.raises(UserError, match="at least one worker"):
        Engine(0)


def who(x: int) -> int:
    return os.getpid()


def test_workers_stay_for_the_next_work_and_end_when_told() -> None:
    engine = Engine(2)
    first = set(engine.map(who, range(50)))
    again = set(engine.map(who, range(50)))
    assert len(first | again) <= 2
    assert all(map(_runs, first))
    (one,) = set(engine.map(who, range(1)))  # not more of them than there is work
    assert one in first | again
    engine.rest()
    assert not any(map(_runs, first | again))
    later = set(engine.map(who, range(3)))
    assert not later & (first | again)
    del engine
    assert not any(map(_runs, later))


def test_a_worker_that_dies_while_it_waits_is_replaced() -> None:
    engine = Engine(1)
    (worker,) = engine.map(who, [0])
    os.kill(worker, signal.SIGKILL)
    while _runs(worker):
        time.sleep(0.01)
    (other,) = engine.map(who, [0])
    assert other != worker


def test_a_fault_ends_the_workers_and_the_next_work_finds_others() -> None:
    engine = Engine(2)
    before = set(engine.map(who, range(10)))
    with pytest.raises(ShardError, match="three"):
        list(engine.map(fail_on_three, [1, 2, 3, 4]))
    assert not any(map(_runs, before))
    assert list(engine.map(square, [5])) == [25]


def test_work_inside_work_has_workers_of_its_own() -> None:
    engine = Engine(2)
    pairs = [(x, y) for x in engine.map(square, [1, 2, 3]) for y in engine.map(square, [x, x])]
    assert pairs == [(x, x * x) for x in (1, 1, 4, 4, 9, 9)]


@pytest.mark.parametrize("before", ["", "import tempfile; folder = tempfile.TemporaryDirectory()\n"])
def test_a_process_ends_though_its_workers_wait_for_more(before: str) -> None:
    script = (
        f"{before}from kringle.engine import Engine\n"
        "from test_engine import square\n"
        "engine = Engine(2)\n"
        "if __name__ == '__main__':\n"
        "    print(list(engine.map(square, [1, 2, 3])))\n"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("[1, 4, 9]\n", "")


def leave_a_child(x: int) -> None:
    """Die with a child alive that has inherited the channel."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


class Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return len, (1,)  # which is what reading it back will stumble over


def answer_unreadable(x: int) -> object:
    return Unreadable()


class Stubborn(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("stubborn")


def raise_stubborn(x: int) -> None:
    raise Stubborn(1, 2)  # does not survive pickling: two arguments, of which pickle keeps one


def test_whatever_happens_to_a_worker_the_parent_gets_an_answer() -> None:
    started = time.monotonic()
    with pytest.raises(ShardError, match="a worker died"):
        list(Engine(1).map(leave_a_child, [1]))
    assert time.monotonic() - started < 15
    with pytest.raises(ShardError, match="shard 0: TypeError"):
        list(Engine(1).map(answer_unreadable, [1]))
    with pytest.raises(ShardError, match="Stubborn: stubborn"):
        list(Engine(1).map(raise_stubborn, [1]))
    with pytest.raises(ShardError, match="shard 0"):
        list(Engine(1).map(square, [lambda: 1]))


def test_a_fault_is_told_while_an_earlier_payload_is_still_being_worked_on() -> None:
    started = time.monotonic()
    with pytest.raises(ShardError, match="shard late: ValueError"):
        list(Engine(2).map(sleep_or_fail, [30, 0], names=["early", "late"]))
    assert time.monotonic() - started < 15


def sleep_or_fail(seconds: int) -> None:
    if not seconds:
        raise ValueError("at once")
    time.sleep(seconds)


def tick_a_lot(x: int) -> None:
    while True:
        tick()


def test_workers_that_are_ended_in_the_middle_of_a_message_block_nobody() -> None:
    for _ in range(5):
        seen = 0

        def stop(index: int, amount: float) -> None:
            nonlocal seen
            seen += 1
            if seen > 100:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(Engine(2).map(tick_a_lot, [1, 2], on_tick=stop))


SLEEPER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from kringle.engine import Engine
from test_engine import note_and_sleep
if __name__ == "__main__":
    list(Engine(2).map(note_and_sleep, [{folder!r}, {folder!r}]))
"""


def note_and_sleep(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(120)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    notes = tmp_path / "notes"
    notes.mkdir()
    script.write_text(SLEEPER.format(tests=str(Path(__file__).parent), folder=str(notes)))
    parent = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while len(list(notes.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(p.name) for p in notes.iterdir()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        time.sleep(0.05)
    assert not [pid for pid in workers if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: blocked signals are read in /proc")
def test_the_process_that_workers_are_forked_from_never_sees_ctrl_c() -> None:
    """It loads libraries when it starts: an interrupt in the middle would be told with a traceback."""
    script = (
        "from multiprocessing import forkserver\n"
        "from pathlib import Path\n"
        "from kringle.engine import Engine\n"
        "if __name__ == '__main__':\n"
        "    assert list(Engine(1).map(abs, [-1])) == [1]\n"
        "    status = Path(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read_text()\n"
        "    print(next(line.split()[1] for line in status.splitlines() if line.startswith('SigBlk')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout, 16) & 1 << (signal.SIGINT - 1)


def test_files_in_the_current_folder_are_not_taken_for_libraries(tmp_path: Path) -> None:
    """The processes that the engine starts are told in a `-c` what to do, and that begins with the current folder."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("numpy", "numba", "socket", "signal"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w').close()\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from kringle.engine import Engine\n"
        "if __name__ == '__main__':\n"
        "    assert list(Engine(1).map(os.getenv, ['PYTHONSAFEPATH'])) == [None] == [os.getenv('PYTHONSAFEPATH')]\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, script], cwd=here, env=environment, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "script.py"]
