"""Source `installed`, Python's part: the running interpreter's standard library and its installed distributions.

A distribution's files are those that its `RECORD` lists; its licence is what its metadata says, else what its licence
files say. Distributions installed for editing are left out (they are somebody's own project), and so is Kringle
itself, whose evaluation suites must never be trained on. Files that belong to no distribution are counted.
"""

from __future__ import annotations

import os
import platform
import re
import site
import sys
import sysconfig
from collections import Counter
from collections.abc import Collection
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

from kringle.data.languages import language_of_name
from kringle.data.license_metadata import from_distribution, is_imprecise
from kringle.data.license_texts import MAX_TEXT_BYTES, is_license_file
from kringle.data.licenses import UNRECOGNISED
from kringle.data.sources.candidates import Found, Lister
from kringle.data.sources.declared import declared_licenses
from kringle.data.sources.walk import children, is_folder, read_text, walk

STANDARD_LIBRARY = "installed/standard-library"
SITE_PACKAGES = "installed/site-packages"
STANDARD_LIBRARY_LICENSES = ("Python-2.0",)  # https://docs.python.org/3/license.html: the PSF licence and its stack
NO_OWNER = "belongs to no installed distribution"
_MAX_METADATA = 16_000_000  # bytes; RECORD of the largest distributions has a few megabytes
_SITES = ("site-packages", "dist-packages")


class Python(NamedTuple):
    """One interpreter: its name, version, standard library and folders of installed distributions."""

    name: str  # "cpython"
    version: str  # "3.11.7"
    standard_library: tuple[Path, ...]
    site_packages: tuple[Path, ...]


