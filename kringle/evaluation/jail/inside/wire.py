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
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Any

Message = dict[str, Any]
LONGEST = 16 * 2**20  # bytes; a value beyond this is refused before it is decoded

_LENGTH = struct.Struct("!I")
_PIECE = 4096  # bytes to read at once where a message may be shorter
# The parts of `json` that are written in C, without the layers around them: in a fresh process, what those touch costs
# more than what they do.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_chunks = c_make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, True)


class Malformed(Exception):
    """What arrived is not a message: too long, cut off, or not JSON."""


def pack(message: Message) -> bytes:
    body = "".join(_chunks(message, 0)).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send a message, blocking; open descriptors may ride along with its first byte."""
    data = pack(message)
    if descriptors:
        sent = socket.send_fds(channel, [data], descriptors)
        data = data[sent:]
    channel.sendall(data)


class Connection:
    """Both ends of a conversation, blocking. Most messages arrive whole with one call of the kernel.

    Over a descriptor: to make a socket's object costs a fresh process as much as to compile its program.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._held = descriptor, bytearray()

    def send(self, message: Message) -> None:
        """Send a message; OSError where the other side has gone."""
        self._write(pack(message))

    def send_short(self, message: Message, most: int) -> bool:
        """Send a message unless it takes more bytes than `most`; whether it was sent."""
        data = pack(message)
        if len(data) > most:
            return False
        self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        sent = os.write(self._descriptor, data)
        while sent < len(data):
            sent += os.write(self._descriptor, data[sent : sent + (1 << 20)])

    def receive(self) -> Message | None:
        """The next message; None when the other side has gone."""
        if not self._hold(_LENGTH.size):
            return None
        (length,) = _LENGTH.unpack_from(self._held)
        if length > LONGEST:
            raise Malformed(f"a message of more than {LONGEST} bytes")
        end = _LENGTH.size + length
        self._hold(end)
        body = bytes(self._held[_LENGTH.size : end])
        del self._held[:end]
        return parse(body)

    def _hold(self, size: int) -> bool:
        """Wait until so many bytes are here; False if the other side has gone before the first of them."""
        held = self._held
        while len(held) < size:
            try:
                piece = os.read(self._descriptor, max(_PIECE, min(size - len(held), 1 << 20)))
            except ConnectionResetError:
                piece = b""
            if not piece:
                if held:
                    raise Malformed("cut off")
                return False
            held += piece
        return True


def receive(channel: socket.socket) -> Message | None:
    """The next message and not a byte more, blocking; None when the other side has gone."""
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
        text = body.decode()
        message, end = _scan(text, 0)
        if end != len(text):
            message = json.loads(text)  # white space behind it, or an error with a name
    except StopIteration as error:
        raise Malformed(f"not JSON: Expecting value: character {error.value}") from None
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
