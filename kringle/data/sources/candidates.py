"""What a source hands over: candidates known by name, size and licence, and what it left out with the reason."""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from kringle.data.languages import NOTEBOOK, SHEBANG_BYTES, is_notebook, language_of_name, language_of_shebang
from kringle.data.sources.containers import Container
from kringle.data.sources.walk import SPECIAL, open_regular


class Candidate(NamedTuple):
    """A file that may become a document. `path` and `repo` are printable; `container` and `member` say where to read.

    `reader` "file": `member` is a path in the file system. "zip": a member of the archive `container`. "git": a blob id
    in the git directory `container`. `licenses` are SPDX expressions that all apply.
    """

    source: str
    repo: str
    path: str
    language: str
    size: int  # bytes
    mtime_ns: int  # of the file or its archive; 0 where a blob id says it all
    licenses: tuple[str, ...]
    revision: str
    stars: int | None
    reader: Literal["file", "zip", "git"]
    container: str
    member: str


class Skipped(NamedTuple):
    """Something a source saw and left out, by a reason that a reader understands."""

    source: str
    repo: str
    path: str
    reason: str


@dataclass
class Found:
    """All that one source found. `containers` hold further documents, known when they are read. `other` counts files by
    extension that are in no supported language, `unasked` those in a supported one that was not asked for."""

    candidates: list[Candidate] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    unasked: Counter[str] = field(default_factory=Counter)

    def extend(self, more: Found) -> None:
        """Add what another source found."""
        self.candidates += more.candidates
        self.containers += more.containers
        self.skipped += more.skipped
        self.notes += more.notes
        self.other += more.other
        self.unasked += more.unasked


_ESCAPED = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|n|u([0-9a-f]{4}))")


def printable(name: str) -> str:
    """A file name as text on one line: backslashes, control characters and undecodable bytes escaped, reversibly.

    A newline becomes `\\n`, a backslash `\\\\`, anything else `\\u` and four hexadecimal digits; a byte that is not
    UTF-8 appears as its surrogate (`\\udcXX`), as `os.fsdecode` makes it.
    """

    if name.isprintable() and "\\" not in name:  # nearly every name, and five times as fast to see
        return name

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        return {"\\": "\\\\", "\n": "\\n"}.get(character, f"\\u{ord(character):04x}")

    return _ESCAPED.sub(escape, name)


_of_many = functools.lru_cache(maxsize=64)(printable)  # what many files have in common


def original_name(text: str) -> str:
    """The file name that `printable` made `text` from."""
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else {"\\\\": "\\", "\\n": "\n"}[m[0]], text)


SYMLINK = "symbolic link, not followed"
UNREADABLE = f"unreadable: {os.strerror(errno.EACCES)}"  # told by the survey, so that lifting it is a change it sees
_EFFECTIVE = os.access in os.supports_effective_ids


class Lister:
    """Turns directory entries into candidates, or into skipped entries and counts. Reads no file but the first line of
    executable ones without an extension."""

    def __init__(self, source: str, languages: Collection[str]) -> None:
        self.source, self.languages, self.found = source, frozenset(languages), Found()
        self._user = os.geteuid() if _EFFECTIVE else -1

    def skip(self, repo: str, path: str, reason: str) -> None:
        """Record something left out; `path` as the file system spells it."""
        self.found.skipped.append(Skipped(self.source, printable(repo), printable(path), reason))

    def unreadable(self, repo: str, path: str, error: OSError) -> None:
        """Record a file or folder that the operating system refuses."""
        self.skip(repo, path, f"unreadable: {error.strerror or error}")

    def wanted(self, language: str | None, name: str) -> bool:
        """Whether a file in this language (None: not a supported one) is asked for; counts it if not."""
        if language is None:
            self.found.other[PurePosixPath(name).suffix.lower() or "no extension"] += 1
        elif language not in self.languages:
            self.found.unasked[language] += 1
        return language in self.languages

    def add_archive(self, entry: os.DirEntry[str], repo: str, path: str, licenses: tuple[str, ...]) -> None:
        """Consider a directory entry that is named like an archive; its members will be at `path`/member."""
        if entry.is_symlink():
            self.skip(repo, path, SYMLINK)
            return
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                self.skip(repo, path, SPECIAL)
            elif not os.access(entry.path, os.R_OK, effective_ids=_EFFECTIVE):
                self.skip(repo, path, UNREADABLE)
            else:
                self.found.containers.append(
                    Container(
                        self.source, "archive", entry.path, "", status.st_size, str(status.st_mtime_ns),
                        printable(repo), printable(path), "", licenses,
                    )
                )  # fmt: skip
        except OSError as error:
            self.unreadable(repo, path, error)

    def add(self, entry: os.DirEntry[str], repo: str, path: str, licenses: tuple[str, ...], revision: str) -> None:
        """Consider one directory entry that is not a directory; `repo` and `path` as the file system spells them."""
        language = language_of_name(entry.name)
        if language is None and is_notebook(entry.name) and "python" in self.languages:
            self.skip(repo, path, NOTEBOOK)
            return
        script = language is None and "." not in entry.name
        if entry.is_symlink():
            if script or language in self.languages:
                self.skip(repo, path, SYMLINK)
            return
        if not script and not self.wanted(language, entry.name):
            return
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                if not script:
                    self.skip(repo, path, SPECIAL)
                return
            if script:
                language = _script_language(entry.path) if status.st_mode & 0o111 else None
                if not self.wanted(language, entry.name):
                    return
            if not self._readable(entry, status):
                self.skip(repo, path, UNREADABLE)
                return
        except OSError as error:
            self.unreadable(repo, path, error)
            return
        assert language is not None
        self.found.candidates.append(
            Candidate(
                self.source, _of_many(repo), printable(path), language, status.st_size, status.st_mtime_ns,
                licenses, _of_many(revision), None, "file", "", entry.path,
            )
        )  # fmt: skip

    def _readable(self, entry: os.DirEntry[str], status: os.stat_result) -> bool:
        """Whether this process may read a file; that of its own user's files is told by their mode alone."""
        if status.st_uid == self._user and status.st_mode & stat.S_IRUSR:
            return True
        return os.access(entry.path, os.R_OK, effective_ids=_EFFECTIVE)


def _script_language(path: str) -> str | None:
    descriptor = open_regular(path)
    try:
        return language_of_shebang(os.read(descriptor, SHEBANG_BYTES))
    finally:
        os.close(descriptor)
