"""Values between a program and its tests, when they live in two processes: copies of plain data, handles for all else.

A value is a table of containers, so that shared and cyclic structure survives, and messages are never deep. The
decoder makes plain data and nothing else, whatever the bytes say: the tests compare with the operators of built-in
types, which the program cannot reach. Subclasses travel as the built-in type that they extend (an `int` that claims
to equal everything arrives as an int), instances of classes that the problem's prompt defines as that class and its
attributes, anything else as a handle.

Not covered: identity of immutable values; which of two equal times a `fold` means; attributes in `__slots__`; the
subclass itself (an `IntEnum` arrives as int, a named tuple as a tuple, a `Counter` as a dict).
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FunctionType
from typing import Any

Node = list[Any]
# Integers beyond it travel in hexadecimal: decimal conversion is quadratic, and limited by the interpreter.
_NARROW = 2**63

NOT_A_VALUE = (TypeError, ValueError, LookupError, ArithmeticError, RecursionError, AttributeError)

_MUTABLE: dict[str, type] = {"list": list, "dict": dict, "set": set, "deque": deque, "bytearray": bytearray}
_IMMUTABLE: dict[str, type] = {"tuple": tuple, "frozenset": frozenset}
# A view of a dictionary equals sets and keeps its order, so it arrives as a view of another dictionary.
_VIEWS: tuple[tuple[type, str], ...] = (
    (type({}.keys()), "keys"),
    (type({}.items()), "items"),
    (type({}.values()), "values"),
)
FROZEN = frozenset({*_IMMUTABLE, *(name for _, name in _VIEWS)})
_CONTAINERS: tuple[tuple[type, str], ...] = tuple((kind, name) for name, kind in (_MUTABLE | _IMMUTABLE).items())
_DATES = ("datetime", "date", "time")  # the first is a subclass of the second


_SCALARS = frozenset({type(None), bool, int, float, str})


def flat(value: object) -> bool:
    """Whether a value travels as it is, without a table: a number, a text, None, or a list of such."""
    kind = type(value)
    return kind in _SCALARS or (kind is list and _SCALARS.issuperset(map(type, value)))  # type: ignore[call-overload]


class Encoder:
    """Turns values into one table of nodes.

    `export` gives the number of a handle for an object that is not plain; `imported` the number of the other side's
    handle that an object stands for (or None); `records` are the classes that both sides know by name.
    """

    def __init__(
        self,
        export: Callable[[object], int],
        imported: Callable[[object], int | None],
        records: Mapping[str, type],
        known: list[object] | None = None,
    ) -> None:
        self.nodes: list[Node] = []
        self._export, self._imported, self._records = export, imported, records
        self._numbers: dict[int, int] = {id(value): number for number, value in enumerate(known or [])}
        self._waiting: list[tuple[Node, object]] = []
        self.objects: list[object] = list(known or [])  # by node number; also keeps them alive, as ids demand

    def encode(self, value: object) -> Any:
        """The value's reference; its containers are added to the table."""
        reference = self._reference(value)
        while self._waiting:
            node, container = self._waiting.pop()
            node += self._content(node[0], container)
        return reference

    def again(self, before: Node, container: object) -> Node:
        """The node of a container that the other side already has, as it is now."""
        node = before[:-1]
        self._waiting.append((node, container))
        self.encode(None)
        return node

    def _reference(self, value: object) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        number = self._numbers.get(id(value))
        if number is not None:
            return ["node", number]
        if kind is FunctionType:
            return ["mine", self._export(value), kind.__name__]
        if isinstance(value, enum.Enum) and self._records.get(kind.__name__) is kind:
            return ["member", kind.__name__, value.name]
        if isinstance(value, int):
            whole = int(value)
            return whole if -_NARROW < whole < _NARROW else ["int", hex(whole)]
        theirs = self._imported(value)
        if theirs is not None:
            return ["yours", theirs]
        scalar = _scalar(value)
        if scalar is not None:
            return scalar
        for base, tag in _CONTAINERS + _VIEWS:
            if isinstance(value, base):
                return self._add([tag], value)
        if self._records.get(kind.__name__) is kind and kind.__new__ is object.__new__ and hasattr(value, "__dict__"):
            return self._add(["record", kind.__name__], value)
        return ["mine", self._export(value), kind.__name__]

    def _add(self, node: Node, value: object) -> Any:
        number = len(self.objects)
        self._numbers[id(value)] = number
        self.objects.append(value)
        self.nodes.append(node)
        self._waiting.append((node, value))
        return ["node", number]

    def _content(self, kind: str, value: Any) -> Node:
        if kind == "bytearray":
            return [value.hex()]
        if kind == "dict":
            return [[[self._reference(key), self._reference(item)] for key, item in value.items()]]
        if kind == "record":
            return [[[key, self._reference(item)] for key, item in vars(value).items()]]
        return [[self._reference(item) for item in value]]


