"""Values and calls between a program and its tests, the program's side being as hostile as it likes."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.evaluation.jail.inside import wire
from kringle.evaluation.jail.inside.codec import NOT_A_VALUE, Decoder, Encoder
from kringle.evaluation.jail.inside.peer import FOR_PROGRAMS, FOR_TESTS, Gone, Handle, Peer, Tampered

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.dates()
    | st.times().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
    | st.builds(range, st.integers(), st.integers(), st.integers(1, 9))
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.builds(collections.deque, st.lists(inner, max_size=3))
        | st.builds(bytearray, st.binary(max_size=5))
        | st.tuples(inner)
    ),
    max_leaves=12,
)


def across(value: object, records: dict[str, type] | None = None) -> Any:
    """A value after its trip through JSON."""
    exported: list[object] = []

    def export(thing: object) -> int:
        exported.append(thing)
        return len(exported) - 1

    encoder = Encoder(export, lambda _: None, records or {})
    root = encoder.encode(value)
    root, nodes = json.loads(json.dumps([root, encoder.nodes]))
    decoder = Decoder(nodes, lambda number, name: ("handle", name), exported.__getitem__, records or {})
    return decoder.value(root)


def spelled(value: Any) -> Any:
    """A value spelled out, so that 1, 1.0 and True differ and the order of sets does not matter."""
    kind = type(value).__name__
    if isinstance(value, list | tuple | collections.deque):
        return kind, [spelled(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(spelled(item)) for item in value)
    if isinstance(value, dict):
        return kind, [(spelled(key), spelled(item)) for key, item in value.items()]
    return kind, repr(value)


@given(VALUES)
def test_plain_values_arrive_as_they_are(value: object) -> None:
    assert spelled(across(value)) == spelled(value)


def test_structure_survives() -> None:
    inner: list[object] = []
    outer = [inner, inner, {"again": inner}]
    inner.append(outer)
    arrived = across(outer)
    assert arrived[0] is arrived[1] is arrived[2]["again"]
    assert arrived[0][0] is arrived


def test_subclasses_arrive_as_what_they_extend() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    class Items(list[int]):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

    for value, plain in (
        (Sly(3), 3),
        (Text("a"), "a"),
        (Items([1]), [1]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
    ):
        arrived = across(value)
        assert type(arrived) is type(plain)
        assert arrived == plain
    assert across({2: 1, 1: 2}.keys()) == {1, 2}
    assert list(across({2: 1, 1: 2}.items())) == [(2, 1), (1, 2)]
    assert across(object()) == ("handle", "object")
    assert across(len) == ("handle", "builtin_function_or_method")


def test_records_of_the_prompt() -> None:
    class Node:
        def __init__(self, value: int, following: Node | None = None) -> None:
            self.value, self.following = value, following

    class Colour(enum.Enum):
        RED = 1

    chain = Node(1, Node(2))
    arrived: list[Any] = across([chain, chain, Colour.RED], {"Node": Node, "Colour": Colour})
    assert arrived[0] is arrived[1]
    assert [type(item) for item in arrived[:2]] == [Node, Node]
    assert (arrived[0].value, arrived[0].following.value, arrived[0].following.following) == (1, 2, None)
    assert arrived[2] is Colour.RED
    assert across(chain) == ("handle", "Node")


@pytest.mark.parametrize(
    ("root", "nodes"),
    [
        (["node", 0], []),
        (["node", 0], [["tuple", [["node", 0]]]]),
        (["node", 0], [["set", [["node", 1]]], ["list", []]]),
        (["node", 0], [["eval", ["1"]]]),
        (["node", 0], [["record", "Node", []]]),
        (["eval", "1"], []),
        (["yours", 0], []),
        (["member", "Node", "x"], []),
        (["decimal", "eval"], []),
        (["int", "zz"], []),
        (["node", "x"], []),
        (["bytes", "zz"], []),
        ({"a": 1}, []),
        ([], []),
        (["node", 0], [["list", 5]]),
        (["node", 0], [["dict", [[1]]]]),
        (["node", 0], ["list"]),
        (["node", 0], 5),
        (["datetime", "yesterday"], []),
        (["range", ["0x0", "0x1", "0x0"]], []),
    ],
)
def test_what_is_no_value_is_refused(root: Any, nodes: Any) -> None:
    with pytest.raises(NOT_A_VALUE):
        Decoder(nodes, lambda *_: None, [].__getitem__, {}).value(root)


@given(
    st.recursive(st.none() | st.integers(-3, 3) | st.text(max_size=6), lambda x: st.lists(x, max_size=4), max_leaves=9)
)
def test_random_tables_make_plain_data_or_fail(nodes: Any) -> None:
    try:
        value = Decoder(nodes, lambda *_: None, [].__getitem__, {}).value(["node", 0])
    except NOT_A_VALUE:
        return
    assert type(value) in (list, dict, set, collections.deque, bytearray, tuple, frozenset) or value is not None


@contextmanager
def program(names: dict[str, Any]) -> Iterator[Peer]:
    """The tests' side of a connection to a program with these global names."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Peer(wire.Connection(theirs.fileno()), FOR_TESTS, names, {}).serve, daemon=True)
    thread.start()
    with theirs:
        with ours:
            yield Peer(wire.Connection(ours.fileno()), FOR_PROGRAMS, {}, {})
        thread.join(5)


