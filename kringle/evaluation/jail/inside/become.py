"""Turn this process into another language's runtime: the last thing that Python does in it.

The limit on memory is on private writable memory (RLIMIT_DATA), not on address space: Java and Node reserve gigabytes
of addresses that they never use.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from . import linux, seccomp, wire

_library = ctypes.CDLL(None, use_errno=True)


def become(request: wire.Message, channel: int, filtered: bool) -> None:
    """Replace this process; raises OSError where that fails.

    request: command (its first word is the program's path), environment, channel_at (the descriptor at which the
    runtime expects its channel), memory (bytes of private memory), cpu (seconds or None).
    """
    place = int(request["channel_at"])
    if place == channel:
        os.set_inheritable(channel, True)
    else:
        os.dup2(channel, place, inheritable=True)
        os.close(channel)
    for descriptor in (0, 1, 2):
        os.set_inheritable(descriptor, True)
    size = int(request["memory"])
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    if request.get("cpu") is not None:
        seconds = int(request["cpu"]) + 2  # the second line, as for every other process
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    path = ctypes.create_string_buffer(os.fsencode(request["command"][0]))
    arguments = _array([os.fsencode(word) for word in request["command"]])
    environment = _array([os.fsencode(f"{name}={value}") for name, value in request["environment"].items()])
    if sys.platform == "linux":
        linux.call("prctl", linux.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if filtered:
        seccomp.install(seccomp.program_filter(linux.machine(), os.getpid(), ctypes.addressof(path)))
    _library.execve(path, arguments, environment)
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), request["command"][0])


def _array(words: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)
