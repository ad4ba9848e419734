"""Calls between a program and its tests across a socket: each side holds handles of the other's objects.

Both sides run this code, but only the referee's copy of it matters: the program's side may be as corrupt as it likes,
it can still only answer with data. So the referee's side
- builds exceptions of built-in classes only, and never one that ends a loop or a program: a StopIteration from a
  solution would make `all(map(solution, cases))` true;
- does for the other side only what its `offers` say: call or iterate what a test has handed over, nothing else;
- keeps truth to itself: a handle equals nothing but itself.

Arguments that the callee changes in place are changed for the caller too, as if both shared them, until the call
returns.

Most calls pass and return numbers, texts and lists of them: those travel as they are (`call` and `value`), all others
as a table of nodes (`ask` and `root`).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import wire
from .codec import FROZEN, NOT_A_VALUE, Decoder, Encoder, Node, flat

FOR_TESTS = frozenset(
    {
        "records",
        "name",
        "call",
        "get",
        "set",
        "delete",
        "item",
        "set item",
        "iterate",
        "next",
        "length",
        "text",
        "truth",
    }
)
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
_SHORT = 4000  # bytes of a message without a table: no number in it is then too long for the interpreter to read


class Gone(BaseException):
    """The other side closed the connection, or ended itself, in the middle of a call."""


class Tampered(BaseException):
    """The other side sent something that our own code would never send."""


class Handle:
    """An object on the other side. Operations travel there; comparisons do not."""

    __slots__ = ("_kringle_number", "_kringle_peer", "_kringle_type")

    _kringle_peer: Peer
    _kringle_number: int
    _kringle_type: str

    def __init__(self, peer: Peer, number: int, type_name: str) -> None:
        # Past our own `__setattr__`: every name is the other side's, these three excepted.
        object.__setattr__(self, "_kringle_peer", peer)
        object.__setattr__(self, "_kringle_number", number)
        object.__setattr__(self, "_kringle_type", type_name)

    def __getattr__(self, name: str) -> Any:
        return self._kringle_peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._kringle_peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._kringle_peer.ask("delete", self, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._kringle_peer.call(self, list(arguments), named)

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
        self,
        connection: wire.Connection,
        offers: frozenset[str],
        names: Mapping[str, Any],
        records: Mapping[str, type],
    ) -> None:
        self.over: Gone | Tampered | None = None
        self._connection, self._offers, self._names, self._records = connection, offers, names, records
        self._exported: list[object] = []

    def ask(self, operation: str, *operands: Any) -> Any:
        """Have the other side perform an operation and return its result; its requests meanwhile are served.

        Remembers in `over` if that was the end, because tests may catch any exception and go on.
        """
        try:
            encoder = self._encoder()
            root = encoder.encode(list(operands))
            self._send({"ask": operation, "root": root, "nodes": encoder.nodes})
            return self._await_answer(operation, encoder.objects)
        except (Gone, Tampered) as end:
            self.over = end
            raise

    def call(self, target: Handle, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Have the other side call its function; as `ask`."""
        if named or not all(map(flat, arguments)):
            return self.ask("call", target, arguments, named)
        lists = [value for value in arguments if type(value) is list]
        if len(lists) > 1 and len(set(map(id, lists))) < len(lists):
            return self.ask("call", target, arguments, named)
        try:
            if not self._send_short({"call": target._kringle_number, "with": arguments}):
                return self.ask("call", target, arguments, named)
            return self._await_answer("call", lists)
        except (Gone, Tampered) as end:
            self.over = end
            raise

    def _await_answer(self, operation: str, originals: list[Any]) -> Any:
        while True:
            message = self._receive()
            if "value" in message:
                return message["value"]
            if "ask" not in message and "call" not in message:
                return self._take_answer(operation, message, originals)
            self._serve(message)

    def serve(self) -> None:
        """Serve requests until the other side goes away."""
        try:
            while True:
                self._serve(self._receive())
        except Gone:
            return

    def introduce(self, name: str) -> wire.Message:
        """The answer that the other side would get if it asked for a name."""
        return self._answer("name", [name], [])

    def meet(self, message: wire.Message) -> Any:
        """What the other side has introduced to us with a message."""
        return self._take_answer("name", message, [])

    def _send(self, message: wire.Message) -> None:
        """Send one message; a side that no longer listens is gone."""
        try:
            self._connection.send(message)
        except OSError:
            raise Gone from None

    def _send_short(self, message: wire.Message) -> bool:
        try:
            return self._connection.send_short(message, _SHORT)
        except OSError:
            raise Gone from None
        except ValueError:
            return False  # a number with more digits than the interpreter writes

    def _receive(self) -> wire.Message:
        try:
            message = self._connection.receive()
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
        if "call" in message:
            self._serve_call(message)
            return
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
        self._send(self._answer(operation, operands, decoder.objects, _mutable(nodes)))

    def _answer(
        self, operation: str, operands: list[Any], objects: list[object], mutable: Sequence[tuple[int, Node]] = ()
    ) -> wire.Message:
        """What came of an operation. `objects` are the question's by number, `mutable` those that may have changed."""
        try:
            result = self._perform(operation, *operands)
        except (Gone, Tampered):
            raise
        except BaseException as error:
            return {"raise": [_nearest_builtin(error), _text(error)]}
        encoder = self._encoder(objects)
        root = encoder.encode(result)
        again = [(number, node, encoder.again(node, objects[number])) for number, node in mutable]
        changed = [(number, after) for number, before, after in again if repr(after) != repr(before)]
        return {"root": root, "changed": changed, "nodes": encoder.nodes}

    def _serve_call(self, message: wire.Message) -> None:
        """Answer a call whose arguments came as they are."""
        try:
            target, arguments = self._exported[message["call"]], message["with"]
            if "call" not in self._offers or type(arguments) is not list or not all(map(flat, arguments)):
                raise ValueError("no call")
        except NOT_A_VALUE as error:
            raise Tampered(f"a question that is none: {type(error).__name__}: {error}") from None
        lists = [value for value in arguments if type(value) is list]
        before = _spelled(lists)
        try:
            result: Any = target(*arguments)  # type: ignore[operator]
        except (Gone, Tampered):
            raise
        except BaseException as error:
            self._send({"raise": [_nearest_builtin(error), _text(error)]})
            return
        same = not lists or (all(map(flat, lists)) and _spelled(lists) == before)
        new = flat(result) and not any(result is value for value in lists)
        if same and new and self._send_short({"value": result}):
            return
        encoder = self._encoder(list(lists))
        root = encoder.encode(result)
        changed = [] if same else [(number, encoder.again(["list", []], value)) for number, value in enumerate(lists)]
        self._send({"root": root, "changed": changed, "nodes": encoder.nodes})

    def _perform(self, operation: str, target: Any, *operands: Any) -> Any:
        match operation:
            case "records":
                kinds = {name: self._names.get(name) for name in target}
                self._records = {name: kind for name, kind in kinds.items() if isinstance(kind, type)}
                return None
            case "name":
                return self._names[target]
            case "call":
                return target(*operands[0], **operands[1])
            case "get":
                return getattr(target, operands[0])
            case "set":
                setattr(target, operands[0], operands[1])
                return None
            case "delete":
                delattr(target, operands[0])
                return None
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


def _spelled(lists: list[list[Any]]) -> str | None:
    """Flat lists in text; None where a number in them has more digits than the interpreter writes."""
    try:
        return repr(lists)
    except ValueError:
        return None


def _mutable(nodes: list[Node]) -> list[tuple[int, Node]]:
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
