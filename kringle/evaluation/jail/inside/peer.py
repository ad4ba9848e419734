"""Calls between a program and its tests across a socket: each side holds handles of the other's objects.

Both sides run this code, but only the referee's copy of it matters: the program's side may be as corrupt as it likes,
it can still only answer with data. So the referee's side
- builds exceptions of built-in classes only, and never one that ends a loop or a program: a StopIteration from a
  solution would make `all(map(solution, cases))` true;
- does for the other side only what its `offers` say: call or iterate what a test has handed over, nothing else;
- keeps truth to itself: a handle equals nothing but itself.

Arguments that the callee changes in place are changed for the caller too, as if both shared them, until the call
returns.
"""

from __future__ import annotations

import builtins
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import wire
from .codec import FROZEN, NOT_A_VALUE, Decoder, Encoder

FOR_TESTS = frozenset({"name", "call", "get", "item", "set item", "iterate", "next", "length", "text", "truth"})
FOR_PROGRAMS = frozenset({"call", "iterate", "next"})


def _takes_a_message(kind: object) -> bool:
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return False
    try:
        kind("message")
    except TypeError:
        return False  # UnicodeDecodeError and ExceptionGroup need more; their base classes do not
    return not issubclass(kind, StopIteration | StopAsyncIteration)


_EXCEPTIONS: dict[str, type[Exception]] = {
    name: kind for name, kind in vars(builtins).items() if _takes_a_message(kind)
}
_ENDINGS = ("SystemExit", "KeyboardInterrupt")


class Gone(BaseException):
    """The other side closed the connection, or ended itself, in the middle of a call."""


class Tampered(BaseException):
    """The other side sent something that our own code would never send."""


