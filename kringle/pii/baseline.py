"""Accepted findings: a JSON file that names them without telling them.

An entry is a path, a kind and a keyed hash of the value. The key of the hash, the salt, is random and stands in the
file: equal values in two baselines do not look alike. Whoever has the file can still test guesses, so it should be as
private as the code that it is about.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kringle.errors import UserError
from kringle.pii.files import write_atomically
from kringle.pii.redaction import Accepts

VERSION = 1
SALT_BYTES, HASH_BYTES = 16, 16
LONGEST_SALT = 64  # BLAKE2b's longest key


class Entry(NamedTuple):
    """One accepted finding; `path` is relative to the baseline's folder, with slashes; `value` a keyed hash."""

    path: str
    kind: str
    value: str


class Baseline(NamedTuple):
    """The accepted findings of a baseline file, and the salt of their hashes."""

    folder: Path
    salt: bytes
    entries: frozenset[Entry]

    def entry(self, path: Path, kind: str, value: bytes) -> Entry:
        """The entry that would accept this value in this file."""
        digest = hashlib.blake2b(value, key=self.salt, person=b"kringle-baseline", digest_size=HASH_BYTES).hexdigest()
        return Entry(self.place(path), kind, digest)

    def place(self, path: Path) -> str:
        """The path as entries write it."""
        return Path(os.path.relpath(path.resolve(), self.folder)).as_posix()

    def accepts(self, path: Path) -> Accepts:
        """The test for the findings of one file."""
        return lambda kind, value: self.entry(path, kind, value) in self.entries


def empty_baseline(path: Path) -> Baseline:
    """A baseline for `path` that accepts nothing yet, with a salt of its own."""
    try:
        folder = path.resolve().parent
    except (OSError, RuntimeError):
        raise UserError("is a loop of symbolic links", where=str(path)) from None
    return Baseline(folder, secrets.token_bytes(SALT_BYTES), frozenset())


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file; raises UserError if there is none or it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != VERSION:
            raise UserError(
                f"the baseline has version {record['version']}, this Kringle reads {VERSION}", where=str(path)
            )
        entries = frozenset(Entry(str(e["path"]), str(e["kind"]), str(e["value"])) for e in record["accepted"])
        salt = bytes.fromhex(record["salt"])
        if not 1 <= len(salt) <= LONGEST_SALT:
            raise ValueError("salt")
        return Baseline(path.resolve().parent, salt, entries)
    except (OSError, RuntimeError) as error:  # a loop of symbolic links is a RuntimeError before Python 3.13
        if isinstance(error, RecursionError):
            raise UserError("this is no baseline of kringle redact: nested too deeply", where=str(path)) from None
        reason = error.strerror if isinstance(error, OSError) else "a loop of symbolic links"
        hint = "write one with --update-baseline"
        raise UserError(f"the baseline cannot be read: {reason}", where=str(path), hint=hint) from None
    except (ValueError, KeyError, TypeError):
        hint = "write it again with --update-baseline"
        raise UserError("this is no baseline of kringle redact", where=str(path), hint=hint) from None


def write_baseline(path: Path, baseline: Baseline, scanned: Iterable[Path], found: Iterable[Entry]) -> int:
    """Accept what was `found` in the `scanned` files; entries of other files stay. Returns the number of entries."""
    places = {baseline.place(file) for file in scanned}
    entries = sorted({entry for entry in baseline.entries if entry.path not in places} | set(found))
    accepted = [entry._asdict() for entry in entries]
    record = {"version": VERSION, "salt": baseline.salt.hex(), "accepted": accepted}
    try:
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"the baseline cannot be written: {error.strerror}", where=str(path)) from None
    return len(entries)
