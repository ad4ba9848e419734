"""Messages between the processes around a jail: four bytes of length, then JSON.

JSON and not pickle, because half of the senders are not to be trusted: decoding can only ever make plain data. Used on
both sides of the jail's wall.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
LONGEST = 16 * 2**20  # bytes; a value beyond this is refused before it is decoded

_LENGTH = struct.Struct("!I")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Malformed(Exception):
    """What arrived is not a message: too long, cut off, or not JSON."""


def pack(message: Message) -> bytes:
    body = _encode(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send a message, blocking; open descriptors may ride along with its first byte."""
    data = pack(message)
    if descriptors:
        sent = socket.send_fds(channel, [data], descriptors)
        data = data[sent:]
    channel.sendall(data)


def receive(channel: socket.socket) -> Message | None:
    """The next message, blocking; None when the other side has gone."""
    header = _read(channel, _LENGTH.size)
    return None if header is None else _body(channel, header)


def receive_with_descriptors(channel: socket.socket, most: int) -> tuple[Message, list[int]] | None:
    """Like `receive`, with the descriptors that came along.

    Only for senders that are trusted: each one costs us a slot.
    """
    header, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, most)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        header += _read(channel, _LENGTH.size - len(header)) or b""
    return _body(channel, header), descriptors


def _body(channel: socket.socket, header: bytes) -> Message:
    if len(header) < _LENGTH.size:
        raise Malformed("cut off")
    (length,) = _LENGTH.unpack(header)
    if length > LONGEST:
        raise Malformed(f"a message of more than {LONGEST} bytes")
    return parse(_read(channel, length) or b"")


def _read(channel: socket.socket, size: int) -> bytes | None:
    pieces: list[bytes] = []
    missing = size
    while missing:
        try:
            piece = channel.recv(min(missing, 1 << 20))
        except ConnectionResetError:
            piece = b""
        if not piece:
            if pieces:
                raise Malformed("cut off")
            return None
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise Malformed("not a JSON object")
    return message


class Inbox:
    """Messages from a sender that may stop in the middle of one: reads what is there and never waits."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.closed = False
        self._buffer = bytearray()
        channel.setblocking(False)

    def fileno(self) -> int:
        return self.channel.fileno()

    def fill(self) -> None:
        """Read what has arrived so far."""
        while not self.closed and len(self._buffer) <= LONGEST:
            try:
                piece = os.read(self.channel.fileno(), 1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                piece = b""
            self.closed = not piece
            self._buffer += piece
            if len(piece) < 1 << 16:
                return

    def take(self) -> Message | None:
        """The next whole message, or None while there is none."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > LONGEST:
            raise Malformed(f"a message of more than {LONGEST} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return parse(body)
