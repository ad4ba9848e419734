"""Reading candidates: bytes from files, archives and git, and the decision whether they are a text.

Whatever a file turns out to be (gone, unreadable, binary, in another encoding, changing under the reader's hands), the
answer is a reason, never a fault of the run.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from kringle.data.sources.candidates import Candidate
from kringle.data.sources.git import Blobs
from kringle.data.sources.walk import open_regular

CHANGED = "changed since it was listed; the next run will see it"
_LFS = b"version https://git-lfs.github.com/spec/"
_OTHER_UNICODE = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class Unreadable(Exception):
    """A candidate that does not become a document; the message is the reason."""


def blob_id(data: bytes) -> str:
    """The id that git gives to these bytes as a blob (SHA-1, hexadecimal): The Stack's `hexsha`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def decode(data: bytes) -> str:
    """The text that `data` is in UTF-8, byte for byte (a byte-order mark and `\\r` stay). Raises `Unreadable`."""
    for mark, name in _OTHER_UNICODE:
        if data.startswith(mark):
            raise Unreadable(f"{name} text (it begins with that byte-order mark), not UTF-8")
    if (place := data.find(0)) >= 0:
        raise Unreadable(f"binary: a NUL byte at offset {place:,}")
    if not data:
        raise Unreadable("empty")
    if data.startswith(_LFS):
        raise Unreadable("a Git LFS pointer; the file itself is elsewhere")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,}") from None


class Reader:
    """Reads candidates, keeping archives and git processes open between them; use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._blobs: dict[str, Blobs] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def read(self, candidate: Candidate) -> bytes:
        """The bytes of a candidate. Raises `Unreadable` with the reason."""
        try:
            if candidate.reader == "file":
                data = _read_file(candidate)
            elif candidate.reader == "zip":
                data = self._read_member(candidate)
            else:
                data = self._read_blob(candidate)
        except FileNotFoundError:
            raise Unreadable("vanished since it was listed") from None
        except (
            OSError,
            EOFError,
            KeyError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise Unreadable(f"unreadable: {getattr(error, 'strerror', None) or error}") from None
        if len(data) != candidate.size:
            raise Unreadable(CHANGED)
        return data

    def _read_member(self, candidate: Candidate) -> bytes:
        if candidate.container not in self._archives:
            archive = self._stack.enter_context(zipfile.ZipFile(candidate.container))
            self._archives[candidate.container] = archive
        if Path(candidate.container).stat().st_mtime_ns != candidate.mtime_ns:
            raise Unreadable(CHANGED)
        with self._archives[candidate.container].open(candidate.member) as file:
            return file.read(candidate.size + 1)  # a member may hold more than its directory entry says

    def _read_blob(self, candidate: Candidate) -> bytes:
        if candidate.container not in self._blobs:
            self._blobs[candidate.container] = self._stack.enter_context(Blobs(candidate.container))
        return self._blobs[candidate.container].read(candidate.member)


def _read_file(candidate: Candidate) -> bytes:
    with os.fdopen(open_regular(candidate.member), "rb") as file:
        before = os.fstat(file.fileno())
        data = file.read(candidate.size + 1)
        after = os.fstat(file.fileno())
    for status in (before, after):
        if (status.st_size, status.st_mtime_ns) != (candidate.size, candidate.mtime_ns):
            raise Unreadable(CHANGED)
    return data
