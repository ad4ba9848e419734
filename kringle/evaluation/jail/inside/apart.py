"""Run one program without its tests, and answer the calls that the tests make from another process.

Nothing in this process, nor in the one that it was forked from, has ever held a test, an expected value or a way to
report a verdict: there is nothing here to look for, to patch or to forge. What the program can do is answer.
"""

from __future__ import annotations

import random

from . import execute, wire
from .peer import FOR_TESTS, Peer, Tampered

_OUR_FRAMES = (
    20  # between this module and a call that a test makes; a program must not find less room here than elsewhere
)


def main(channel: int) -> None:
    connection = wire.Connection(channel)
    request = connection.receive()
    if request is None:
        return
    code = execute.compile_program(request["program"])
    if isinstance(code, execute.Result):
        connection.send({"raised": code.evidence})
        return
    namespace: dict[str, object] = {}
    random.seed(execute.SEED)
    execute.set_recursion_limit(_OUR_FRAMES)
    try:
        exec(code, namespace)
    except BaseException as error:
        connection.send({"raised": execute.describe(error, "")})
        return
    try:
        peer = Peer(connection, FOR_TESTS, namespace, {})
        entry_point = request["entry_point"]
        connection.send({"loaded": True} | (peer.introduce(entry_point) if entry_point else {}))
        peer.serve()
    except Tampered:
        return  # the referee would not send anything odd: the program has changed our own code
