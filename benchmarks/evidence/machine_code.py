"""The source code that lies on this machine: what long proofs run over.

Every regular file below some roots whose name says that it is code, and the members of a JDK's `src.zip`, each distinct
content once. The order is that of a hash of the content, so any prefix is a random sample that does not depend on where
things are installed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".java": "java", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".hpp": "c++", ".cs": "c#", ".go": "go", ".lua": "lua",
    ".php": "php", ".pl": "perl", ".pm": "perl", ".rb": "ruby", ".rs": "rust", ".sh": "shell", ".tcl": "tcl",
    ".ts": "typescript", ".tsx": "typescript",
}  # fmt: skip
THREE = ("python", "java", "javascript")
# Not code of this machine: the system's own views, and scratch.
SKIPPED = frozenset(("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp"))


class Source(NamedTuple):
    """One distinct content: where it lies (in a zip archive, `member` names it), its language, size and SHA-1."""

    digest: str
    language: str
    size: int
    path: Path
    member: str = ""

    def read(self) -> bytes:
        if not self.member:
            return self.path.read_bytes()
        return _archive(self.path).read(self.member)


@functools.cache
def _archive(path: Path) -> zipfile.ZipFile:
    """Opening one reads its table of contents: once is enough."""
    return zipfile.ZipFile(path)


def sources(roots: Collection[Path], languages: Collection[str], leave_out: Collection[Path] = ()) -> list[Source]:
    """Each distinct file below `roots` in one of the languages, ordered by the hash of its content."""
    found: dict[str, Source] = {}
    for path, member, data in _files(roots, languages, frozenset(map(str, leave_out)) | SKIPPED):
        digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        found.setdefault(digest, Source(digest, LANGUAGES[Path(member or path).suffix], len(data), path, member))
    return [found[digest] for digest in sorted(found)]


def _files(
    roots: Collection[Path], languages: Collection[str], leave_out: Collection[str]
) -> Iterator[tuple[Path, str, bytes]]:
    endings = {ending for ending, language in LANGUAGES.items() if language in languages}
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if str(Path(folder, name)) not in leave_out)
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file():
                    continue
                if path.suffix in endings and os.access(path, os.R_OK):
                    yield path, "", path.read_bytes()
                elif name == "src.zip":
                    with zipfile.ZipFile(path) as archive:
                        for item in sorted(archive.namelist()):
                            if Path(item).suffix in endings:
                                yield path, item, archive.read(item)
