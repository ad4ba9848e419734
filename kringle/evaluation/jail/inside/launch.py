"""Build the jail around this very process, layer by layer, and report which layers stand.

Three ways, chosen by the host:
- `namespaces`: this process makes its own (as root, or as an ordinary user where the system lets users do so);
- `inherited`: another program (bubblewrap) has made them already;
- `bare`: none at all; Landlock, seccomp and resource limits have to do.

A layer that cannot be had is reported with its reason. Whether what stands is enough is the host's decision, not
taken here.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import stat
import sys
from typing import NamedTuple

from . import landlock, linux, seccomp, wire
from .keeper import Keeper

INNER_ID = 1000  # any id but 0: user 0 of a namespace would get its capabilities back on every exec
NOBODY = 65534
_MOUNT_POINT = "/tmp"  # exists everywhere; hidden inside our own mount namespace only
_DEVICES = ("null", "zero", "full", "random", "urandom")
_NAMESPACES = {"user": "user", "mnt": "mount", "net": "network", "pid": "process", "ipc": "ipc", "uts": "host name"}


class Settings(NamedTuple):
    """What the host asks for. `host_namespaces` are the names of its own, to tell which ones are new."""

    way: str
    readable: list[str]
    scratch_bytes: int
    scratch_files: int
    host_namespaces: dict[str, str]
    executable: list[str]


Layers = dict[str, tuple[bool, str]]


def main(descriptor: int) -> None:
    """Entry point of the fresh interpreter; `descriptor` is its end of the socket to the host."""
    control = socket.socket(fileno=descriptor)
    hello = wire.receive(control)
    if hello is None:
        return
    settings = Settings(**hello)
    layers: Layers = {}
    try:
        address_space = _address_space()
        if settings.way == "namespaces":
            _enter_namespaces(settings, layers)
        _finish(control, settings, layers, address_space)
    except Exception as error:
        # The host turns this into the reason why there is no jail; nothing untrusted has run yet.
        wire.send(control, {"failed": f"{type(error).__name__}: {error}", "layers": layers})


def nursery(descriptor: int) -> None:
    """Entry point of the interpreter that all of a host's jails are copies of: makes them until the host goes away.

    A request comes with two descriptors, the jail's end of its socket to the host and the pipe for its last words.
    """
    control = socket.socket(fileno=descriptor)
    while (received := wire.receive_with_descriptors(control, 2)) is not None:
        request, descriptors = received
        if "reap" in request:
            os.waitpid(request["reap"], 0)
            continue
        child = os.fork()
        if child == 0:
            _leave_nursery(control, *descriptors)
        for each in descriptors:
            os.close(each)
        wire.send(control, {"pid": child})


def _leave_nursery(control: socket.socket, channel: int, words: int) -> None:
    """In the copy: become the outermost process of a jail."""
    status = 1
    try:
        control.close()
        os.setsid()  # Ctrl-C is for the host to handle
        os.dup2(words, 2)
        os.close(words)
        main(channel)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)  # nothing may return into the nursery's loop


def _enter_namespaces(settings: Settings, layers: Layers) -> None:
    """Return in the first process of new namespaces, as an ordinary user, with a file system of our own."""
    outside_user, outside_group = os.getuid(), os.getgid()
    if outside_user == 0:
        # A jail that root starts still belongs to nobody: it has no more rights outside than anybody has.
        os.setgroups([])
        outside_user, outside_group = NOBODY, NOBODY
    ours, helpers = socket.socketpair()
    helper = os.fork()
    if helper == 0:
        ours.close()
        _write_identity_maps(helpers, os.getppid(), outside_user, outside_group)
    helpers.close()
    flags = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
    try:
        linux.call("unshare", flags | linux.CLONE_NEWUTS)
        wire.send(ours, {"unshared": True})
        answer = wire.receive(ours)
    finally:
        ours.close()
        os.waitpid(helper, 0)
    if answer is None or "failed" in answer:
        raise linux.SystemCallError(0, answer["failed"] if answer else "the helper that writes the identity maps died")
    # Opened while we are still who we were: a Python in a private home is readable to its owner only.
    links = {path: os.readlink(path) for path in settings.readable if os.path.islink(path)}
    sources = {path: os.open(path, os.O_PATH) for path in settings.readable if path not in links}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES if os.path.exists(f"/dev/{name}")}
    os.setresgid(INNER_ID, INNER_ID, INNER_ID)
    os.setresuid(INNER_ID, INNER_ID, INNER_ID)
    socket.sethostname("kringle")
    _continue_as_first_process()
    _build_root(settings, links, sources, devices)
    for descriptor in (*sources.values(), *devices.values()):
        os.close(descriptor)
    _compare_namespaces(settings, layers)
    linux.become_root_of_the_file_system(_MOUNT_POINT)
    layers["read-only root"] = (True, f"{', '.join(settings.readable)}; /tmp of {settings.scratch_bytes >> 20} MiB")


def _write_identity_maps(channel: socket.socket, target: int, user: int, group: int) -> None:
    """In a helper that stays outside: only from there may root map an id other than its own (user_namespaces(7))."""
    answer: wire.Message = {}
    try:
        if wire.receive(channel):
            if os.getuid() != 0:
                _write(f"/proc/{target}/setgroups", "deny")
            _write(f"/proc/{target}/gid_map", f"{INNER_ID} {group} 1")
            _write(f"/proc/{target}/uid_map", f"{INNER_ID} {user} 1")
    except OSError as error:
        answer = {"failed": f"identity maps: {error}"}
    try:
        wire.send(channel, answer)
    finally:
        os._exit(0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _compare_namespaces(settings: Settings, layers: Layers) -> None:
    inside = linux.namespace_ids()
    for kind, name in _NAMESPACES.items():
        own = inside[kind] != settings.host_namespaces[kind]
        layers[f"{name} namespace"] = (own, "" if own else "shared with the host")


def _build_root(settings: Settings, links: dict[str, str], sources: dict[str, int], devices: dict[str, int]) -> None:
    """A file system of the interpreter, the system's libraries, five devices and a small /tmp; everything else absent.

    There is no /proc: nothing that a program is scored on needs it, and it is the richest way to other processes.
    """
    root = _MOUNT_POINT
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("jail", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=1m,nr_inodes=1k")
    for path, destination in links.items():
        os.symlink(destination, root + path)  # /lib leads to usr/lib on most systems, and programs expect it there
    for path, descriptor in sources.items():
        _bind(descriptor, root + path)
    _make_read_only(root)
    os.mkdir(f"{root}/dev")
    for name, descriptor in devices.items():
        _bind(descriptor, f"{root}/dev/{name}")
    scratch = f"mode=700,size={settings.scratch_bytes},nr_inodes={settings.scratch_files},uid={INNER_ID},gid={INNER_ID}"
    os.mkdir(f"{root}/tmp")
    linux.mount("scratch", root + "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, scratch)
    linux.mount("none", root, flags=_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV)


def _bind(descriptor: int, target: str) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write(target, "")
    linux.mount(f"/proc/self/fd/{descriptor}", target, flags=linux.MS_BIND | linux.MS_REC)


_REMOUNT = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
_KEPT_OPTIONS = {
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "noatime": linux.MS_NOATIME,
    "nodiratime": linux.MS_NODIRATIME,
    "relatime": linux.MS_RELATIME,
}


def _make_read_only(root: str) -> None:
    """Remount every mount beneath the one that is visible at `root`, in it or in another of them, without write access.

    One by one, because a remount does not reach the mounts beneath; and with the flags that each already has, because a
    user namespace may not take away what was set outside it. Told by number, not by path: the host may have mounts
    below a folder of this name, which `root` now covers.
    """
    mounts = [line.split() for line in _read("/proc/self/mountinfo").splitlines()]
    ours = {[number for number, _, _, _, target, *_ in mounts if target == root][-1]}
    for number, parent, _, _, target, options, *_ in mounts:  # a mount stands behind the one that it is in
        if parent not in ours:
            continue
        ours.add(number)
        flags = _REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
        for option in options.split(","):
            flags |= _KEPT_OPTIONS.get(option, 0)
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), target)  # spaces are written \040
        linux.mount("none", path, flags=flags)


def _continue_as_first_process() -> None:
    """Return in the first process of the new process namespace; this one only waits for it.

    When the first process ends, the kernel kills all others in the namespace, so nothing can be left behind.
    """
    child = os.fork()
    if child:
        os.closerange(3, 256)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    linux.call("prctl", linux.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _finish(control: socket.socket, settings: Settings, layers: Layers, address_space: int | None) -> None:
    """The layers that need no privilege, then the keeper's loop, which ends only with the jail."""
    on_linux = sys.platform == "linux"
    if settings.way != "namespaces" and on_linux:
        _compare_namespaces(settings, layers)
        layers["read-only root"] = _look_at_root(settings)
    # Without a file system of our own there is nothing that a program may write on.
    scratch = None if settings.way == "bare" else "/tmp"
    os.chdir(scratch or "/")
    _limit_resources(settings, layers)
    if on_linux:
        _become_ordinary(layers)
        _give_up_privileges(layers)
        _restrict_paths(settings, scratch, layers)
        _filter_system_calls(layers, bool(settings.executable))
        # Others, even of the same user, may then neither trace us nor open our memory.
        linux.call("prctl", linux.PR_SET_DUMPABLE, 0, 0, 0, 0)
    wire.send(control, {"ready": True, "layers": layers})
    filtered = "seccomp" in layers and layers["seccomp"][0]
    Keeper(control, address_space, filtered, scratch).serve()