def running_python() -> Python:
    """The interpreter that runs this process."""
    library = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    sites = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    sites += [Path(entry) for entry in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        sites.append(Path(site.getusersitepackages()))
    return Python(sys.implementation.name, platform.python_version(), _distinct(library), _distinct(sites))


def _distinct(paths: list[Path]) -> tuple[Path, ...]:
    """Folders that exist, each once however it is spelled."""
    return tuple(dict.fromkeys(path.resolve() for path in paths if is_folder(path)))


def python_sources(python: Python, languages: Collection[str]) -> Found:
    """Candidates of the standard library and of every installed distribution."""
    library, distributions = Lister(STANDARD_LIBRARY, languages), Lister(SITE_PACKAGES, languages)
    for folder in python.standard_library:
        _standard_library(folder, python, library)
    for folder in python.site_packages:
        _site_packages(folder, distributions)
    library.found.extend(distributions.found)
    return library.found


def _standard_library(root: Path, python: Python, lister: Lister) -> None:
    repo = f"{python.name}-{'.'.join(python.version.split('.')[:2])}"
    installed = {str(folder) for folder in python.site_packages}
    for relative, folders, files in walk(str(root), lambda at, error: lister.unreadable(repo, at, error)):
        folders[:] = [f for f in folders if f.name not in (*_SITES, "__pycache__") and f.path not in installed]
        for entry in files:
            path = f"{relative}/{entry.name}" if relative else entry.name
            lister.add(entry, repo, path, STANDARD_LIBRARY_LICENSES, python.version)


class _Distribution(NamedTuple):
    name: str
    version: str
    licenses: tuple[str, ...]


def _site_packages(root: Path, lister: Lister) -> None:
    owners, tops = _owners(root)
    orphans: Counter[str] = Counter()
    for relative, folders, files in walk(str(root), lambda at, error: lister.unreadable(root.name, at, error)):
        folders[:] = [
            f for f in folders if f.name != "__pycache__" and not f.name.endswith((".dist-info", ".egg-info"))
        ]
        for entry in files:
            path = f"{relative}/{entry.name}" if relative else entry.name
            owner = owners[path] if path in owners else tops.get(path.partition("/")[0].removesuffix(".py"), _NOBODY)
            if owner is None:
                continue
            if owner is not _NOBODY:
                lister.add(entry, owner.name, path, owner.licenses, owner.version)
            elif language_of_name(entry.name) in lister.languages:
                orphans[path.partition("/")[0]] += 1
                lister.skip(root.name, path, NO_OWNER)
    if orphans:
        names = ", ".join(name for name, _ in orphans.most_common(5)) + (", ..." if len(orphans) > 5 else "")
        lister.found.notes.append(
            f"{root.name}: {orphans.total():,} files belong to no installed distribution, so their licence is unknown "
            f"and they are left out ({names})"
        )


_NOBODY = _Distribution("", "", ())


def _owners(root: Path) -> tuple[dict[str, _Distribution | None], dict[str, _Distribution | None]]:
    """Which distribution a path belongs to, and a top-level name where a distribution keeps no list of files.

    None stands for a distribution that is left out on purpose. Of two that claim one path the first by name has it.
    """
    owners: dict[str, _Distribution | None] = {}
    tops: dict[str, _Distribution | None] = {}
    infos = [entry for entry in children(root) if entry.name.endswith((".dist-info", ".egg-info"))]
    for info in infos:
        name, distribution = _distribution(info)
        paths = _files(info, root)
        if paths is not None:
            for path in paths:
                owners.setdefault(path, distribution)
        else:
            listed = (read_text(str(info / "top_level.txt"), _MAX_METADATA) or "").split() if info.is_dir() else []
            for top in listed or [re.sub(r"[-.]+", "_", name), name]:
                tops.setdefault(top, distribution)
    return owners, tops


def _distribution(info: Path) -> tuple[str, _Distribution | None]:
    """The name, and the distribution itself unless it is one that must be left out."""
    metadata = info if info.is_file() else info / ("METADATA" if info.suffix == ".dist-info" else "PKG-INFO")
    text = read_text(str(metadata), _MAX_METADATA) or ""
    head = HeaderParser().parsestr(re.split(r"\r?\n\r?\n", text, maxsplit=1)[0])
    stem = info.name.rpartition(".")[0]
    name = head.get("Name") or stem.partition("-")[0]
    version = head.get("Version") or stem.partition("-")[2]
    direct = read_text(str(info / "direct_url.json"), _MAX_METADATA) or ""
    if re.sub(r"[-_.]+", "-", name).lower() == "kringle" or re.search(r'"editable"\s*:\s*true', direct):
        return name, None
    licenses = from_distribution(
        head.get("License-Expression", ""), head.get_all("Classifier") or [], head.get("License", "")
    )
    if info.is_dir() and (not licenses or all(is_imprecise(e) for e in licenses)):
        licenses = _from_texts(info, head.get_all("License-File") or [], licenses)
    return name, _Distribution(name, version, licenses)


def _from_texts(info: Path, listed: list[str], family: tuple[str, ...]) -> tuple[str, ...]:
    """Licences by the texts that a distribution ships; a `family` (BSD, GPL) is only made more precise."""
    names = [name for name in listed if "/" not in name]
    names = names or [e.name for folder in (info, info / "licenses") for e in children(folder) if not is_folder(e)]

    def read(name: str) -> str | None:
        text = read_text(str(info / "licenses" / name), MAX_TEXT_BYTES)
        return text if text is not None else read_text(str(info / name), MAX_TEXT_BYTES)

    found = declared_licenses(filter(is_license_file, names), read)
    if not family:
        return found
    kin = tuple(e for e in found if any(e.startswith(f.removeprefix("LicenseRef-")) for f in family))
    return kin if kin and UNRECOGNISED not in found else family


def _first_field(line: str) -> str:
    """The first field of a line of comma-separated values, quoted or not."""
    return line[1:].partition('",')[0].replace('""', '"') if line.startswith('"') else line.partition(",")[0]


def _files(info: Path, root: Path) -> list[str] | None:
    """Paths below `root` that a distribution lists as its own, or None when it keeps no list."""
    if not info.is_dir():
        return None
    if (record := read_text(str(info / "RECORD"), _MAX_METADATA)) is not None:
        return [_first_field(line) for line in record.splitlines()]
    if (installed := read_text(str(info / "installed-files.txt"), _MAX_METADATA)) is not None:
        absolute = (os.path.normpath(f"{info}/{line}") for line in installed.splitlines() if line)
        return [path.removeprefix(f"{root}/") for path in absolute]
    return None
