"""Nothing of a jail remains: no process, no mount, no control group, no open file, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jail_support import needs_jail

from kringle.evaluation.jail import cgroups, nursery
from kringle.evaluation.jail.host import Jail, JailError
from kringle.evaluation.jail.inside.wire import send
from kringle.evaluation.jail.levels import probe

pytestmark = needs_jail
needs_nursery = pytest.mark.skipif(
    not nursery.possible() or probe().level.way == "bubblewrap",
    reason="NOT CHECKED: jails that are copies of one interpreter; each is started alone here",
)

ENDLESS = {"program": "while True:\n    pass\n", "tests": ""}


def processes_of(session: int) -> list[int]:
    """The processes that belong to a session, as the host sees them; zombies do not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def eventually(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)
    return happened()


def start_endless(jail: Jail) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        jail.start("together", theirs, memory=2**26, cpu=60.0, wall=60.0)
    send(ours, ENDLESS)
    return ours


def groups() -> set[Path]:
    return set(Path("/sys/fs/cgroup").glob("**/kringle-*")) if sys.platform == "linux" else set()


def test_closing_a_jail_ends_everything() -> None:
    mounts, before, open_before = (
        Path("/proc/self/mountinfo").read_text(),
        groups(),
        list(Path("/proc/self/fd").iterdir()),
    )
    jail = Jail(probe().level.way, 2**29)
    with start_endless(jail):
        session = jail._process.pid
        assert len(processes_of(session)) >= 2
        jail.close()
    assert eventually(lambda: not processes_of(session))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert groups() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) == len(open_before)


def test_killing_the_host_ends_everything() -> None:
    script = (
        "import socket, sys, time\n"
        "from kringle.evaluation.jail.host import Jail\n"
        "from kringle.evaluation.jail.inside.wire import send\n"
        "from kringle.evaluation.jail.levels import probe\n"
        "jail = Jail(probe().level.way, 2**29)\n"
        "ours, theirs = socket.socketpair()\n"
        "jail.start('together', theirs, memory=2**26, cpu=60.0, wall=60.0)\n"
        f"send(ours, {ENDLESS!r})\n"
        "print(jail._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    session = int(host.stdout.readline())
    assert len(processes_of(session)) >= 2
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    assert eventually(lambda: not processes_of(session))


def test_killing_the_jail_s_outermost_process_ends_everything() -> None:
    with Jail(probe().level.way, 2**29) as jail, start_endless(jail):
        session = jail._process.pid
        os.kill(session, signal.SIGKILL)
        assert eventually(lambda: not processes_of(session))
        with pytest.raises(JailError):
            start_endless(jail)


@needs_nursery
def test_a_nursery_that_was_killed_is_replaced_and_its_jails_live_on() -> None:
    with Jail(probe().level.way, 2**29) as first:
        lost = nursery._current
        assert lost is not None
        os.kill(lost._process.pid, signal.SIGKILL)
        lost._process.wait()
        with Jail(probe().level.way, 2**29) as second, start_endless(second), start_endless(first):
            assert nursery._current is not lost
            sessions = [first._process.pid, second._process.pid]
            assert eventually(lambda: all(len(processes_of(session)) >= 3 for session in sessions))
    assert eventually(lambda: not any(map(processes_of, sessions)))


@needs_nursery
def test_jails_are_copies_of_one_process_and_leave_no_zombies() -> None:
    for _ in range(2):
        with Jail(probe().level.way, 2**29) as jail:
            parent = Path(f"/proc/{jail._process.pid}/stat").read_text().rpartition(")")[2].split()[1]
            assert nursery._current is not None
            assert int(parent) == nursery._current._process.pid
        assert eventually(lambda: not Path(f"/proc/{jail._process.pid}").exists())


STOPPED = """
import sys
from jail_support import LIMITS, problem
from kringle.evaluation.jail.levels import probe
from kringle.evaluation.jail.runner import open_runner
runner = open_runner("python", LIMITS, probe().level)
one = problem("flood", "f", "assert candidate() == 1")
text = "import time\\ntime.sleep(0.3)\\nprint('x' * 2**20)\\ndef f():\\n    return 1\\n"
print("ready", flush=True)
first = runner.judge(one, text, alone=False)
verdict = first or runner.judge(one, text, alone=True)
print(first is None, verdict.verdict)
runner.close()
"""


def test_a_program_that_waits_for_a_stopped_host_is_not_idle() -> None:
    """Ctrl-Z stops us and not the jail: the program's pipe is full then, and nobody reads it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        time.sleep(0.1)
        os.kill(host.pid, signal.SIGSTOP)
        time.sleep(2)  # the program's wall time is one second
        os.kill(host.pid, signal.SIGCONT)
        assert host.stdout.read().split()[-1] == "output"


def test_groups_of_hosts_that_were_killed_are_swept() -> None:
    made = cgroups.create(2**29)
    if isinstance(made, str):
        pytest.skip(f"no control groups here: {made}")
    try:
        stale = [folder.with_name("kringle-999999999-0") for folder in made.folders]
        for folder in stale:
            folder.mkdir()
        again = cgroups.create(2**29)
        assert isinstance(again, cgroups.ControlGroup)
        again.remove()
        assert not any(folder.exists() for folder in stale)
        assert all(folder.exists() for folder in made.folders)
    finally:
        made.remove()


def test_version_2_groups_are_made_where_they_may_be(tmp_path: Path) -> None:
    """On plain folders, as the kernel lays them out; the kernel's own part is for the machines that have it."""
    session = tmp_path / "user.slice" / "session"
    session.mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("memory pids")
    for folder, shares in ((session, ""), (session.parent, "cpu memory pids")):
        (folder / "cgroup.subtree_control").write_text(shares)
        (folder / "cgroup.procs").write_text("")
    made = cgroups.create(2**20, tmp_path, "0::/user.slice/session\n")
    assert isinstance(made, cgroups.ControlGroup)
    (folder,) = made.folders
    assert folder.parent == session.parent
    assert (folder / "memory.max").read_text() == str(2**20)
    (session.parent / "cgroup.subtree_control").write_text("cpu")
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    assert "no group above" in str(cgroups.create(2**20, tmp_path, "0::/user.slice/session\n"))
    assert "no control groups" in str(cgroups.create(2**20, tmp_path, ""))


@needs_nursery
def test_a_nursery_that_was_interrupted_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its answer would be taken for that to the next request, and every jail would watch another's process."""
    with Jail(probe().level.way, 2**29):
        pass
    received = nursery.receive

    def interrupted(channel: socket.socket) -> object:
        monkeypatch.setattr(nursery, "receive", received)
        raise KeyboardInterrupt

    monkeypatch.setattr(nursery, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Jail(probe().level.way, 2**29)
    with Jail(probe().level.way, 2**29) as jail:
        assert isinstance(jail._process, nursery.Copy)
        children = Path(f"/proc/{jail._process.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(children[3]) == jail._process.pid  # the leader of its own session: a copy that is a jail


def test_without_handles_of_processes_every_jail_starts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    nursery.possible.cache_clear()
    monkeypatch.delattr(os, "pidfd_open")
    try:
        with Jail(probe().level.way, 2**29) as jail:
            assert isinstance(jail._process, subprocess.Popen)
    finally:
        nursery.possible.cache_clear()
