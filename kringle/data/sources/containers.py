"""Containers: files that hold many documents (archives, tables), opened where they are read, not where they are listed.

A source hands over containers by place, size and stamp, as it does single files; what lies inside is learnt in a
worker, which decides there on language, size and licence. Every way in which a container can be broken ends as one line
that names it, and everything before and beside the broken part is kept.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Container(NamedTuple):
    """A file that holds documents. Picklable and JSON-able: its fields are its fingerprint.

    `place` is a path or a URL. `part` narrows it: a row group's number for Parquet, `start-end` in bytes for JSONL, ""
    for the whole. `stamp` changes when the file does (time of change, ETag, checksum). `repo`, `prefix`, `revision` and
    `licenses` hold for everything inside that says nothing else; `strip` leading folders are taken off members' paths.
    `also` names a second file that goes with it: the Debian packaging of an upstream archive. `told` is what a download
    is called in messages and decisions, which are then the same on every machine; else that is its place.
    """

    source: str
    kind: Literal["archive", "parquet", "jsonl"]
    place: str
    part: str
    size: int
    stamp: str
    repo: str = ""
    prefix: str = ""
    revision: str = ""
    licenses: tuple[str, ...] = ()
    strip: int = 0
    also: str = ""
    told: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.told or self.place}{f' (part {self.part})' if self.part else ''}"


class Member(NamedTuple):
    """A document inside a container. `path` and `repo` are printable; `licenses` are SPDX expressions, all of which
    apply."""

    repo: str
    path: str
    language: str
    data: bytes
    licenses: tuple[str, ...]
    stars: int | None
    revision: str


class Passed(NamedTuple):
    """Something inside a container that was not read, with the step that decided so. `reason` groups it in counts."""

    step: str
    repo: str
    path: str
    size: int
    threshold: str
    reason: str
    witness: str | None = None
    value: float | None = None


class Uncounted(NamedTuple):
    """A file in a language that is not asked for (`language`), or in none (`language` None, its extension told)."""

    language: str | None
    extension: str


class Broken(NamedTuple):
    """A container, or the rest of one, that cannot be read: the one line about it."""

    place: str
    reason: str


Found = Member | Passed | Uncounted | Broken


class Wanted(NamedTuple):
    """What a reader needs to know to leave unwanted members unread."""

    languages: tuple[str, ...]
    max_file_bytes: int