def _scalar(value: Any) -> Any:
    """Values without parts, by the built-in type that they are or extend."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, range):
        return ["range", [hex(value.start), hex(value.stop), hex(value.step)]]
    if value is Ellipsis:
        return ["ellipsis"]
    if _is_a(value, "decimal", "Decimal"):
        return ["decimal", str(value)]
    if _is_a(value, "fractions", "Fraction"):
        return ["fraction", [hex(value.numerator), hex(value.denominator)]]
    if _is_a(value, "datetime", "timedelta"):
        return ["timedelta", [value.days, value.seconds, value.microseconds]]
    for name in _DATES:
        if _is_a(value, "datetime", name):
            return [name, value.isoformat()]
    return None


def _is_a(value: object, module: str, name: str) -> bool:
    """Whether a value is of a library's class. Where the library is not loaded, nothing is: see `keeper.py`."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


class Decoder:
    """Makes plain data from a table of nodes. `handle` makes a stand-in for an object that stays on the other side.

    Raises any of `NOT_A_VALUE` for what is no table of nodes.
    """

    def __init__(
        self,
        nodes: list[Node],
        handle: Callable[[int, str], object],
        own: Callable[[int], object],
        records: Mapping[str, type],
        known: list[object] | None = None,
    ) -> None:
        self._handle, self._own, self._records = handle, own, records
        self.objects: list[object] = list(known or [])
        self._new_nodes: dict[int, Node] = {}
        self._under_way: set[int] = set()
        for number, node in enumerate(nodes, len(self.objects)):
            self._new_nodes[number] = node
            self.objects.append(self._shell(node))
        for number in self._new_nodes:
            self._resolve(number)
        # Keys of sets and dicts may be records, whose hash may need their attributes: those come first.
        for late in (False, True):
            for number, node in self._new_nodes.items():
                if (node[0] in ("set", "dict")) == late:
                    self.refill(number, node)

    def _shell(self, node: Node) -> object:
        kind = node[0]
        if kind == "record":
            return object.__new__(self._records[node[1]])
        return None if kind in FROZEN else _MUTABLE[kind]()

    def _resolve(self, number: int) -> object:
        """The object of a node; tuples and frozen sets are made on first use, because their parts must exist before
        them."""
        node = self._new_nodes.get(number)
        if node is not None and node[0] in FROZEN and self.objects[number] is None:
            if number in self._under_way:
                raise ValueError("an immutable value that contains itself")
            self._under_way.add(number)
            self.objects[number] = _frozen(node[0], [self.value(part) for part in node[1]])
        return self.objects[number]

    def refill(self, number: int, node: Node) -> None:
        """Give a mutable container the content that a node describes."""
        target: Any = self.objects[number]
        kind = node[0]
        if kind == "record":
            attributes = vars(target)
            attributes.clear()
            attributes.update((str(name), self.value(item)) for name, item in node[2])
        elif kind == "dict":
            items = [(self.value(key), self.value(item)) for key, item in node[1]]
            target.clear()
            target.update(items)
        elif kind == "bytearray":
            target[:] = bytes.fromhex(node[1])
        elif kind in _MUTABLE:
            parts = [self.value(part) for part in node[1]]
            target.clear()
            target.update(parts) if kind == "set" else target.extend(parts)

    def value(self, reference: Any) -> Any:
        """The value that a reference stands for."""
        if not isinstance(reference, list):
            if isinstance(reference, dict):
                raise ValueError("not a reference")
            return reference
        tag = reference[0]
        if tag == "node":
            return self._resolve(reference[1])
        if tag == "int":
            return int(reference[1], 16)
        if tag == "mine":
            return self._handle(int(reference[1]), str(reference[2]))
        if tag == "yours":
            return self._own(int(reference[1]))
        if tag == "member":
            return self._records[reference[1]][reference[2]]  # type: ignore[index]
        return _plain(tag, *reference[1:])


def _frozen(kind: str, parts: list[Any]) -> object:
    match kind:
        case "keys":
            return dict.fromkeys(parts).keys()
        case "items":
            return dict(parts).items()
        case "values":
            return dict(enumerate(parts)).values()
    return _IMMUTABLE[kind](parts)


def _plain(tag: str, *parts: Any) -> Any:
    match tag:
        case "complex":
            return complex(float(parts[0]), float(parts[1]))
        case "bytes":
            return bytes.fromhex(parts[0])
        case "range":
            return range(*(int(part, 16) for part in parts[0]))
        case "decimal":
            return import_module("decimal").Decimal(parts[0])
        case "fraction":
            return import_module("fractions").Fraction(*(int(part, 16) for part in parts[0]))
        case "timedelta":
            return import_module("datetime").timedelta(*parts[0])
        case "datetime" | "date" | "time":
            return getattr(import_module("datetime"), tag).fromisoformat(parts[0])
        case "ellipsis":
            return Ellipsis
    raise ValueError(f"unknown tag {tag!r}")
