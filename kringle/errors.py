"""The two kinds of trouble that Kringle tells apart, and one that is met in many places: a name that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the user can mend: bad input, a wrong key, a missing file.

    The command line prints it as one line and exits with code 2, so the message must say *what* is wrong, *where*, and
    *what to do*. Raise it before anything has been written, or after what was half-written has been removed.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        line = f"{where}: {what}" if where else what
        if hint:
            line = f"{line}; {hint}"
        super().__init__(" ".join(line.split()))


class ShardError(Exception):
    """A fault while working on one shard; names the shard and keeps the cause."""

    def __init__(self, shard: str, cause: BaseException) -> None:
        self.shard, self.cause = shard, cause
        super().__init__(f"shard {shard}: {type(cause).__name__}: {cause}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.shard, self.cause)  # exceptions pickle by their arguments, which the message replaced


def unknown(name: str, known: Iterable[str], path: str, what: str) -> UserError:
    """The error to raise for a name that is none of those known, with the nearest of them as a hint."""
    import difflib  # needed for a mistake alone

    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return UserError(f"unknown {what} '{name}'", where=path, hint=hint)
