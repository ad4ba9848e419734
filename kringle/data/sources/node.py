"""Source `installed`, Node's part: the packages in the global `node_modules` folders, found without running Node.

A package is a folder directly below a `node_modules` (or below a scope in it); packages nested in it are packages of
their own. Its licence is what its `package.json` says, else what its licence files say.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from kringle.data.license_metadata import from_package_json
from kringle.data.license_texts import MAX_TEXT_BYTES, is_license_file
from kringle.data.sources.candidates import SYMLINK, Found, Lister
from kringle.data.sources.declared import declared_licenses
from kringle.data.sources.walk import is_folder, read_text, walk

SOURCE = "installed/node"
_PLACES = (
    "/usr/lib/node_modules",
    "/usr/share/nodejs",
    "/usr/local/lib/node_modules",
    "/opt/homebrew/lib/node_modules",
)


def find_node_modules() -> tuple[Path, ...]:
    """Folders of globally installed Node packages: beside `node` and `npm`, in NODE_PATH, in the usual places."""
    places = [Path(place) for place in _PLACES]
    places += [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if node := shutil.which("node"):
        places.append(Path(node).resolve().parent.parent / "lib" / "node_modules")
    if npm := shutil.which("npm"):
        places += [parent for parent in Path(npm).resolve().parents if parent.name == "node_modules"]
    found = dict.fromkeys(place.resolve() for place in places if is_folder(place))
    return tuple(place for place in found if not any(parent in found for parent in place.parents))


def node_sources(node_modules: Collection[Path], languages: Collection[str]) -> Found:
    """Candidates of every package in these folders and of the packages nested in them."""
    lister = Lister(SOURCE, languages)
    pending = [str(folder) for folder in node_modules]
    while pending:
        for package in _packages(pending.pop(), lister):
            pending += _package(package, lister)
    return lister.found


def _packages(node_modules: str, lister: Lister) -> list[str]:
    """Folders of the packages directly in a `node_modules`, scopes opened up."""
    found: list[str] = []
    scopes = [node_modules]
    while scopes:
        folder = scopes.pop()
        name = Path(folder).name
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        lister.skip(name, entry.name, SYMLINK)
                    elif entry.is_dir() and not entry.name.startswith("."):
                        (scopes if entry.name.startswith("@") else found).append(entry.path)
        except OSError as error:
            lister.unreadable(name, "", error)
    return found


def _package(root: str, lister: Lister) -> list[str]:
    """List one package; returns the `node_modules` folders nested in it."""
    text = read_text(f"{root}/package.json", MAX_TEXT_BYTES)
    try:
        described = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        described = {}
    described = described if isinstance(described, dict) else {}
    folder = Path(root)
    default = f"{folder.parent.name}/{folder.name}" if folder.parent.name.startswith("@") else folder.name
    name = described["name"] if isinstance(described.get("name"), str) and described["name"] else default
    version = described["version"] if isinstance(described.get("version"), str) else ""
    licenses = from_package_json(described)
    nested: list[str] = []
    for relative, folders, files in walk(root, lambda at, error: lister.unreadable(name, at, error)):
        if not relative and not licenses:
            names = [entry.name for entry in files if is_license_file(entry.name)]
            licenses = declared_licenses(names, lambda file: read_text(f"{root}/{file}", MAX_TEXT_BYTES))
        nested += [f.path for f in folders if f.name == "node_modules"]
        folders[:] = [f for f in folders if f.name not in ("node_modules", "__pycache__")]
        for entry in files:
            lister.add(entry, name, f"{relative}/{entry.name}" if relative else entry.name, licenses, version)
    return nested
