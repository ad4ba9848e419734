"""Source `folder`: a directory tree with any number of repositories in it, or none.

A sub-directory with `.git` is a repository of its own. Elsewhere a top-level sub-directory is one, and files that lie
loose at the top belong to one named like the folder. The licence of a file is what the nearest directory above it
declares, up to the folder itself but never across the border of a git repository. The working tree is read as it is:
git is not asked (source `git` does), so ignored files count. Archives are opened: what they hold lies at the archive's
path, as if it were a folder, under the licences that they declare themselves, else under those of their place.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from kringle.data.license_texts import MAX_TEXT_BYTES
from kringle.data.sources.archives import ENDINGS, is_archive, is_named
from kringle.data.sources.candidates import Found, Lister, printable
from kringle.data.sources.containers import Container
from kringle.data.sources.declared import declared_licenses, declares
from kringle.data.sources.walk import children, read_text, walk
from kringle.errors import UserError

INSTALLED = "installed packages, not this folder's own code"
BUILT = "build output"
CACHE = "a tool's own files"
UNMENTIONED = ""  # not worth a word: nobody looks for source code there

_BY_NAME = {
    **dict.fromkeys((".git", ".hg", ".svn", ".bzr", ".jj", "__pycache__"), UNMENTIONED),
    **dict.fromkeys(("node_modules", "bower_components", "site-packages", "dist-packages", ".venv"), INSTALLED),
    **dict.fromkeys((".tox", ".nox", ".eggs", ".gradle", ".mypy_cache", ".pytest_cache", ".ruff_cache"), CACHE),
    **dict.fromkeys((".hypothesis", ".ipynb_checkpoints", ".next", ".nuxt", ".svelte-kit", ".parcel-cache"), CACHE),
}
_OUTPUTS = frozenset(("build", "dist", "target", "out"))  # build output, but only where a build is described
_BUILDS = frozenset(
    ("setup.py", "pyproject.toml", "package.json", "pom.xml", "build.gradle", "build.gradle.kts", "Cargo.toml")
)


def _archive(path: Path) -> Found:
    """One archive given as the source: a repository named like it."""
    status = path.stat()
    name = next(path.name[: -len(end)] for end in sorted(ENDINGS, key=len, reverse=True) if is_named(path.name, end))
    found = Found()
    found.containers.append(
        Container(
            "folder", "archive", str(path), "", status.st_size, str(status.st_mtime_ns), printable(name or path.name)
        )
    )
    return found


class _Place(NamedTuple):
    """What a directory passes on: its repository, where that begins, whether git keeps it, and the licences."""

    repo: str
    root: str
    git: bool
    licenses: tuple[str, ...]


def folder(path: Path, languages: Collection[str]) -> Found:
    """Candidates of a directory tree. Raises `UserError` when `path` is not a directory that can be listed."""
    try:
        if not path.expanduser().exists():
            raise UserError("no such folder", where=printable(str(path)), hint="check the path given as source")
        path = path.expanduser().resolve()
        if path.is_file() and is_archive(path.name):
            return _archive(path)
        if not path.is_dir():
            raise UserError(
                "is a file, not a folder", where=printable(str(path)), hint="give the folder that it lies in"
            )
        top = {entry.name for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()}
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=printable(str(path)), hint="check its permissions"
        ) from None

    name = path.name or "root"
    lister = Lister("folder", languages)
    # A sub-directory named like the folder must not be taken for the loose files beside it.
    places = {"": _Place(name if name not in top else f"{name}/.", "", False, ())}
    for relative, folders, files in walk(str(path), lambda at, error: lister.unreadable(name, at, error)):
        names = {entry.name for entry in files}
        place = places.pop(relative)
        if relative and "pyvenv.cfg" in names:
            lister.skip(place.repo, _inside(place, relative), INSTALLED)
            folders.clear()
            continue
        if relative and "workspace.json" in names and any(entry.name == "stages" for entry in folders):
            folders.clear()  # a workspace of Kringle's: naming what it holds would change the corpus with every run
            continue
        place = _enter(place, relative, name, names, {entry.name for entry in folders}, path / relative)
        for entry in folders[:]:
            reason = _left_out(entry.name, names, entry.path)
            if reason is not None:
                folders.remove(entry)
                if reason is not UNMENTIONED:
                    lister.skip(place.repo, _inside(place, _join(relative, entry.name)), reason)
        for entry in folders:
            places[_join(relative, entry.name)] = place
        for entry in files:
            inside = _inside(place, _join(relative, entry.name))
            if is_archive(entry.name):
                lister.add_archive(entry, place.repo, inside, place.licenses)
            else:
                lister.add(entry, place.repo, inside, place.licenses, "")
    return lister.found


def _enter(place: _Place, relative: str, name: str, files: set[str], folders: set[str], path: Path) -> _Place:
    """What holds inside the directory `relative`, given what its parent passed on."""
    if ".git" in files or ".git" in folders:
        # Inside another git repository this one is vendored or a submodule: that repository's licence is not its own.
        place = _Place(relative or name, relative, True, () if place.git else place.licenses)
    elif relative and "/" not in relative and not place.git:
        place = place._replace(repo=relative, root=relative)
    licenses = declared_licenses(filter(declares, files), lambda file: read_text(str(path / file), MAX_TEXT_BYTES))
    return place._replace(licenses=licenses) if licenses else place


def _join(relative: str, name: str) -> str:
    return f"{relative}/{name}" if relative else name


def _inside(place: _Place, relative: str) -> str:
    """The path inside the repository of a path inside the folder."""
    return relative.removeprefix(f"{place.root}/") if place.root else relative


def _left_out(name: str, siblings: set[str], path: str) -> str | None:
    """Why a directory is not entered, or None when it is entered."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.endswith((".egg-info", ".dist-info")):
        return UNMENTIONED
    if name in _OUTPUTS and siblings & _BUILDS and Path(path) / "__init__.py" not in children(Path(path)):
        return BUILT
    return None