class Handle:
    """An object on the other side. Operations travel there; comparisons do not."""

    __slots__ = ("_kringle_number", "_kringle_peer", "_kringle_type")

    def __init__(self, peer: Peer, number: int, type_name: str) -> None:
        self._kringle_peer, self._kringle_number, self._kringle_type = peer, number, type_name

    def __getattr__(self, name: str) -> Any:
        return self._kringle_peer.ask("get", self, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._kringle_peer.ask("call", self, list(arguments), named)

    def __getitem__(self, key: Any) -> Any:
        return self._kringle_peer.ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._kringle_peer.ask("set item", self, key, value)

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._kringle_peer.ask("iterate", self)
        return iterator if isinstance(iterator, Handle) else iter(iterator)

    def __next__(self) -> Any:
        return self._kringle_peer.ask("next", self)

    def __len__(self) -> int:
        length: int = self._kringle_peer.ask("length", self)
        return length

    def __bool__(self) -> bool:
        return bool(self._kringle_peer.ask("truth", self))

    def __str__(self) -> str:
        return str(self._kringle_peer.ask("text", self))

    def __repr__(self) -> str:
        return f"<{self._kringle_type} of the program>"


class Peer:
    """One end of the connection. `offers` are the operations that it performs for the other end."""

    def __init__(
        self, channel: socket.socket, offers: frozenset[str], names: Mapping[str, Any], records: Mapping[str, type]
    ) -> None:
        self.calls = 0
        self.over: Gone | Tampered | None = None
        self._channel, self._offers, self._names, self._records = channel, offers, names, records
        self._exported: list[object] = []

    def ask(self, operation: str, *operands: Any) -> Any:
        """Have the other side perform an operation and return its result; its requests meanwhile are served.

        Remembers in `over` if that was the end, because tests may catch any exception and go on.
        """
        self.calls += 1
        try:
            return self._ask(operation, operands)
        except (Gone, Tampered) as end:
            self.over = end
            raise

    def _ask(self, operation: str, operands: tuple[Any, ...]) -> Any:
        encoder = self._encoder()
        root = encoder.encode(list(operands))
        self.send({"ask": operation, "root": root, "nodes": encoder.nodes})
        while True:
            message = self._receive()
            if "ask" not in message:
                return self._take_answer(operation, message, encoder.objects)
            self._serve(message)

    def serve(self) -> None:
        """Serve requests until the other side goes away."""
        try:
            while True:
                self._serve(self._receive())
        except Gone:
            return

    def send(self, message: wire.Message) -> None:
        """Send one message; a side that no longer listens is gone."""
        try:
            wire.send(self._channel, message)
        except OSError:
            raise Gone from None

    def _receive(self) -> wire.Message:
        try:
            message = wire.receive(self._channel)
        except (wire.Malformed, OSError) as error:
            raise Tampered(str(error)) from None
        if message is None:
            raise Gone
        return message

    def _encoder(self, known: list[object] | None = None) -> Encoder:
        return Encoder(self._export, self._number_of_theirs, self._records, known)

    def _decoder(self, nodes: Any, known: list[object] | None = None) -> Decoder:
        return Decoder(
            nodes, lambda number, name: Handle(self, number, name), self._exported.__getitem__, self._records, known
        )

    def _export(self, value: object) -> int:
        self._exported.append(value)
        return len(self._exported) - 1

    def _number_of_theirs(self, value: object) -> int | None:
        return value._kringle_number if type(value) is Handle and value._kringle_peer is self else None

    def _take_answer(self, operation: str, message: wire.Message, originals: list[object]) -> Any:
        try:
            if "raise" in message:
                name, text = str(message["raise"][0]), str(message["raise"][1])
            else:
                decoder = self._decoder(message["nodes"], originals)
                for number, node in message["changed"]:
                    if type(number) is not int or not 0 <= number < len(originals):
                        raise ValueError("not a node of the question")
                    decoder.refill(number, node)
                return decoder.value(message["root"])
        except NOT_A_VALUE as error:
            raise Tampered(f"an answer that is none: {type(error).__name__}: {error}") from None
        if name == "StopIteration" and operation == "next":
            raise StopIteration
        if name in _ENDINGS:
            raise Gone(f"{name}: {text}")
        raise _EXCEPTIONS.get(name, RuntimeError)(text)

    def _serve(self, message: wire.Message) -> None:
        operation = message.get("ask")
        if not isinstance(operation, str) or operation not in self._offers:
            raise Tampered(f"asked for {operation!r}")
        try:
            nodes = message["nodes"]
            decoder = self._decoder(nodes)
            operands = decoder.value(message["root"])
            if type(operands) is not list:
                raise ValueError("operands must be a list")
        except NOT_A_VALUE as error:
            raise Tampered(f"a question that is none: {type(error).__name__}: {error}") from None
        try:
            result = self._perform(operation, *operands)
        except (Gone, Tampered):
            raise
        except BaseException as error:
            self.send({"raise": [_nearest_builtin(error), _text(error)]})
            return
        encoder = self._encoder(decoder.objects)
        root = encoder.encode(result)
        again = [(number, node, encoder.again(node, decoder.objects[number])) for number, node in _mutable(nodes)]
        changed = [(number, after) for number, before, after in again if repr(after) != repr(before)]
        self.send({"root": root, "changed": changed, "nodes": encoder.nodes})

    def _perform(self, operation: str, target: Any, *operands: Any) -> Any:
        match operation:
            case "name":
                return self._names[target]
            case "call":
                return target(*operands[0], **operands[1])
            case "get":
                return getattr(target, operands[0])
            case "item":
                return target[operands[0]]
            case "set item":
                target[operands[0]] = operands[1]
                return None
            case "iterate":
                return Stepper(target)
            case "next":
                return next(target)
            case "length":
                return len(target)
            case "text":
                return str(target)
            case "truth":
                return bool(target)
        raise Tampered(operation)


class Stepper:
    """An iterator that is always a handle: of a list's iterator, too, only the steps that are asked for are sent."""

    def __init__(self, target: Iterable[Any]) -> None:
        self._iterator = iter(target)

    def __next__(self) -> Any:
        return next(self._iterator)


def _mutable(nodes: list[list[Any]]) -> list[tuple[int, list[Any]]]:
    return [(number, node) for number, node in enumerate(nodes) if node[0] not in FROZEN]


def _nearest_builtin(error: BaseException) -> str:
    """The closest class that the other side knows too."""
    for kind in type(error).__mro__:
        name = kind.__name__
        if _EXCEPTIONS.get(name) is kind or (kind.__module__ == "builtins" and name in (*_ENDINGS, "StopIteration")):
            return name
    return "RuntimeError"


def _text(error: BaseException) -> str:
    describe: Callable[[BaseException], str] = str
    try:
        return describe(error)[:1000]
    except BaseException:
        return ""
