"""The licences that a folder declares: its project metadata first, else the licence files that lie in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kringle.data.license_metadata import PROJECT_FILES, from_project_file
from kringle.data.license_texts import is_license_file, recognise_file
from kringle.data.licenses import UNRECOGNISED


def declares(name: str) -> bool:
    """Whether a file of this name can say under which licence its folder is."""
    return name in PROJECT_FILES or is_license_file(name)


def declared_licenses(names: Iterable[str], read: Callable[[str], str | None]) -> tuple[str, ...]:
    """SPDX expressions that a folder with files `names` states for itself, all of which apply; () when it is silent.

    `read(name)` gives a file's text, or None where it cannot be read. Metadata is taken before licence texts because
    only it can say that one of several licences may be chosen.
    """
    names = sorted(names)
    metadata = [from_project_file(name, read(name) or "") for name in names if name in PROJECT_FILES]
    if found := dict.fromkeys(e for expressions in metadata for e in expressions):
        return tuple(found)
    texts = [read(name) for name in names if is_license_file(name)]
    recognised = [(UNRECOGNISED,) if text is None else recognise_file(text) for text in texts]
    return tuple(dict.fromkeys(e for expressions in recognised for e in expressions))
