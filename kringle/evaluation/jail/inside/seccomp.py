"""The system calls that jailed programs may not make, as a seccomp filter assembled by hand.

There is no libseccomp on a user's machine to rely on, and a filter is only a short array of instructions for the
kernel's packet-filter machine (`linux/seccomp.h`, `linux/bpf_common.h`). A list of what is denied, not of what is
allowed: the filter is one layer of many, and Python, Java and JavaScript use some hundred calls that vary with the C
library. Calls younger than the tables get ENOSYS, which every C library takes as "old kernel" and works around.

Not covered: 32-bit programs (killed: another table would be needed), machines other than x86-64 and aarch64 (no
filter, and the jail's report says so).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import struct
from typing import NamedTuple

from .linux import PR_SET_PDEATHSIG, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SystemCallError, call, machine

# (x86-64, aarch64) from asm/unistd_64.h and asm-generic/unistd.h; None where the machine lacks the call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # the shape of the file system
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "fanotify_init": (300, 262),
    # owners, modes, times and attributes of files, which Landlock leaves to their owner
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    # new namespaces and new processes
    "setns": (308, 268),
    "unshare": (272, 97),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes: their memory, their descriptors, their signals, their share of the machine
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prctl": (157, 167),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # memory and messages that outlive a process or escape its memory limit
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the network
    "socket": (41, 198),
    "socketpair": (53, 199),
    # large and little-used parts of the kernel, where its faults have been
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "modify_ldt": (154, None),
    # the machine itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
}
NEWEST = 450  # set_mempolicy_home_node, the last call of Linux 6.1, whose headers the table was taken from
_COLUMN = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32_BIT = 0x40000000  # calls of the x32 interface carry this bit and would pass any test on equality

# Numbers with an argument that decides; all others of the table are denied outright.
_IN_EVERY_JAIL = {"clone", "clone3", "fcntl", "ioctl", "socketpair"}
_FROM_PROGRAMS_OUTRIGHT = [
    "fork",
    "vfork",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_open",
    "pidfd_send_signal",
    "setpriority",
]
_FROM_PROGRAMS = {*_FROM_PROGRAMS_OUTRIGHT, "kill", "tgkill", "prctl", "sched_setaffinity", "prlimit64"}

CLONE_THREAD = 0x00010000
CLONE_NEW_NAMESPACE = 0x7E020080  # every CLONE_NEW* flag, time and cgroup namespaces included
AF_UNIX = 1
# F_SETOWN, F_SETSIG, F_SETOWN_EX and FIOSETOWN, SIOCSPGRP make the kernel signal another process on this one's behalf;
# TIOCSTI types into a terminal.
_FCNTL_OWNERS = (8, 10, 15)
_IOCTL_OWNERS = (0x8901, 0x8902, 0x5412)

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_OFFSET_OF_NUMBER, _OFFSET_OF_ARCHITECTURE, _OFFSET_OF_ARGUMENTS = 0, 4, 16
_ALLOWED = (_RETURN, 0, 0, _ALLOW)
_DENIED = (_RETURN, 0, 0, _ERRNO | errno.EPERM)

_ANY_PID = 0x7F0F0F7F  # beyond the kernel's largest process number; replaced by the real one in each process

_ANY_ADDRESS = 0x7E0E0E7E  # replaced likewise

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class Argument(NamedTuple):
    """A call that is denied, or allowed, when the low half of one argument has one of some values or any of some
    bits."""

    name: str
    position: int
    test: int  # _JUMP_EQUAL or _JUMP_ANY_BIT
    values: tuple[int, ...]
    then_allow: bool


def supported() -> bool:
    return machine() in _COLUMN


@functools.cache
def jail_filter(architecture: str, may_execute: bool = False) -> bytes:
    """For the jail as a whole, its keeper included: processes may be started, nothing can be widened.

    may_execute: a process may still become another program, once; `program_filter` takes care of that.
    """
    free = _IN_EVERY_JAIL | _FROM_PROGRAMS | ({"execve"} if may_execute else set())
    outright = [name for name in NUMBERS if name not in free]
    return _assemble(
        architecture,
        outright,
        [
            Argument("clone", 0, _JUMP_ANY_BIT, (CLONE_NEW_NAMESPACE,), then_allow=False),
            Argument("fcntl", 1, _JUMP_EQUAL, _FCNTL_OWNERS, then_allow=False),
            Argument("ioctl", 1, _JUMP_EQUAL, _IOCTL_OWNERS, then_allow=False),
            Argument("socketpair", 0, _JUMP_EQUAL, (AF_UNIX,), then_allow=True),
        ],
    )


class Prepared:
    """`program_filter` for a process of which only the number is still unknown, made before that process exists.

    A fresh process then only writes its number into it and makes one call of the kernel.
    """

    def __init__(self, architecture: str) -> None:
        code = _program_filter(architecture)
        marker = struct.pack("=I", _ANY_PID)
        self._places = [place for place in range(4, len(code), 8) if code[place : place + 4] == marker]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._code))
        self._address = ctypes.addressof(self._program)
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)

    def code_for(self, pid: int) -> bytes:
        """The filter for a process with this number."""
        for place in self._places:
            struct.pack_into("=I", self._code, place, pid)
        return self._code.raw

    def install(self, pid: int) -> None:
        """Bind this process, whose number is `pid`, to the filter."""
        self.code_for(pid)
        if self._prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._address, 0, 0) != 0:
            raise SystemCallError(ctypes.get_errno(), "prctl: the filter of system calls was refused")


def program_filter(architecture: str, pid: int, path_address: int | None = None) -> bytes:
    """For a process that runs a program: no further process (threads only), and no signal or limit but its own.

    path_address: where in this process's memory the path of the one program lies that it may become. The filter cannot
    read the path, but afterwards nobody knows that number, and Landlock allows no other program anyway.
    """
    code = _program_filter(architecture, path_address is not None)
    if path_address is not None:
        code = code.replace(struct.pack("=I", _ANY_ADDRESS), struct.pack("=I", path_address & 0xFFFFFFFF))
    return code.replace(struct.pack("=I", _ANY_PID), struct.pack("=I", pid))


@functools.cache
def _program_filter(architecture: str, may_execute: bool = False) -> bytes:
    become = [Argument("execve", 0, _JUMP_EQUAL, (_ANY_ADDRESS,), then_allow=True)] if may_execute else []
    return _assemble(
        architecture,
        _FROM_PROGRAMS_OUTRIGHT,
        [
            *become,
            Argument("clone", 0, _JUMP_ANY_BIT, (CLONE_THREAD,), then_allow=True),
            Argument("prctl", 0, _JUMP_EQUAL, (PR_SET_PDEATHSIG,), then_allow=False),
            Argument("kill", 0, _JUMP_EQUAL, (_ANY_PID,), then_allow=True),
            Argument("tgkill", 0, _JUMP_EQUAL, (_ANY_PID,), then_allow=True),
            Argument("prlimit64", 0, _JUMP_EQUAL, (0, _ANY_PID), then_allow=True),
            Argument("sched_setaffinity", 0, _JUMP_EQUAL, (0, _ANY_PID), then_allow=True),
        ],
    )


def _assemble(architecture: str, outright: list[str], by_argument: list[Argument]) -> bytes:
    column = _COLUMN[architecture]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_OF_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[architecture]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_OF_NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_JUMP_AT_LEAST, 0, 1, NEWEST + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    clone3 = NUMBERS["clone3"][column]
    assert clone3 is not None
    # The flags of clone3 lie in memory, where a filter cannot look: ENOSYS sends every C library back to clone.
    code += [(_JUMP_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for name in outright:
        number = NUMBERS[name][column]
        if number is not None:
            code += [(_JUMP_EQUAL, 0, 1, number), _DENIED]
    for rule in by_argument:
        number = NUMBERS[rule.name][column]
        assert number is not None
        hit, miss = (_ALLOWED, _DENIED) if rule.then_allow else (_DENIED, _ALLOWED)
        tests: list[Instruction] = [(_LOAD, 0, 0, _OFFSET_OF_ARGUMENTS + 8 * rule.position)]
        for value in rule.values:
            tests += [(rule.test, 0, 1, value & 0xFFFFFFFF), hit]
        tests.append(miss)
        code += [(_JUMP_EQUAL, 0, len(tests), number), *tests]
    code.append(_ALLOWED)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def install(code: bytes) -> None:
    """Bind this process and all its descendants to a filter, for good. Needs no_new_privs or a capability."""
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(held))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0)
