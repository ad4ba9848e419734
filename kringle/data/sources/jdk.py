"""Source `installed`, Java's part: the `src.zip` of every JDK found, each once however many links lead to it.

A JDK's sources are under GPL-2.0 with the Classpath exception, so a permissive corpus leaves them out; the note says
how to let them in. Debian ships a `src.zip` that is a link to nowhere until the package with the sources is installed.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from kringle.data.languages import language_of_name
from kringle.data.license_texts import MAX_TEXT_BYTES, recognise_file
from kringle.data.sources.candidates import Candidate, Found, Lister, printable
from kringle.data.sources.walk import children, is_folder, read_text

SOURCE = "installed/jdk"
JDK_LICENSE = "GPL-2.0-only WITH Classpath-exception-2.0"
_PARENTS = ("/usr/lib/jvm", "/usr/java", "/opt/java", "/Library/Java/JavaVirtualMachines", "~/.sdkman/candidates/java")


def find_jdks() -> tuple[Path, ...]:
    """Home folders of JDKs: JAVA_HOME, the real place of `java` on PATH, and the usual parents of both systems."""
    homes = [Path(home) for home in [os.environ.get("JAVA_HOME", "")] if home]
    if java := shutil.which("java"):
        homes.append(Path(java).resolve().parent.parent)
    for parent in (Path(p).expanduser() for p in _PARENTS):
        homes += [home for entry in children(parent) for home in (entry, entry / "Contents" / "Home")]
    return tuple(dict.fromkeys(home.resolve() for home in homes if is_folder(home)))


def jdk_sources(homes: Collection[Path], languages: Collection[str]) -> Found:
    """Candidates of the `src.zip` of these JDKs."""
    lister = Lister(SOURCE, languages)
    seen: set[Path] = set()
    missing: list[str] = []
    for home in homes:
        archives = [place for place in (home / "lib" / "src.zip", home / "src.zip") if os.path.lexists(place)]
        found = [archive.resolve() for archive in archives if os.access(archive, os.R_OK)]
        if found and found[0] not in seen:
            seen.add(found[0])
            _archive(found[0], home, lister)
        elif archives and not found:
            missing.append(home.name)
    if missing:
        lister.found.notes.append(
            f"{', '.join(missing)}: src.zip is a link to nowhere, so there is no Java source to read "
            "(Debian has it in the package openjdk-...-source)"
        )
    return lister.found


def _archive(archive: Path, home: Path, lister: Lister) -> None:
    release = dict(_release(home))
    version = release.get("JAVA_VERSION", "")
    repo = f"jdk-{version}" if version else f"jdk-{home.name}"
    text = next((t for t in (read_text(str(p), MAX_TEXT_BYTES) for p in _license_places(home)) if t), None)
    licenses = recognise_file(text) if text is not None else (JDK_LICENSE,)
    try:
        modified = archive.stat().st_mtime_ns
        with zipfile.ZipFile(archive) as members:
            infos = members.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        lister.skip(repo, archive.name, f"unreadable: {error}")
        return
    for info in infos:
        language = language_of_name(info.filename)
        if not info.is_dir() and lister.wanted(language, info.filename):
            assert language is not None
            lister.found.candidates.append(
                Candidate(
                    SOURCE, printable(repo), printable(info.filename), language, info.file_size, modified,
                    licenses, printable(version), None, "zip", str(archive), info.filename,
                )
            )  # fmt: skip


def _release(home: Path) -> Iterator[tuple[str, str]]:
    """Key and value of every line of a JDK's `release` file."""
    for line in (read_text(str(home / "release"), MAX_TEXT_BYTES) or "").splitlines():
        key, _, value = line.partition("=")
        yield key.strip(), value.strip().strip('"')


def _license_places(home: Path) -> Iterator[Path]:
    yield from (home / "legal" / "java.base" / "LICENSE", home / "LICENSE")
