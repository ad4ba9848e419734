"""Archives (zip, wheel, jar, egg; tar alone or with gzip, bzip2, xz or zstd) read in place, within limits.

Nothing is ever written to disk, so no name can lead out of a folder; names that try are left out all the same. Links
and devices are left out. An archive inside an archive is opened, one inside that is not. Two passes: the first reads
what declares licences, the second the documents. What is decompressed in all is bounded by `MAX_RATIO` times the
archive's size (but at least `FREE_BYTES`), so a bomb ends as one line; what was read before that is kept.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

import zstandard

from kringle.data.languages import NOTEBOOK, is_notebook, language_of_name
from kringle.data.license_texts import MAX_TEXT_BYTES
from kringle.data.sources.candidates import SYMLINK, printable
from kringle.data.sources.containers import Broken, Container, Found, Member, Passed, Uncounted, Wanted
from kringle.data.sources.declared import declares, licenses_by_folder
from kringle.data.sources.walk import SPECIAL

ZIPS = (".zip", ".whl", ".jar", ".egg")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
ENDINGS = (*ZIPS, *TARS)
MAX_RATIO = 200  # source code shrinks to a third to a tenth; the densest honest archives stay below 1:50
FREE_BYTES = 256 << 20  # that an archive may unfold to whatever its size
MAX_MEMBERS = 1_000_000
MAX_NESTED_BYTES = 64 << 20  # an inner archive is held in memory
MAX_DEPTH = 2  # an archive, and an archive in it
ESCAPES = "its name leads out of the archive"
BOMB = "unfolds to more than {limit:,} bytes: taken for an archive bomb, the rest is not read"
_ENCRYPTED = 0x1  # bit of a zip member's flags
_FAULTS = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
)


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive that can be opened."""
    return name.lower().endswith(ENDINGS)


def is_named(name: str, ending: str) -> bool:
    """Whether a name has this ending, in any case."""
    return name.lower().endswith(ending)


class TooLarge(Exception):
    """An archive that unfolds beyond its limit."""


class Budget:
    """How many bytes an archive and what is inside it may still unfold to."""

    def __init__(self, size: int) -> None:
        self.limit = max(FREE_BYTES, MAX_RATIO * size)
        self.left = self.limit

    def spend(self, amount: int) -> None:
        """Take `amount` bytes; raises `TooLarge` when they are not there."""
        self.left -= amount
        if self.left < 0:
            raise TooLarge(BOMB.format(limit=self.limit))


class _Metered(io.RawIOBase):
    """A decompressed stream whose bytes are paid for out of a budget."""

    def __init__(self, inner: IO[bytes], budget: Budget) -> None:
        self._inner, self._budget = inner, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # One step of the decompressor at a time: asked for more, a stream that is cut short would give nothing at all.
        data: bytes = self._inner.read1(len(buffer))  # type: ignore[attr-defined]  # all of ours have it
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


class Entry(NamedTuple):
    """A regular file in an archive: its name as the archive spells it, its declared size, and how to read it.

    `read(limit)` gives at most `limit` bytes.
    """

    name: str
    size: int
    read: Callable[[int], bytes]


class Odd(NamedTuple):
    """Anything in an archive that is no regular file with a usable name, and why it is left out."""

    name: str
    size: int
    reason: str


def entries(file: IO[bytes], name: str, budget: Budget) -> Iterator[Entry | Odd]:
    """What an open archive holds, in its order; folders are not told. Raises `TooLarge`, and faults of the formats."""
    walk = _zip_entries if name.lower().endswith(ZIPS) else _tar_entries
    for number, entry in enumerate(walk(file, name, budget)):
        if number >= MAX_MEMBERS:
            raise TooLarge(f"holds more than {MAX_MEMBERS:,} files; the rest is not read")
        if isinstance(entry, Entry) and _escapes(entry.name):
            yield Odd(entry.name, entry.size, ESCAPES)
        else:
            yield entry


def _escapes(name: str) -> bool:
    """Whether a name is absolute, climbs, or would on another system."""
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or plain[1:2] == ":" or "\0" in plain


def _zip_entries(file: IO[bytes], name: str, budget: Budget) -> Iterator[Entry | Odd]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind and not stat.S_ISREG(kind):
                yield Odd(info.filename, 0, SYMLINK if stat.S_ISLNK(kind) else SPECIAL)
            elif info.flag_bits & _ENCRYPTED:
                yield Odd(info.filename, info.file_size, "encrypted")
            else:
                yield Entry(info.filename, info.file_size, _zip_reader(archive, info, budget))


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        with archive.open(info) as member:
            data = member.read(limit)
        budget.spend(len(data))
        return data

    return read


def _tar_entries(file: IO[bytes], name: str, budget: Budget) -> Iterator[Entry | Odd]:
    stream = io.BufferedReader(_Metered(_unpacked(file, name.lower()), budget), 1 << 20)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while True:
            info = archive.next()
            archive.members = []  # type: ignore[attr-defined]  # a stream is not gone back to, and a long list of its members is memory for nothing
            if info is None:
                return
            if info.isfile():
                yield Entry(info.name, info.size, _tar_reader(archive, info))
            elif not info.isdir():
                yield Odd(info.name, 0, SYMLINK if info.issym() or info.islnk() else SPECIAL)


