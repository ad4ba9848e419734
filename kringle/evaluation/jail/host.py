"""One jail, seen from outside: start it, start programs in it, hear how they ended, close it.

The jail is a copy of a fresh interpreter with an empty environment (`nursery.py`, `inside/launch.py`); all talk goes
through one socket. When this side closes the socket, or dies in any way, the jail's first process ends and the kernel
ends all others with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Literal

from kringle.evaluation.jail import cgroups, nursery
from kringle.evaluation.jail.inside import linux
from kringle.evaluation.jail.inside.wire import Inbox, Malformed, Message, send

if TYPE_CHECKING:
    from kringle.evaluation.jail.runtimes import Runtime

Way = Literal["namespaces", "bubblewrap", "bare"]
WAYS: tuple[Way, ...] = ("namespaces", "bubblewrap", "bare")

SCRATCH_BYTES = 64 * 2**20  # of /tmp, which is memory
SCRATCH_FILES = 256
_PATIENCE = 20.0  # seconds for the keeper, which never runs anything untrusted, to answer on a loaded machine
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache")
_START = (
    "import sys; sys.path.append(sys.argv[1]); from inside import launch; sys.path.pop(); launch.{}(int(sys.argv[2]))"
)


_HERE = str(Path(__file__).resolve().parent)


class JailError(Exception):
    """The jail itself failed: it could not be built, or stopped answering. Never the fault of a program's author."""

    def __init__(self, reason: str, layers: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.layers = layers or {}


@dataclass(frozen=True)
class Ended:
    """How a process in the jail ended. `because` is cpu, wall, idle or stopped where the keeper ended it, else None."""

    number: int
    code: int
    because: str | None
    cpu: float
    wall: float
    peak_kb: int
    scratch_used: bool


class Jail:
    """A running jail. Not for use from several threads at once."""

    def __init__(self, way: Way, memory_bytes: int, runtime: Runtime | None = None) -> None:
        """Start a jail in one of the ways.

        `memory_bytes` bounds all its processes together, where there are control groups. With a runtime, the jail shows
        its files and its processes may become that runtime's program, and nothing else. Raises JailError with the
        reason if it cannot be built at all; `layers` tells what stands of one that was.
        """
        self._runtime = runtime
        self.layers: dict[str, tuple[bool, str]] = {}
        self._ended: dict[int, Ended] = {}
        self._started = 0
        command = _command(way, runtime)
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._inbox = Inbox(ours)
        self._group: cgroups.ControlGroup | None = None
        self._process: nursery.Copy | subprocess.Popen[bytes]
        with theirs:
            if way != "bubblewrap" and nursery.possible():
                try:
                    self._process = nursery.start(_interpreter("nursery"), _environment(), theirs)
                except OSError as error:
                    ours.close()
                    raise JailError(str(error)) from None
            else:
                self._process = nursery.interpreter(command, _environment(), theirs)
        try:
            self._build(way, memory_bytes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        role: str,
        channel: socket.socket,
        output: int | None = None,
        *,
        memory: int,
        cpu: float | None = None,
        wall: float | None = None,
        idle_share: float = 0.0,
        companion: int | None = None,
        command: Sequence[str] | None = None,
        channel_at: int = 3,
    ) -> int:
        """Start a process with a role, a channel and a descriptor for its output; returns our number for it.

        Does not wait until it runs. memory: bytes beyond the interpreter's own. command: what the role `runtime`
        becomes, its channel at descriptor `channel_at`. cpu, wall: seconds until it is ended. idle_share: of a
        processor, below which it was waiting and not starved when its wall time ended. companion: another process of
        the jail whose CPU time counts too.
        """
        self._started += 1
        request = {"do": "start", "number": self._started, "role": role, "memory": memory, "cpu": cpu, "wall": wall}
        request |= {"idle_share": idle_share, "companion": companion}
        if command is not None:
            environment = _environment() | dict(self._runtime.environment if self._runtime else ())
            request |= {"command": list(command), "environment": environment, "channel_at": channel_at}
        descriptors = [channel.fileno()] if output is None else [channel.fileno(), output]
        self._tell(request, descriptors)
        return self._started

    def stop(self, number: int) -> None:
        """End a process; `ended` tells when it has."""
        self._tell({"do": "stop", "number": number})

    def fileno(self) -> int:
        """For polling: readable when `look` has something to read."""
        return self._socket.fileno()

    def look(self) -> None:
        """Read what the keeper has said, without waiting."""
        try:
            self._inbox.fill()
            while (message := self._inbox.take()) is not None:
                self._note(message)
        except (Malformed, OSError) as error:
            raise JailError(f"the jail's keeper sent nonsense: {error}") from None
        if self._inbox.closed:
            raise JailError(f"the jail ended unexpectedly{self._last_words()}", self.layers)

    def ended(self, number: int) -> Ended | None:
        """How a process ended, if it has."""
        return self._ended.get(number)

    def wait(self, number: int) -> Ended:
        """Wait for a process that has been stopped or is about to end by itself."""
        self._wait_until(lambda: number in self._ended)
        return self._ended.pop(number)

    def close(self) -> None:
        """End every process of the jail and remove what it left in the system. Can be called twice."""
        self._socket.close()
        try:
            self._process.wait(timeout=_PATIENCE / 4)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its first process dies with it
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self._group is not None:
            self._group.remove()
            self._group = None

    def _build(self, way: Way, memory_bytes: int) -> None:
        group = cgroups.create(memory_bytes)
        if isinstance(group, cgroups.ControlGroup):
            self._group = group
            try:
                group.add(self._process.pid)
                self.layers["control group"] = (True, f"{memory_bytes >> 20} MiB of memory in all")
            except OSError as error:
                group.remove()
                self._group = None
                self.layers["control group"] = (False, f"{error.filename}: {error.strerror}")
        else:
            self.layers["control group"] = (False, group)
        on_linux = sys.platform == "linux"
        self._tell(
            {
                "way": "inherited" if way == "bubblewrap" else way,
                "readable": readable_folders(self._runtime),
                "executable": list(self._runtime.executables) if self._runtime else [],
                "scratch_bytes": SCRATCH_BYTES,
                "scratch_files": SCRATCH_FILES,
                "host_namespaces": linux.namespace_ids() if on_linux else {},
            }
        )
        self._wait_until(lambda: "ready" in self.layers)
        del self.layers["ready"]

    def _note(self, message: Message) -> None:
        if "ended" in message:
            number = message.pop("ended")
            self._ended[number] = Ended(number=number, **message)
        elif "ready" in message:
            self.layers |= {name: (bool(ok), str(why)) for name, (ok, why) in message["layers"].items()}
            self.layers["ready"] = (True, "")
        else:
            raise JailError(str(message.get("failed", message)), message.get("layers"))

    def _tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        try:
            send(self._socket, message, descriptors)
        except OSError as error:
            raise JailError(f"the jail does not listen: {error.strerror}{self._last_words()}", self.layers) from None

    def _wait_until(self, satisfied: Any) -> None:
        poller = poll()
        poller.register(self._socket, POLLIN)
        deadline = time.monotonic() + _PATIENCE
        while not satisfied():
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise JailError(f"the jail has not answered for {_PATIENCE:.0f} seconds")
            self.look()

    def _last_words(self) -> str:
        """What the jail's outermost process wrote on its standard error before it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
            stream = self._process.stderr
            if stream is not None and not stream.closed:
                words = stream.read(4096).decode("utf-8", "replace").strip().splitlines()
                return f": {words[-1]}" if words else ""
        return ""


def readable_folders(runtime: Runtime | None = None) -> list[str]:
    """What of the host's file system a jail can read: the running Python, the system's libraries, a runtime's files."""
    folders = [folder for folder in _SYSTEM_FOLDERS if Path(folder).exists()]
    prefix = os.path.realpath(sys.base_prefix)
    if not any(prefix == folder or prefix.startswith(folder + "/") for folder in folders):
        folders.append(prefix)
    more = [folder for folder in (runtime.folders if runtime else ()) if folder not in folders]
    for folder in more:
        if folder.startswith("/tmp/"):
            raise JailError(f"{folder} lies below /tmp, which a jail gives to the program: install Kringle elsewhere")
    return folders + more


def _environment() -> dict[str, str]:
    """The same for everyone: nothing of the user's comes in, and hashes, time and text are the same everywhere."""
    environment = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8", "HOME": "/tmp", "PATH": "/usr/bin:/bin"}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]  # without it some Pythons do not start at all
    return environment


def _command(way: Way, runtime: Runtime | None) -> list[str]:
    """The command line of a jail that is started for itself, but for the number of its socket."""
    start = _interpreter("main")
    if way != "bubblewrap":
        return start
    program = shutil.which("bwrap")
    if program is None:
        raise JailError("bubblewrap (the program bwrap) is not installed")
    return [program, *_bubblewrap_arguments(_HERE, runtime), *start]


def _interpreter(function: str) -> list[str]:
    """The command line of a fresh interpreter that runs a function of `inside/launch.py`."""
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    # No user site, no site-packages, no script's folder on the path; not -I, which would ignore PYTHONHASHSEED.
    return [interpreter, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", _START.format(function), _HERE]


def _bubblewrap_arguments(code: str, runtime: Runtime | None) -> list[str]:
    """The same jail as `inside/launch.py` builds, in bubblewrap's words; /proc is needed to see which layers stand."""
    arguments = ["--unshare-user", "--unshare-all", "--uid", "1000", "--gid", "1000", "--hostname", "kringle"]
    arguments += ["--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for folder in readable_folders(runtime):
        if Path(folder).is_symlink():
            arguments += ["--symlink", str(Path(folder).readlink()), folder]
        else:
            arguments += ["--ro-bind", folder, folder]
    arguments += ["--ro-bind", code, code, "--proc", "/proc", "--dev", "/dev"]
    return [*arguments, "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
