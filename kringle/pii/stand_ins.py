"""Stand-ins: what a secret is replaced by, and how a stand-in is known again.

A stand-in keeps length, prefix, separators and alphabet of its original. It is a keyed hash of the original, so the
same value gets the same stand-in everywhere under one corpus key, and without the key nobody can try guesses. Its last
characters are a checksum of the rest (`MARK_BITS`, without key), so that any Kringle knows it for a stand-in:
redacting a redacted file finds nothing. A real secret passes for a stand-in with probability 2**-32 (short ones: see
`_mark_length`).

Letters are drawn from the whole alphabet of the original and not case by case: the case pattern of a base-64 private
key alone would give away more than a fifth of its bits, which is near what known attacks need to restore the whole.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Sequence
from math import log2

from kringle.pii.candidates import Candidate, Segment

MARK_BITS = 32
_PERSON_STAND_IN, _PERSON_MARK = b"kringle-stand-in", b"kringle-mark"

_LOWER, _UPPER, _DIGITS = string.ascii_lowercase.encode(), string.ascii_uppercase.encode(), string.digits.encode()
_ALNUM = _LOWER + _UPPER + _DIGITS
_HEX_LOWER, _HEX_UPPER = b"abcdef", b"ABCDEF"

Slot = tuple[int, bytes]  # a position in the value, and the alphabet of its stand-in


def slots(value: bytes, groups: Sequence[Sequence[Segment]], alphabet: str = "") -> list[Slot]:
    """The positions of `value` that a stand-in replaces, each with its alphabet.

    Groups are of offsets into `value`; punctuation stays. Without a given alphabet each group's own is inferred, and
    its first positions are reserved for one character of each class that the group has, so that the alphabet inferred
    from the stand-in is the same.
    """
    found: list[Slot] = []
    for group in groups:
        letters = alphabet.encode() or _ALNUM
        places = [at for start, end in group for at in range(start, end) if value[at] in letters]
        if alphabet:
            found += [(at, letters) for at in places]
            continue
        classes = _classes(value, places)
        union = b"".join(classes)
        reserved = [_reserved(c, union) for c in classes]
        found += [(at, reserved[i] if i < len(classes) else union) for i, at in enumerate(places)]
    return found


def _classes(value: bytes, places: Sequence[int]) -> list[bytes]:
    present = bytes(value[at] for at in places)
    lower, upper = present.translate(None, _UPPER + _DIGITS), present.translate(None, _LOWER + _DIGITS)
    hexadecimal = not lower.strip(_HEX_LOWER) and not upper.strip(_HEX_UPPER)
    classes = []
    if lower:
        classes.append(_HEX_LOWER if hexadecimal else _LOWER)
    if upper:
        classes.append(_HEX_UPPER if hexadecimal else _UPPER)
    if len(present) > len(lower) + len(upper):
        classes.append(_DIGITS)
    return classes


def _reserved(letters: bytes, union: bytes) -> bytes:
    """Characters that prove the class: in a wider alphabet than hexadecimal a letter beyond f."""
    if letters in (_LOWER, _UPPER):
        return letters[6:]
    return letters


def _mark_length(places: Sequence[Slot]) -> int:
    """How many of the last slots carry the mark: 32 bits, or half of what a short value has."""
    total = sum(log2(len(letters)) for _, letters in places)
    wanted = min(MARK_BITS, total / 2)
    bits = 0.0
    for count, (_, letters) in enumerate(reversed(places)):
        if bits >= wanted:
            return count
        bits += log2(len(letters))
    return len(places)


class Stream:
    """An endless stream of draws from a keyed hash; their bias is below 2**-32."""

    def __init__(self, person: bytes, key: bytes, message: bytes) -> None:
        self._seed = hashlib.blake2b(message, key=key, person=person, digest_size=32).digest()
        self._block, self._left, self._count = b"", 0, 0

    def pick(self, letters: bytes) -> int:
        """One byte of `letters`."""
        return letters[self.below(len(letters))]

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        if self._left == 0:
            counter = self._count.to_bytes(8, "little")
            self._block = hashlib.blake2b(self._seed + counter, digest_size=64).digest()
            self._left, self._count = 8, self._count + 1
        self._left -= 1
        number = int.from_bytes(self._block[8 * self._left : 8 * self._left + 8], "little")
        return number % limit


def _write_mark(value: bytearray, places: Sequence[Slot]) -> None:
    count = _mark_length(places)
    marked = places[len(places) - count :]
    stream = Stream(_PERSON_MARK, b"", bytes(value[at] for at, _ in places[: len(places) - count]))
    for at, letters in marked:
        value[at] = stream.pick(letters)


def carries_mark(data: bytes, candidate: Candidate) -> bool:
    """Whether the candidate's bytes in `data` are a stand-in, or hold nothing that one could replace."""
    value = data[candidate.start : candidate.end]
    places = slots(value, _within(candidate), candidate.alphabet)
    if not places:
        return True
    copy = bytearray(value)
    _write_mark(copy, places)
    return bytes(copy) == value


def _within(candidate: Candidate) -> list[list[Segment]]:
    """The candidate's groups as offsets into its own bytes."""
    return [[(start - candidate.start, end - candidate.start) for start, end in group] for group in candidate.groups]


def stand_in(data: bytes, candidate: Candidate, key: bytes, genuine: Callable[[bytes], bool]) -> bytes:
    """What stands in for a candidate of kind "key" under a corpus key (at most 64 bytes).

    `genuine` says whether a text could be a real secret (its checksum agrees); a stand-in never is one.
    """
    value = data[candidate.start : candidate.end]
    places = slots(value, _within(candidate), candidate.alphabet)
    identity = bytes(value[at] for at, _ in places)
    for attempt in range(256):
        stream = Stream(_PERSON_STAND_IN, key, identity + bytes([attempt]))
        result = bytearray(value)
        for at, letters in places:
            result[at] = stream.pick(letters)
        _write_mark(result, places)
        if result != value and not genuine(bytes(result)):
            return bytes(result)
    raise RuntimeError(f"no stand-in of the format {candidate.format} is known to be false")