def _tar_reader(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        member = archive.extractfile(info)
        return b"" if member is None else member.read(limit)

    return read


def _unpacked(file: IO[bytes], name: str) -> IO[bytes]:
    if name.endswith((".gz", ".tgz")):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if name.endswith((".bz2", ".tbz2")):
        return cast("IO[bytes]", bz2.BZ2File(file))
    if name.endswith((".xz", ".txz")):
        return cast("IO[bytes]", lzma.LZMAFile(file))
    if name.endswith((".zst", ".tzst")):
        return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
    return file


def read_archive(container: Container, wanted: Wanted) -> Iterator[Found]:
    """Everything that an archive holds: documents in the wanted languages, and what was passed over, with reasons."""
    budget = Budget(container.size)
    try:
        with open(container.place, "rb") as file:  # noqa: PTH123 (a path that may hold undecodable bytes)
            yield from _read(file, container, wanted, budget, 1)
    except FileNotFoundError:
        yield Broken(container.name, "vanished since it was listed")
    except OSError as error:
        yield Broken(container.name, f"unreadable: {error.strerror or error}")


def _read(file: IO[bytes], container: Container, wanted: Wanted, budget: Budget, depth: int) -> Iterator[Found]:
    try:
        licenses = _licenses(file, container, Budget(container.size))
        file.seek(0)
        for entry in entries(file, container.place, budget):
            yield from _consider(entry, container, licenses, wanted, budget, depth)
    except TooLarge as reason:
        yield Broken(container.name, str(reason))
    except _FAULTS as error:
        yield Broken(container.name, f"cut short or damaged ({_reason(error)}); what could be read is kept")


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or (error.args[0] if error.args else "") or type(error).__name__
    return str(text).splitlines()[0]


def _licenses(file: IO[bytes], container: Container, budget: Budget) -> Callable[[str], tuple[str, ...]]:
    """Licences by folder of the archive, from what declares them in it; a broken archive is told by the second pass."""
    if container.also or container.source == "debian":
        from kringle.data.debian_copyright import licenses_of_container

        return licenses_of_container(container)
    declaring: dict[str, dict[str, str]] = {}
    try:
        for entry in entries(file, container.place, budget):
            if isinstance(entry, Entry):
                folder, _, name = entry.name.replace("\\", "/").rpartition("/")
                if entry.size <= MAX_TEXT_BYTES and declares(name):
                    text = entry.read(MAX_TEXT_BYTES).decode("utf-8", "replace")
                    declaring.setdefault(folder, {})[name] = text
    except (TooLarge, *_FAULTS):
        pass  # the second pass stops at the same place and tells it; what was learnt until there holds
    found = licenses_by_folder(declaring)

    def of(path: str) -> tuple[str, ...]:
        folder = path.rpartition("/")[0]
        while True:
            if folder in found:
                return found[folder]
            if not folder:
                return container.licenses
            folder = folder.rpartition("/")[0]

    return of


def _consider(
    entry: Entry | Odd,
    container: Container,
    licenses: Callable[[str], tuple[str, ...]],
    wanted: Wanted,
    budget: Budget,
    depth: int,
) -> Iterator[Found]:
    inner = entry.name.replace("\\", "/").removeprefix("./")
    shown = printable(_join(container.prefix, "/".join(inner.split("/")[container.strip :]) or inner))
    language = language_of_name(PurePosixPath(inner).name)
    if isinstance(entry, Entry) and is_archive(inner):
        yield from _nested(entry, inner, container, licenses, wanted, budget, depth)
        return
    if is_notebook(inner) and "python" in wanted.languages:
        yield Passed("survey", container.repo, shown, entry.size, "a file of its own", "notebook", NOTEBOOK)
        return
    if language is None or language not in wanted.languages:
        yield Uncounted(language, PurePosixPath(inner).suffix.lower() or "no extension")
        return
    if isinstance(entry, Odd):
        yield Passed("survey", container.repo, shown, entry.size, "a file of its own", entry.reason, entry.reason)
        return
    limit = f"1 to {wanted.max_file_bytes:,} bytes"
    if not 0 < entry.size <= wanted.max_file_bytes:
        reason = "too large" if entry.size else "empty"
        yield Passed("size", container.repo, shown, entry.size, limit, reason, None, entry.size)
        return
    try:
        data = entry.read(wanted.max_file_bytes + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:  # of this member alone
        why = f"unreadable: {_reason(error)}"
        yield Passed("read", container.repo, shown, entry.size, "UTF-8 text", "unreadable", why, entry.size)
        return
    if len(data) != entry.size:
        why = f"holds {len(data):,} bytes where {entry.size:,} are announced"
        yield Passed("read", container.repo, shown, entry.size, "UTF-8 text", "not as long as announced", why)
        return
    yield Member(container.repo, shown, language, data, licenses(inner), None, container.revision)


def _nested(
    entry: Entry,
    inner: str,
    container: Container,
    licenses: Callable[[str], tuple[str, ...]],
    wanted: Wanted,
    budget: Budget,
    depth: int,
) -> Iterator[Found]:
    """What an archive inside an archive holds, in memory and out of the same budget."""
    below = container._replace(
        place=f"{container.place}/{inner}",
        told=f"{container.told}/{inner}" if container.told else "",
        size=entry.size,
        prefix=_join(container.prefix, inner),
        licenses=licenses(inner),
        strip=0,
    )
    if depth >= MAX_DEPTH:
        yield Broken(below.name, f"an archive {depth} archives deep is not opened")
        return
    if entry.size > MAX_NESTED_BYTES:
        yield Broken(below.name, f"an archive of more than {MAX_NESTED_BYTES >> 20} MiB inside another is not opened")
        return
    with ExitStack() as stack:
        try:
            data = stack.enter_context(io.BytesIO(entry.read(MAX_NESTED_BYTES)))
        except (zipfile.BadZipFile, NotImplementedError, zlib.error) as error:
            yield Broken(below.name, f"unreadable: {_reason(error)}")
            return
        yield from _read(data, below, wanted, budget, depth + 1)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
