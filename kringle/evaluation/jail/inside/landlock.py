"""Landlock: what may be read and written, by path, for any process and without any privilege.

In a full jail it repeats what the mount namespace already says; where namespaces are refused (a container's default
profile, a hardened distribution) it is the layer that keeps programs from the host's files.

Not covered: the network beyond TCP (the empty network namespace and seccomp are for that), kernels before 5.13.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from .linux import SystemCallError, system_call

# The same numbers on every machine (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_FOR_VERSION = 1
_RULE_PATH_BENEATH = 1

# linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many of the rights' bits each version knows
_NEWEST_KNOWN = 5
_TRUNCATE = 1 << 14
_RIGHTS_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15  # the rest are refused for a plain file
_DEVICES = (1 << 6) | (1 << 11)  # making character and block devices
_TCP_BIND_AND_CONNECT = 0b11
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


def version() -> int:
    """The kernel's Landlock version; 0 where it has none or has it switched off."""
    try:
        return system_call("landlock_create_ruleset", _CREATE_RULESET, None, 0, _ASK_FOR_VERSION)
    except SystemCallError:
        return 0


def restrict(
    readable: Iterable[str], writable: Iterable[str], devices: Iterable[str], executable: Iterable[str] = ()
) -> int:
    """Bind this process and its descendants to these paths, for good; returns the version used.

    Needs no_new_privs. TCP is denied from version 4 on, signals and abstract sockets to processes outside from 6 on.
    """
    known = version()
    if known < 1:
        raise SystemCallError(0, "the kernel offers no Landlock")
    every_right = (1 << _FILE_RIGHTS_BY_VERSION[min(known, _NEWEST_KNOWN)]) - 1
    attributes = struct.pack(
        "=QQQ",
        every_right,
        _TCP_BIND_AND_CONNECT if known >= 4 else 0,
        _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if known >= 6 else 0,
    )
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = system_call("landlock_create_ruleset", _CREATE_RULESET, attributes, size, 0)
    try:
        truncate = _TRUNCATE & every_right
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in executable:
            _allow(ruleset, path, _READ_FILE | _EXECUTE)
        for path in writable:
            _allow(ruleset, path, every_right & ~_DEVICES & ~_EXECUTE)
        for path in devices:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE | truncate)
        system_call("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return known


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a machine without /lib64 has nothing there to allow
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _RIGHTS_OF_FILES
        beneath = ctypes.create_string_buffer(struct.pack("=Qi", rights, handle))
        system_call("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.addressof(beneath), 0)
    finally:
        os.close(handle)
