"""The files of trees that are worth scanning, and rewriting one without ever leaving half of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kringle.errors import UserError

SKIPPED_FOLDERS = frozenset((".git", ".hg", ".svn", "__pycache__"))
PEEK = 8000  # bytes in which a zero byte makes a file binary, as git judges it
UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}  # by byte-order mark


def files_in(paths: Sequence[Path], failed: Callable[[Path, str], None]) -> Iterator[Path]:
    """The regular files of some files and trees, in order, each once; folders of version control are left out.

    Symbolic links inside trees are not followed, so that nothing outside is touched. `failed` hears of folders that
    cannot be listed. Raises UserError for a path that does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        try:
            path.stat()
        except FileNotFoundError:
            raise UserError("there is no such file or folder", where=shown(path)) from None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=shown(path)) from None
        if not path.is_file() and not path.is_dir():
            failed(path, "neither a file nor a folder")
            continue
        inside = [path] if path.is_file() else _walk(path, failed)
        for file in inside:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file


def _walk(root: Path, failed: Callable[[Path, str], None]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        failed(Path(error.filename), error.strerror or "cannot be listed")

    for folder, folders, names in os.walk(root, onerror=report):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                yield path


def shown(path: Path) -> str:
    """The path as one line of valid text: control characters and bytes that are no text are written as escapes."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_binary(data: bytes) -> bool:
    """Whether git would call the file binary."""
    return b"\0" in data[:PEEK]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, keeping its mode; behind a symbolic link, the file that it points to."""
    path = path.resolve()
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".kringle-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
