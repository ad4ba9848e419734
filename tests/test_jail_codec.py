"""Values and calls between a program and its tests, the program's side being as hostile as it likes."""

from __future__ import annotations

import collections
import copy
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
    return kind, hex(value) if isinstance(value, int) else repr(value)


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


def reverse(items: list[Any]) -> None:
    items.reverse()


def nest(items: list[Any]) -> None:
    items.append([items[0]])


CALLS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "numbers": (lambda a, b: a + b, [1, 2.5]),
    "texts": (lambda a, b: a + b, ["\ud800", "é"]),
    "nothing": (lambda a: a, [None]),
    "truth": (lambda a: [a, not a], [True]),
    "a list": (sorted, [[3, 1, 2]]),
    "the same list": (lambda items: items, [[1]]),
    "one list twice": (lambda a, b: a is b, [[[0]] * 2, 1]),
    "in place": (reverse, [[1, 2]]),
    "in place, no longer flat": (nest, [[1, 2]]),
    "in place, another type": (lambda items: items.__setitem__(0, True), [[1]]),
    "two lists, one changed": (lambda a, b: b.extend(a), [[1], [2]]),
    "a number that is wide": (lambda n: n, [2**64]),
    "a number too long to be written": (lambda n: n + 1, [10**5000]),
    "an answer too long to be written": (lambda n: [10**n], [5000]),
    "in place, too long to be written": (lambda items: items.append(10**5000), [[1]]),
    "a long list": (lambda n: [n] * 10_000, [7]),
    "a tuple": (lambda a: (a, a), [[1]]),
    "a table": (lambda a: {a: [a]}, ["x"]),
    "no number": (lambda: [float("inf"), float("-inf")], []),
    "a subclass": (lambda a: collections.Counter(a), ["aab"]),
    "a handle": (lambda g, x: g(x), [abs, -3]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_does_what_it_does_here(name: str) -> None:
    function, arguments = CALLS[name]
    here, there = copy.deepcopy(arguments), copy.deepcopy(arguments)
    with program({"f": function}) as peer:
        result, expected = peer.ask("name", "f")(*there), function(*here)
        assert spelled(result) == spelled(dict(expected) if name == "a subclass" else expected)
        assert spelled(there) == spelled(here)
        same = [type(value) is list and result is value for value in there]
        assert same == [type(value) is list and expected is value for value in here]


def test_short_calls_travel_without_a_table() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asking, answering = wire.Connection(ours.fileno()), wire.Connection(theirs.fileno())
        answering.send({"root": ["mine", 0, "function"], "changed": [], "nodes": []})
        function = Peer(asking, FOR_PROGRAMS, {}, {}).ask("name", "f")
        assert answering.receive() is not None
        for answer in (3, [1, 2]):
            answering.send({"value": answer})
            assert function(1, ["a"]) == answer
            assert answering.receive() == {"call": 0, "with": [1, ["a"]]}


@pytest.mark.parametrize(
    "question",
    [
        {"call": 0, "with": []},
        {"call": "0", "with": []},
        {"call": 7, "with": []},
        {"call": [0], "with": [1]},
        {"call": 0},
        {"call": 0, "with": 1},
        {"call": 0, "with": [[[1]]]},
        {"call": 0, "with": [{"a": 1}]},
    ],
)
def test_a_program_calls_only_what_it_was_given_and_only_with_what_is_flat(question: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        program, peer = wire.Connection(theirs.fileno()), Peer(wire.Connection(ours.fileno()), FOR_PROGRAMS, {}, {})
        if question not in ({"call": 0, "with": []}, {"call": 7, "with": []}, {"call": "0", "with": []}):
            peer._export(print)
        program.send(question)
        with pytest.raises(Tampered):
            peer.ask("name", "f")


def test_a_message_in_pieces_and_two_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = wire.Connection(ours.fileno())
        long = {"text": "x" * 100_000}
        data = wire.pack({"a": 1}) + wire.pack({"b": 2}) + wire.pack(long)
        thread = threading.Thread(
            target=lambda: [theirs.sendall(data[at : at + 3001]) for at in range(0, len(data), 3001)]
        )
        thread.start()
        assert [connection.receive() for _ in range(3)] == [{"a": 1}, {"b": 2}, long]
        thread.join()
        theirs.sendall(wire.pack({"c": 3})[:-1])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(wire.Malformed, match="cut off"):
            connection.receive()
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert wire.Connection(ours.fileno()).receive() is None


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
        stack.beside = other = call["Stack"]()
        stack.beside.items = [7]
        assert other.items == [7]
        del stack.beside
        with pytest.raises(AttributeError, match="beside"):
            _ = stack.beside
        with pytest.raises(AttributeError, match="beside"):
            del stack.beside
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
        {"ask": "set", "root": ["node", 0], "nodes": [["list", [1, "x", 2]]]},
        {"ask": "delete", "root": ["node", 0], "nodes": [["list", [1, "x"]]]},
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
