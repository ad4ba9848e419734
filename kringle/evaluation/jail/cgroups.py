"""Limits on a whole jail's memory and processes by control groups, version 1 or 2, where this user may make them.

They back up the limits that each process has of its own: all processes of a jail together, its /tmp included (those
are pages of memory), cannot take more than this. Ordinary users have them only where the system delegates them
(systemd's user sessions do).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "kringle-"
_numbers = itertools.count()
_MOST_PROCESSES = 64
_PATIENCE = 2.0  # seconds for the kernel to forget the processes of a jail that has ended


@dataclass(frozen=True)
class ControlGroup:
    """The groups that were made for one jail."""

    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Put a process, and so all its future children, into the groups."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the groups once their processes have ended."""
        deadline = time.monotonic() + _PATIENCE
        for folder in self.folders:
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)


def create(memory_bytes: int, root: Path = _ROOT, membership: str | None = None) -> ControlGroup | str:
    """Make groups beside this process's own ones; or say why that cannot be."""
    name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    try:
        text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    except OSError:
        return "this system has no control groups"
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in text.splitlines())}
    by_controller = {name: path for names, path in own.items() for name in names.split(",") if name}
    try:
        if "memory" in by_controller and "pids" in by_controller:
            return _version_1(name, memory_bytes, root, by_controller)
        if "" in own:
            return _version_2(name, memory_bytes, root, own[""])
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return "this system has no control groups for memory and processes"


def _version_1(name: str, memory_bytes: int, root: Path, paths: dict[str, str]) -> ControlGroup:
    made: list[Path] = []
    try:
        for controller, limit, value in (
            ("memory", "memory.limit_in_bytes", memory_bytes),
            ("pids", "pids.max", _MOST_PROCESSES),
        ):
            folder = root / controller / paths[controller].lstrip("/") / name
            _sweep(folder.parent)
            folder.mkdir()
            made.append(folder)
            (folder / limit).write_text(str(value))
    except OSError:
        ControlGroup(tuple(made)).remove()
        raise
    return ControlGroup(tuple(made))


def _version_2(name: str, memory_bytes: int, root: Path, path: str) -> ControlGroup | str:
    """In the nearest group above us that shares out memory and processes and lets us add to it.

    Not in our own: a group with processes in it cannot share out anything to groups below ("no internal processes").
    """
    here = root / path.lstrip("/")
    if not (here / "cgroup.procs").exists() and (root / "unified" / "cgroup.procs").exists():
        return "control groups of version 2 are there, but not for memory and processes"
    for parent in (here, *here.parents):
        if root not in (parent, *parent.parents):
            break
        shared = parent / "cgroup.subtree_control"
        if not shared.is_file() or not {"memory", "pids"} <= set(shared.read_text().split()):
            continue
        if not os.access(parent, os.W_OK) or not os.access(parent / "cgroup.procs", os.W_OK):
            continue
        folder = parent / name
        _sweep(parent)
        folder.mkdir()
        (folder / "memory.max").write_text(str(memory_bytes))
        (folder / "pids.max").write_text(str(_MOST_PROCESSES))
        return ControlGroup((folder,))
    return "no group above this process shares out memory and processes and may be written to"


def _sweep(parent: Path) -> None:
    """Remove groups whose maker was killed before it could."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        maker = folder.name.removeprefix(_PREFIX).split("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            with contextlib.suppress(OSError):  # still in use after all, or somebody else's
                folder.rmdir()