def test_calls() -> None:
    def change(items: list[Any], table: dict[str, int]) -> list[Any]:
        items.append(items)
        table["x"] = 2
        return items

    def apply(function: Callable[[int], int], numbers: Any) -> list[int]:
        return [function(number) for number in numbers]

    class Stack:
        def __init__(self) -> None:
            self.items: list[int] = []

        def push(self, item: int) -> None:
            self.items.append(item)

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> int:
            return self.items[index]

    def count(to: int) -> Iterator[int]:
        yield from range(to)

    def fail(kind: str) -> None:
        raise {"value": ValueError, "stop": StopIteration, "decode": UnicodeError, "exit": SystemExit}[kind]("why")

    names = {"change": change, "apply": apply, "Stack": Stack, "count": count, "fail": fail}
    with program(names) as peer:
        call = {name: peer.ask("name", name) for name in names}
        items: list[Any] = [1]
        table = {"x": 1}
        assert call["change"](items, table=table) is items
        assert items[0] == 1
        assert items[1] is items
        assert table == {"x": 2}
        assert call["apply"](lambda number: number + 1, iter([1, 2])) == [2, 3]
        stack = call["Stack"]()
        stack.push(5)
        assert (len(stack), stack[0], stack.items, bool(stack)) == (1, 5, [5], True)
        assert list(call["count"](3)) == [0, 1, 2]
        with pytest.raises(ValueError, match="why"):
            call["fail"]("value")
        with pytest.raises(UnicodeError):
            call["fail"]("decode")
        with pytest.raises(RuntimeError):
            call["fail"]("stop")
        with pytest.raises(KeyError):
            peer.ask("name", "absent")
        with pytest.raises(Gone):
            call["fail"]("exit")


def test_a_handle_equals_nothing_else() -> None:
    class Yes:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    with program({"yes": Yes}) as peer:
        made: Any = peer.ask("name", "yes")()
        assert isinstance(made, Handle)
        other: Any = 5
        assert made != other
        assert made != peer.ask("name", "yes")()
        anything: list[Any] = [1, None, True]
        assert made not in anything


@pytest.mark.parametrize(
    "answer",
    [
        {"root": ["yours", 0], "changed": [], "nodes": []},
        {"root": 1},
        {"root": 1, "changed": [[7, ["list", []]]], "nodes": []},
        {"root": 1, "changed": [[0, ["dict", []]]], "nodes": []},
        {"root": 1, "changed": [[-1, ["list", []]]], "nodes": []},
        {"raise": []},
        {"raise": 7},
        {"ask": "get", "root": ["node", 0], "nodes": [["list", []]]},
        {"ask": "name", "root": ["node", 0], "nodes": [["list", ["x"]]]},
        {"ask": "call", "root": 5, "nodes": []},
        {"ask": ["call"], "root": 5, "nodes": []},
        {},
    ],
)
def test_forged_answers_are_noticed(answer: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(theirs, answer)
        with pytest.raises(Tampered):
            Peer(wire.Connection(ours.fileno()), FOR_PROGRAMS, {}, {}).ask("name", "total")


@pytest.mark.parametrize(
    "raw", [b"\0\0\0\x02[]", b"\xff\xff\xff\xff", b"\0\0\0\x04\xff\xfe\0\0", b"\0\0\0\x09[[[[[[[[[", b"\0\0"]
)
def test_garbage_is_noticed(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(Tampered):
            Peer(wire.Connection(ours.fileno()), FOR_PROGRAMS, {}, {}).ask("name", "total")


@pytest.mark.parametrize(
    "kind", ["SystemExit", "exit", "Exception", "GeneratorExit", "StopIteration", "eval", "Warning"]
)
def test_exceptions_are_built_in_and_never_end_the_tests(kind: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(theirs, {"raise": [kind, "x"]})
        with pytest.raises(BaseException) as raised:  # noqa: PT011
            Peer(wire.Connection(ours.fileno()), FOR_PROGRAMS, {}, {}).ask("name", "total")
        assert isinstance(raised.value, Gone if kind == "SystemExit" else Exception)
        assert not isinstance(raised.value, StopIteration | GeneratorExit)


def test_types_of_this_file_are_those_that_the_codec_knows() -> None:
    for value in (
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.timedelta(1),
        10**5000,
        float("-0.0"),
        ...,
    ):
        assert repr(across(value)) == repr(value) if not isinstance(value, int) else across(value) == value
