"""Frozen dataclasses to JSON values and back, refusing whatever does not fit the annotations exactly.

Covers what the study's schema needs: dataclasses, `tuple[X, ...]`, `dict[str, X]`, `X | None`, `Literal`, str, int,
float and bool. Writing a wrongly typed value is a programming fault (`TypeError`); reading one is a fault of the user's
file (`UserError`). Numbers that are not finite are refused both ways, since JSON has no spelling for them.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Hashable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal

from kringle.errors import UserError


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(object_pairs_hook=)`: a mapping, or `ValueError` where a key occurs twice."""
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key '{key}' occurs twice")
        mapping[key] = value
    return mapping


def _scalar_fits(hint: Any, value: Any) -> bool:
    """Whether a value is exactly of a scalar type: no bool for a number, no number that is not finite."""
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str) and value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(f"'{choice}'" for choice in typing.get_args(hint))
    names = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))


def _inner(hint: Any) -> Any:
    """X out of X | None."""
    (inner,) = [a for a in typing.get_args(hint) if a is not type(None)]
    return inner


def encode(hint: Any, value: Any, where: str) -> Any:
    """`value`, which must be of type `hint`, as JSON values; `where` is its path in errors."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else encode(_inner(hint), value, where)
    if is_dataclass(hint):
        if type(value) is not hint:
            raise TypeError(f"{where}: expected {hint}, got {value!r}")
        hints = _hints(typing.cast(Hashable, hint))
        return {name: encode(inner, getattr(value, name), f"{where}.{name}") for name, inner in hints.items()}
    if origin is tuple:
        if not isinstance(value, tuple):
            raise TypeError(f"{where}: expected a tuple, got {value!r}")
        return [encode(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where}: expected a dict with text keys, got {value!r}")
        return {key: encode(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if not _scalar_fits(hint, value):
        raise TypeError(f"{where}: expected {_describe(hint)}, got {value!r}")
    return float(value) if hint is float else value


def decode(hint: Any, value: Any, where: str) -> Any:
    """JSON values as an object of type `hint`; `where` is their path in errors."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else decode(_inner(hint), value, where)
    if is_dataclass(hint):
        return _decode_dataclass(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"expected a list, got {value!r:.80}", where=where)
        return tuple(decode(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"expected a mapping, got {value!r:.80}", where=where)
        return {key: decode(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if not _scalar_fits(hint, value):
        raise UserError(f"expected {_describe(hint)}, got {value!r:.80}", where=where)
    return float(value) if hint is float else value


def _decode_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"expected a mapping, got {value!r:.80}", where=where)
    hints = _hints(cls)
    for key in value:
        if key not in hints:
            raise UserError(f"unknown key '{key}'", where=where, hint=f"known: {', '.join(hints)}")
    for f in fields(cls):
        if f.name not in value and f.default is MISSING:
            raise UserError(f"the key '{f.name}' is missing", where=where)
    arguments = {key: decode(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(str(error), where=where) from None
