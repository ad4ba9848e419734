"""The few Linux system calls that the standard library lacks, through the C library.

Not covered: anything that needs a header file at run time. Every constant comes from the kernel's user-space headers
(`linux/sched.h`, `linux/mount.h`, `linux/prctl.h`, `linux/capability.h`), which never renumber.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

# SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and their locks: user id 0 means nothing special from here on.
SECUREBITS_LOCKED = 0b1111
LINUX_CAPABILITY_VERSION_3 = 0x20080522

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_library = ctypes.CDLL(None, use_errno=True)


class SystemCallError(OSError):
    """A system call that failed; the message names the call, so that a missing layer of the jail can say why."""


def call(name: str, *arguments: int | bytes | None) -> int:
    """Call a C library function that returns -1 and sets errno on failure."""
    return _checked(name, getattr(_library, name)(*map(_argument, arguments)))


def system_call(name: str, number: int, *arguments: object) -> int:
    """Call the kernel by number, for calls without a wrapper in the C library."""
    return _checked(name, _library.syscall(ctypes.c_long(number), *map(_argument, arguments)))


def _argument(value: object) -> object:
    # Variadic C functions read whole registers: a plain int would be passed as 32 bits and the rest left as it was.
    return ctypes.c_ulong(value & 0xFFFFFFFFFFFFFFFF) if isinstance(value, int) else value


def _checked(name: str, result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise SystemCallError(code, f"{name}: {os.strerror(code)}")
    return result


def machine() -> str:
    return os.uname().machine


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """mount(2)."""
    try:
        call(
            "mount",
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            flags,
            options.encode() if options else None,
        )
    except SystemCallError as error:
        raise SystemCallError(error.errno, f"{error.strerror} ({target})") from None


def become_root_of_the_file_system(folder: str) -> None:
    """Make `folder`, a mount point, the root of this mount namespace and forget the old root.

    Both arguments of pivot_root are the same folder: the old root then lies on top of the new one and is unmounted
    from there, so that no folder is needed to put it in (pivot_root(2), "pivot_root(".", ".")").
    """
    os.chdir(folder)
    system_call("pivot_root", _PIVOT_ROOT[machine()], b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability of this process and of all that it will ever start."""
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        try:
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except SystemCallError:
            # EINVAL is the kernel's way to say that its list of capabilities ends here; EPERM that this process has
            # none to drop with (already an ordinary user), and then capset below settles it.
            break
    try:
        call("prctl", PR_SET_SECUREBITS, SECUREBITS_LOCKED, 0, 0, 0)
    except SystemCallError as error:
        # An ordinary user without capabilities may not set them, and has no need to: nothing is executed here.
        if error.errno != errno.EPERM:
            raise
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _checked("capset", _library.capset(header, sets))
    _checked("capget", _library.capget(header, sets))
    if any(sets):
        raise SystemCallError(0, "some capabilities remain")


def namespace_ids() -> dict[str, str]:
    """The namespaces that this process is in, by kind; two processes share one exactly if these names agree."""
    kinds = ("user", "mnt", "net", "pid", "ipc", "uts")
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def cpu_seconds(pid: int) -> float | None:
    """CPU time that another process has used so far, or None once it is gone.

    Its CPU clock needs neither /proc nor a permission; the encoding of the clock's number is in clock_getcpuclockid(3).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None
