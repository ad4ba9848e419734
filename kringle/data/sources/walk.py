"""Walking a directory tree without following links, without recursion, and without stopping at what cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

SPECIAL = "not a regular file"


def walk(
    root: str, unreadable: Callable[[str, OSError], None]
) -> Iterator[tuple[str, list[os.DirEntry[str]], list[os.DirEntry[str]]]]:
    """Yield (path relative to `root` or "", its folders, everything else in it) for every folder, parents first.

    The caller prunes by removing entries from the list of folders. `unreadable(relative path, error)` is called for
    folders that cannot be listed. Links are never folders here, so a loop of links ends at its first one.
    """
    stack = [("", root)]
    while stack:
        relative, path = stack.pop()
        folders: list[os.DirEntry[str]] = []
        others: list[os.DirEntry[str]] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry)
        except OSError as error:
            unreadable(relative, error)
            continue
        yield relative, folders, others
        stack.extend((f"{relative}/{f.name}" if relative else f.name, f.path) for f in folders)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder that can be looked at; False, not an error, when the system refuses to say."""
    try:
        return path.is_dir()
    except OSError:
        return False


def children(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing when it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def open_regular(path: str) -> int:
    """A descriptor for reading a regular file: links are refused and a pipe that takes its place cannot block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, SPECIAL)
    return descriptor


def read_text(path: str, limit: int) -> str | None:
    """A small text file such as package metadata; None when it is missing, unreadable, a link, or over `limit` bytes.

    Undecodable bytes become U+FFFD: metadata is looked at word by word.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data.decode("utf-8", "replace") if len(data) <= limit else None
