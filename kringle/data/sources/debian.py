"""Source `debian`: upstream sources of Debian packages, with the licence that `debian/copyright` gives to each file.

A pinned list's packages come through apt, from the archives that this machine is configured with: their source indexes
are read into a folder of Kringle's own, so nothing of the system changes and no rights are needed. Or a folder holds
`.dsc` files with the archives that they name. Debian's own packaging is not collected.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kringle.data.debian_copyright import parse_copyright, read_copyright
from kringle.data.sources.archives import is_archive
from kringle.data.sources.cache import Pinned, cache_folder, is_cached, load_list, sha256
from kringle.data.sources.candidates import Found, printable
from kringle.data.sources.containers import Container
from kringle.data.sources.packages import keep
from kringle.errors import UserError

SOURCE = "debian"
MAX_DSC_BYTES = 1 << 20
_APT = Path("/etc/apt")
_PACKAGING = re.compile(r"\.debian\.tar\.\w+$")
_ORIG = re.compile(r"\.orig(?:-(?P<component>[A-Za-z0-9-]+))?\.tar\.\w+$")


class Package(NamedTuple):
    """A source package on disk: its upstream archives by component ("" the main one), and its packaging if apart."""

    name: str
    version: str
    archives: tuple[tuple[str, Path], ...]
    packaging: Path | None


def debian(text: str) -> Found:
    """The containers of a folder of source packages, or of a pinned list's, fetched where they are not cached yet."""
    folder = Path(text).expanduser()
    found = Found()
    if folder.is_dir():
        dscs = sorted(folder.glob("*.dsc"))
        if not dscs:
            raise UserError("holds no .dsc file", where=printable(text), hint="put the .dsc beside its archives")
        for package in [_from_dsc(path) for path in dscs]:
            _add(package, found)
        return found
    pinned = load_list(text, ("debian",))
    cache = cache_folder() / "debian"
    missing = [package for package in pinned if not is_cached(cache, package)]
    failures = _fetch(missing, cache)
    if failures:
        more = f" (and {len(failures) - 1} more packages)" if len(failures) > 1 else ""
        raise UserError(f"{failures[0]}{more}", where=f"debian {printable(text)}", hint="what came is kept; run again")
    for entry in pinned:
        _add(_package(entry.name, entry.version, [cache / name for name, _ in entry.files]), found)
    return found


def _package(name: str, version: str, files: Sequence[Path]) -> Package:
    archives = []
    packaging = None
    for file in files:
        if _PACKAGING.search(file.name):
            packaging = file
        elif match := _ORIG.search(file.name):
            archives.append((match["component"] or "", file))
        elif is_archive(file.name):
            archives.append(("", file))  # a native package: upstream and packaging in one
    return Package(name, version, tuple(archives), packaging)


def _from_dsc(path: Path) -> Package:
    """A source package from its description; files must be there with the checksums that it states."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:MAX_DSC_BYTES]
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=printable(str(path))) from None
    fields = dict(re.findall(r"^(Source|Version):\s*(\S+)", text, re.M))
    block = re.search(r"^Checksums-Sha256:\s*\n((?: .*\n?)+)", text, re.M)
    if "Source" not in fields or "Version" not in fields or block is None:
        raise UserError("is no description of a source package", where=printable(str(path)))
    files = []
    for line in block[1].splitlines():
        stated = line.split()
        if len(stated) != 3:
            what = f"has a checksum line without SHA-256, size and name: {line.strip()!r}"
            raise UserError(what, where=printable(str(path)))
        digest, _, name = stated
        file = path.parent / name
        if "/" in name or not file.is_file():
            raise UserError(f"names {name}, which is not beside it", where=printable(str(path)))
        if sha256(file) != digest:
            raise UserError(f"{name} has another SHA-256 than it states", where=printable(str(path)))
        files.append(file)
    return _package(fields["Source"], fields["Version"], files)


def _add(package: Package, found: Found) -> None:
    """Containers of one package; a note where nothing says which licences its files are under. `UserError` where none
    of its files is an archive of upstream's."""
    if not package.archives:
        raise UserError("no file is an archive with upstream sources", where=f"debian/{package.name} {package.version}")
    text = read_copyright(package.packaging or package.archives[0][1], package.packaging is not None)
    if text is None or parse_copyright(text) is None:
        what = "its debian/copyright is not machine-readable, so the licences of its files are unknown"
        found.notes.append(f"debian/{package.name}: {what}")
    for component, archive in package.archives:
        found.containers.append(
            Container(
                SOURCE, "archive", str(archive.resolve()), "", archive.stat().st_size, sha256(archive),
                f"{SOURCE}/{package.name}", component, package.version, (), 1,
                str(package.packaging.resolve()) if package.packaging else "", f"{SOURCE}/{archive.name}",
            )
        )  # fmt: skip


# -- apt ---------------------------------------------------------------------------------------------------------------


def _fetch(missing: Sequence[Pinned], cache: Path) -> list[str]:
    if not missing:
        return []
    if shutil.which("apt-get") is None:
        return [f"{missing[0].title}: there is no apt-get here, and the package is not in the cache {cache}"]
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kringle-apt-") as place:
        scratch = Path(place)
        options = _private_apt(scratch)
        reason = _run(["apt-get", *options, "update"], scratch)
        if reason is not None:
            return [f"apt's source indexes cannot be read ({reason})"]
        for package in missing:
            command = ["apt-get", *options, "source", "--download-only", "--only-source"]
            reason = _run([*command, f"{package.name}={package.version}"], scratch)
            if reason is not None:
                failures.append(f"{package.title} cannot be had from apt's archives ({reason})")
                continue
            for name, _ in package.files:
                if not (scratch / name).is_file():
                    failures.append(f"{package.title} has no file {name}")
                elif failure := keep(scratch / name, package, name, cache):
                    failures.append(failure)
    return failures


def _run(command: Sequence[str], place: Path) -> str | None:
    """Run apt; what went wrong, in its own words, or None."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return None
    lines = [line[3:] for line in done.stderr.splitlines() if line.startswith("E: ")]
    return (lines or done.stderr.splitlines() or [f"exit code {done.returncode}"])[0]


def _private_apt(scratch: Path) -> list[str]:
    """Options that make apt keep its state in `scratch` and read the source indexes of the configured archives."""
    for name in ("lists/partial", "cache/archives/partial", "sources"):
        (scratch / name).mkdir(parents=True)
    for number, (name, text) in enumerate(_source_lists()):
        (scratch / "sources" / f"{number:02d}{Path(name).suffix}").write_text(text, encoding="utf-8")
    settings = {
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": scratch / "sources",
        "APT::Sandbox::User": "",  # the scratch folder is this user's own
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _source_lists() -> Iterator[tuple[str, str]]:
    """The machine's apt sources, with source packages asked for instead of binary ones."""
    files = [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue  # not there, or not for this user's eyes: apt itself would not read it for us either
        if path.suffix == ".sources":
            yield path.name, re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
        elif path.suffix == ".list":
            lines = [re.sub(r"^\s*deb\s", "deb-src ", line) for line in text.splitlines()]
            yield path.name, "\n".join(dict.fromkeys(lines)) + "\n"
