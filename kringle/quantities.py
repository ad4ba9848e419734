"""Quantities as people write them: `60MB`, `1M`, `5%`. A parser takes a value and the path that names it in errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kringle.errors import UserError

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?\s*([A-Za-z%]*)")
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
LARGEST_EXPONENT = 18  # 10^18 bytes or tokens are an exabyte: more is a slip
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def _quantity(value: Any, path: str, units: Mapping[str, int], what: str, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"expected {what} such as {example}, got {value!r}", where=path)
    match = _NUMBER.fullmatch(str(value).strip().replace("_", ""))
    if not match or match[3].lower() not in units:
        raise UserError(f"expected {what} such as {example}, got {value!r}", where=path)
    exponent = int(match[2] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        raise UserError(f"is out of range: {value!r}", where=path)
    amount = Decimal(match[1]).scaleb(exponent) * units[match[3].lower()]  # exact: 1.07GB is a whole number of bytes
    if amount != amount.to_integral_value() or amount > 10**LARGEST_EXPONENT:
        raise UserError(f"expected a whole number up to 10^{LARGEST_EXPONENT}, got {value!r}", where=path)
    return int(amount)


def parse_whole(value: Any, path: str) -> int:
    """A count that may be 0."""
    return _quantity(value, path, _COUNTS, "a count", "10")


def parse_bytes(value: Any, path: str) -> int:
    """`60MB` -> 60,000,000 (decimal units; KiB, MiB, GiB are binary)."""
    return _positive(_quantity(value, path, _BYTES, "a size", "60MB"), path)


def parse_count(value: Any, path: str) -> int:
    """`1M` -> 1,000,000; at least 1."""
    return _positive(_quantity(value, path, _COUNTS, "a count", "1M"), path)


def _positive(value: int, path: str) -> int:
    if value < 1:
        raise UserError(f"must be at least 1, got {value}", where=path)
    return value


def parse_fraction(value: Any, path: str) -> float:
    """`5%` or 0.05 -> 0.05; between 0 and 1."""
    if isinstance(value, str) and value.strip().endswith("%"):
        number = _float(value.strip()[:-1], path) / 100
    else:
        number = _float(value, path)
    if not 0 <= number <= 1:
        raise UserError(f"expected a share between 0 and 1 (or 0% and 100%), got {value!r}", where=path)
    return number


def _float(value: Any, path: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)  # YAML reads 2e-3 as text: PyYAML follows YAML 1.1, which wants a dot
    except (TypeError, ValueError):
        raise UserError(f"expected a number, got {value!r}", where=path) from None
    if number != number or number in (float("inf"), float("-inf")):
        raise UserError(f"expected a finite number, got {value!r}", where=path)
    return number


def parse_positive(value: Any, path: str) -> float:
    number = _float(value, path)
    if number <= 0:
        raise UserError(f"must be above 0, got {value!r}", where=path)
    return number


def parse_not_negative(value: Any, path: str) -> float:
    number = _float(value, path)
    if number < 0:
        raise UserError(f"must not be negative, got {value!r}", where=path)
    return number


def parse_below_one(value: Any, path: str) -> float:
    """A share below 1."""
    number = parse_fraction(value, path)
    if number >= 1:
        raise UserError(f"must be below 1, got {value!r}", where=path)
    return number


def parse_above_zero(value: Any, path: str) -> float:
    """A share above 0."""
    number = parse_fraction(value, path)
    if number <= 0:
        raise UserError(f"must be above 0, got {value!r}", where=path)
    return number


def parse_seeds(value: Any, path: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(x, int) and not isinstance(x, bool) for x in value)
    ):
        raise UserError(f"expected a list of whole numbers such as [0], got {value!r}", where=path)
    if len(set(value)) != len(value):
        raise UserError(f"the same seed twice in {value!r}", where=path, hint="a repeated run would count as evidence")
    return tuple(value)


def parse_flag(value: Any, path: str) -> bool:
    """true or false, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise UserError(f"expected true or false, got {value!r}", where=path)
    return value
