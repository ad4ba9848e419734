"""Run one program without its tests, and answer the calls that the tests make from another process.

Nothing in this process, nor in the one that it was forked from, has ever held a test, an expected value or a way to
report a verdict: there is nothing here to look for, to patch or to forge. What the program can do is answer.
"""

from __future__ import annotations

import random
import socket

from . import execute, wire
from .peer import FOR_TESTS, Peer, Tampered

_OUR_FRAMES = (
    20  # between this module and a call that a test makes; a program must not find less room here than elsewhere
)


def main(channel: socket.socket) -> None:
    request = wire.receive(channel)
    if request is None:
        return
    code = execute.compile_program(request["program"])
    if isinstance(code, execute.Result):
        wire.send(channel, {"raised": code.evidence})
        return
    namespace: dict[str, object] = {}
    random.seed(execute.SEED)
    execute.set_recursion_limit(_OUR_FRAMES)
    try:
        exec(code, namespace)
    except BaseException as error:
        wire.send(channel, {"raised": execute.describe(error, "")})
        return
    wire.send(channel, {"loaded": True})
    try:
        answer = wire.receive(channel) or {"records": []}
        records = {name: namespace[name] for name in answer["records"] if isinstance(namespace.get(name), type)}
        Peer(channel, FOR_TESTS, namespace, records).serve()  # type: ignore[arg-type]
    except Tampered:
        return  # the referee would not send anything odd: the program has changed our own code
