"""The filter of system calls, run instruction by instruction by a model of the kernel's packet-filter machine."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from kringle.evaluation.jail.inside import seccomp

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
PID = 4321


def verdict(code: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> str | int:
    """What the kernel would do with a call: allow, kill, or the error that it returns."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(arguments + (0,) * (6 - len(arguments))))
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator, position = 0, 0
    while True:
        operation, if_true, if_false, constant = program[position]
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif operation == 0x06:
            action = constant & 0xFFFF0000
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(action) or constant & 0xFFFF
        else:
            test = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}
            position += if_true if test[operation] else if_false


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(filter_code: bytes, architecture: str, name: str, *arguments: int) -> str | int:
    number = seccomp.NUMBERS[name][0 if architecture == "x86_64" else 1]
    assert number is not None
    return verdict(filter_code, ARCHITECTURES[architecture], number, arguments)


def test_what_no_process_of_a_jail_may_do(architecture: str) -> None:
    code = seccomp.jail_filter(architecture)
    for name in (
        "mount",
        "unshare",
        "setns",
        "ptrace",
        "socket",
        "execve",
        "bpf",
        "io_uring_setup",
        "keyctl",
        "fchmodat",
    ):
        assert ask(code, architecture, name) == errno.EPERM, name
    assert ask(code, architecture, "clone3") == errno.ENOSYS


def test_arguments_decide(architecture: str) -> None:
    jail, program = seccomp.jail_filter(architecture), seccomp.program_filter(architecture, PID)
    fork, thread = 17, 0x3D0F00
    assert ask(jail, architecture, "clone", fork) == ALLOW
    assert ask(program, architecture, "clone", fork) == errno.EPERM
    assert ask(program, architecture, "clone", thread) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert ask(jail, architecture, "clone", thread | flag) == errno.EPERM
    for name in ("kill", "tgkill"):
        assert ask(jail, architecture, name, 1, 9) == ALLOW
        assert ask(program, architecture, name, PID, 9) == ALLOW
        for other in (1, 0, -1 & 0xFFFFFFFF, PID + 1):
            assert ask(program, architecture, name, other, 9) == errno.EPERM
    assert ask(program, architecture, "prlimit64", 0) == ask(program, architecture, "prlimit64", PID) == ALLOW
    assert ask(program, architecture, "prlimit64", 1) == errno.EPERM
    assert ask(jail, architecture, "socketpair", 1) == ALLOW
    assert ask(jail, architecture, "socketpair", 2) == errno.EPERM
    assert ask(jail, architecture, "fcntl", 3, 1) == ALLOW
    assert [ask(jail, architecture, "fcntl", 3, command) for command in (8, 10, 15)] == [errno.EPERM] * 3
    assert ask(program, architecture, "prctl", 1) == errno.EPERM
    assert ask(program, architecture, "prctl", 15) == ALLOW


def test_a_prepared_filter_is_the_filter_of_one_process(architecture: str) -> None:
    prepared = seccomp.Prepared(architecture)
    for pid in (PID, PID + 1):
        assert prepared.code_for(pid) == seccomp.program_filter(architecture, pid)


def test_other_machines_and_younger_calls(architecture: str) -> None:
    other = "aarch64" if architecture == "x86_64" else "x86_64"
    for code in (seccomp.jail_filter(architecture), seccomp.program_filter(architecture, PID)):
        assert verdict(code, ARCHITECTURES[other], 0) == KILL
        assert verdict(code, 0x40000003, 11) == KILL  # 32-bit x86
        assert verdict(code, ARCHITECTURES[architecture], 0x40000000 | 41) == KILL  # the x32 interface
        assert verdict(code, ARCHITECTURES[architecture], seccomp.NEWEST + 1) == errno.ENOSYS


def test_everything_else_is_allowed(architecture: str) -> None:
    column = 0 if architecture == "x86_64" else 1
    named = {numbers[column] for numbers in seccomp.NUMBERS.values()}
    for code in (seccomp.jail_filter(architecture), seccomp.program_filter(architecture, PID)):
        for number in set(range(seccomp.NEWEST + 1)) - named:
            assert verdict(code, ARCHITECTURES[architecture], number) == ALLOW, number


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_numbers_are_the_kernels(header: str, column: int) -> None:
    if not Path(header).is_file():
        pytest.skip(f"{header} is not installed (Debian: linux-libc-dev)")
    known = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    numbers: dict[str, int] = {}
    for name, number in known:
        numbers.setdefault(name, int(number))
    for name, row in seccomp.NUMBERS.items():
        assert row[column] == numbers.get(name), name