def _look_at_root(settings: Settings) -> tuple[bool, str]:
    """Whether a root that someone else has built is as bare as ours, and cannot be written to."""
    expected = {path.split("/")[1] for path in settings.readable} | {"dev", "proc", "tmp", __file__.split("/")[1]}
    more = sorted(set(os.listdir("/")) - expected)
    if more:
        return False, f"the host's file system is visible: {', '.join(more[:3])}, ..."
    try:
        os.mkdir("/written")
    except OSError:
        return True, ""
    return False, "it can be written to"


def _address_space() -> int | None:
    """Bytes of address space that the interpreter itself takes, to be added to every program's limit; None off Linux.

    Asked for while there is still a /proc.
    """
    if sys.platform != "linux":
        return None
    pages = int(_read("/proc/self/statm").split()[0])
    return pages * resource.getpagesize()


def _limit_resources(settings: Settings, layers: Layers) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: settings.scratch_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_STACK: 8 * 2**20,
    }
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowered, lowered))
    layers["resource limits"] = (
        True,
        "file size, open files, stack, locked memory; per program: CPU time, address space",
    )


def _become_ordinary(layers: Layers) -> None:
    """Leave root behind where no user namespace has done so, unless that would lock us out of our own Python."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        readable = os.access(os.__file__, os.R_OK, effective_ids=True)
        os.seteuid(0)
        os.setegid(0)
        if not readable:
            layers["ordinary user"] = (False, f"only root can read {sys.base_prefix}")
            return
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    layers["ordinary user"] = (True, f"user {os.getuid()}")


def _give_up_privileges(layers: Layers) -> None:
    try:
        linux.drop_capabilities()
        layers["no capabilities"] = (True, "")
    except linux.SystemCallError as error:
        layers["no capabilities"] = (False, str(error))
    linux.call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    layers["no new privileges"] = (True, "")


def _restrict_paths(settings: Settings, scratch: str | None, layers: Layers) -> None:
    try:
        version = landlock.restrict(
            settings.readable, [scratch] if scratch else [], [f"/dev/{name}" for name in _DEVICES], settings.executable
        )
        layers["landlock"] = (True, f"version {version}")
    except linux.SystemCallError as error:
        layers["landlock"] = (False, error.strerror or str(error))


def _filter_system_calls(layers: Layers, may_execute: bool) -> None:
    if not seccomp.supported():
        layers["seccomp"] = (False, f"no table of system calls for {linux.machine()}")
        return
    try:
        seccomp.install(seccomp.jail_filter(linux.machine(), may_execute))
        layers["seccomp"] = (True, "")
    except linux.SystemCallError as error:
        layers["seccomp"] = (False, str(error))
