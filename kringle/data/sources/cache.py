"""Where downloaded packages are kept, and the pinned lists that name them.

A list is a YAML mapping with the keys `pypi`, `npm` and `debian`, each a list of entries with `name`, `version` and
`sha256`: the checksum of the one file of a package, or of each file by name. Nothing that does not match is used. What
is in the cache already needs no network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from kringle.errors import UserError
from kringle.strict_yaml import parse_yaml

KINDS = ("pypi", "npm", "debian")
_BLOCK = 1 << 20


class Pinned(NamedTuple):
    """One package of a list: `files` are names and SHA-256, all of which must be there."""

    kind: str
    name: str
    version: str
    files: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def cache_folder() -> Path:
    """`$KRINGLE_CACHE`, else `kringle` in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    own = os.environ.get("KRINGLE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kringle"


def sha256(path: Path) -> str:
    """The checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_cached(folder: Path, package: Pinned) -> bool:
    """Whether all files of a package lie in `folder` with the right checksums."""
    return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in package.files)


def load_list(text: str, kinds: tuple[str, ...]) -> list[Pinned]:
    """The packages of these kinds on a list: a shipped one by name, or a file. Raises `UserError`."""
    path = Path(text).expanduser()
    shipped = resources.files("kringle.recipes") / "packages" / f"{text}.yaml"
    try:
        if path.is_file():
            content = path.read_text(encoding="utf-8")
        elif "/" not in text and shipped.is_file():
            content = shipped.read_text(encoding="utf-8")
        else:
            known = sorted(
                p.name.removesuffix(".yaml") for p in (resources.files("kringle.recipes") / "packages").iterdir()
            )
            raise UserError("no such list of packages", where=text, hint=f"give a file, or one of {', '.join(known)}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=text) from None
    raw = parse_yaml(content, text)
    if not isinstance(raw, dict) or not set(raw) <= set(KINDS):
        raise UserError(f"is no list of packages: a mapping with {', '.join(KINDS)}", where=text)
    for kind, listed in raw.items():
        if listed is not None and not isinstance(listed, list):
            raise UserError(f"expected a list of packages, got {listed!r}", where=f"{text}: {kind}")
    entries = [(kind, entry) for kind in kinds for entry in raw.get(kind) or ()]
    if not entries:
        raise UserError(f"names no package under {' or '.join(kinds)}", where=text)
    return [_pinned(kind, entry, f"{text}: {kind}[{number}]") for number, (kind, entry) in enumerate(entries)]


def _pinned(kind: str, entry: Any, where: str) -> Pinned:
    known = {"name", "version", "sha256", "file"}
    if not isinstance(entry, dict) or not {"name", "version", "sha256"} <= set(entry) <= known:
        raise UserError(f"expected name, version and sha256 (and file), got {entry!r}", where=where)
    name, version, digest = str(entry["name"]), str(entry["version"]), entry["sha256"]
    if isinstance(digest, Mapping):
        files = tuple((str(file), str(value)) for file, value in digest.items())
    else:
        plain = name.removeprefix("@").replace("/", "-")
        default = f"{plain}-{version}.tgz" if kind == "npm" else f"{name}-{version}.tar.gz"
        files = ((str(entry.get("file", default)), str(digest)),)
    for file, value in files:
        if "/" in file or not file.strip(".") or len(value) != 64:
            raise UserError(f"not a file's name with its SHA-256: {file!r}: {value!r}", where=where)
    if not files or (kind != "debian" and len(files) > 1):
        one = "the files" if kind == "debian" else "the one file"
        raise UserError(f"expected the SHA-256 of {one} of {name}, got {digest!r}", where=where)
    return Pinned(kind, name, version, files)
