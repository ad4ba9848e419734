"""Machine-readable `debian/copyright` files: which licence each file of a source package is under.

The format is Debian's DEP-5, "Machine-readable debian/copyright file", version 1.0: paragraphs of fields; a `Files`
paragraph holds patterns in which `*` and `?` match anything, slashes too, and a backslash makes either (or itself)
plain; the last paragraph that matches a file decides. A package whose file is not in this format has no known licence.
"""

from __future__ import annotations

import functools
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kringle.data.license_metadata import from_value
from kringle.data.licenses import LicenseSyntaxError, normalise
from kringle.data.sources.containers import Container

COPYRIGHT = "debian/copyright"
MAX_BYTES = 8 << 20  # the longest in Debian has a few megabytes

# Short names of DEP-5 (section "Short name") and those that packages use in practice, where SPDX spells them otherwise.
_SHORT_NAMES = {
    "expat": "MIT",
    "mit": "MIT",
    "mit/x11": "MIT",
    "x11": "X11",
    "apache": "Apache-2.0",
    "apache-1.1": "Apache-1.1",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "asl-2.0": "Apache-2.0",
    "asl-2": "Apache-2.0",
    "artistic": "Artistic-1.0",
    "bsd": "LicenseRef-BSD",
    "bsd-2": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "freebsd": "BSD-2-Clause",
    "cc0": "CC0-1.0",
    "isc": "ISC",
    "psf": "PSF-2.0",
    "psf-2": "PSF-2.0",
    "python": "Python-2.0",
    "python-2.0": "Python-2.0",
    "public-domain": "LicenseRef-Public-Domain",
    "w3c": "W3C",
    "w3c-software": "W3C",
    "zlib": "Zlib",
    "zope": "ZPL-2.1",
    "perl": "Artistic-1.0-Perl OR GPL-1.0-or-later",
    "mpl": "MPL-2.0",
    "boost": "BSL-1.0",
    "boost-1.0": "BSL-1.0",
}
_GNU = re.compile(r"(A|L)?GPL(?:-(\d(?:\.\d)?)(?:\.0)?)?(\+)?", re.I)
_PLAIN = re.compile(r"[A-Za-z0-9.+/~_-]+")


class Paragraph(NamedTuple):
    """The patterns of a `Files` paragraph and the licence that they are under, as SPDX expressions that all apply."""

    patterns: tuple[re.Pattern[str], ...]
    licenses: tuple[str, ...]


def parse_copyright(text: str) -> tuple[Paragraph, ...] | None:
    """The `Files` paragraphs in order; None when the file is not in the machine-readable format."""
    paragraphs = list(_paragraphs(text))
    header = paragraphs[0] if paragraphs else {}
    named = f"{header.get('format', '')} {header.get('format-specification', '')}".lower()
    if "copyright-format" not in named and "dep5" not in named:
        return None
    return tuple(
        Paragraph(
            tuple(_pattern(word) for word in fields["files"].split()),
            spdx(fields.get("license", "").split("\n", 1)[0]),
        )
        for fields in paragraphs[1:]
        if "files" in fields
    )


def license_of(path: str, paragraphs: tuple[Paragraph, ...]) -> tuple[str, ...]:
    """Licences of a file by its path in the source package: those of the last paragraph that matches."""
    for paragraph in reversed(paragraphs):
        if any(pattern.fullmatch(path) for pattern in paragraph.patterns):
            return paragraph.licenses
    return ()


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Fields by name in lower case; a line that begins with a blank goes on with the field above."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += f"\n{line.strip()}"
        elif not line.startswith("#"):
            name, colon, value = line.partition(":")
            name = name.strip().lower() if colon else ""
            if name:
                fields[name] = value.strip()
    if fields:
        yield fields


def _pattern(word: str) -> re.Pattern[str]:
    """A pattern as DEP-5 has it; no class of characters, no brace."""
    parts: list[str] = []
    position = 0
    word = word.removeprefix("./").rstrip(",")  # a comma between patterns is a common slip
    while position < len(word):
        character = word[position]
        if character == "\\" and word[position + 1 : position + 2] in ("*", "?", "\\"):
            position += 1
            parts.append(re.escape(word[position]))
        else:
            parts.append({"*": ".*", "?": "."}.get(character) or re.escape(character))
        position += 1
    return re.compile("".join(parts), re.S)


def spdx(synopsis: str) -> tuple[str, ...]:
    """A licence synopsis (`Expat`, `GPL-2+ or Artistic`, `A and B, or C`) as SPDX; () when it says nothing.

    `and` binds tighter than `or`; a comma before either makes it bind loosest, as DEP-5 has it. A name that is neither
    in DEP-5 nor in SPDX becomes a `LicenseRef` of Debian's, which is not permissive.
    """
    text = " ".join(synopsis.split())
    if not text:
        return ()
    try:
        return (normalise(_expression(text)),)
    except LicenseSyntaxError:
        return (_reference(text),)


def _expression(text: str) -> str:
    for separator, operator in (
        (r",\s*or\s+", "OR"),
        (r",\s*and\s+", "AND"),
        (r"\s+or\s+", "OR"),
        (r"\s+and\s+", "AND"),
    ):
        parts = re.split(separator, text, flags=re.I)
        if len(parts) > 1:
            return f" {operator} ".join(f"({_expression(part.strip())})" for part in parts)
    return _name(text)


def _name(text: str) -> str:
    name, _, exception = re.sub(r"\s+exception$", "", text, flags=re.I).partition(" with ")
    name = name.strip()
    known = _SHORT_NAMES.get(name.lower()) or _gnu(name)
    if known is None:
        found = from_value(name) if _PLAIN.fullmatch(name) else ()
        known = found[0] if len(found) == 1 else _reference(name)
    if exception and " " not in known:
        return f"{known} WITH {re.sub(r'[^A-Za-z0-9.-]+', '-', exception).strip('-')}-exception"
    return known


def _gnu(name: str) -> str | None:
    match = _GNU.fullmatch(name)
    if match is None:
        return None
    family = f"{(match[1] or '').upper()}GPL"
    if match[2] is None:
        return f"LicenseRef-{family}"
    version = match[2] if "." in match[2] else f"{match[2]}.0"
    return f"{family}-{version}-{'or-later' if match[3] else 'only'}"


def _reference(name: str) -> str:
    return f"LicenseRef-Debian-{re.sub(r'[^A-Za-z0-9.-]+', '-', name).strip('-') or 'unnamed'}"


def licenses_of_container(container: Container) -> Callable[[str], tuple[str, ...]]:
    """Licence by member of an upstream archive, from the packaging archive (`container.also`) that goes with it, or
    from the archive itself where that is the whole package."""
    paragraphs = _of_archive(container.also or container.place, container.stamp, bool(container.also))

    def of(member: str) -> tuple[str, ...]:
        path = "/".join(member.split("/")[container.strip :])
        # A further upstream archive is unpacked into a folder of its name, which its members' patterns begin with.
        return license_of(f"{container.prefix}/{path}" if container.prefix else path, paragraphs)

    return of


@functools.lru_cache(maxsize=8)
def _of_archive(place: str, stamp: str, packaging: bool) -> tuple[Paragraph, ...]:
    """The paragraphs of `debian/copyright` in a packaging archive, or below the top folder of a whole package."""
    text = read_copyright(Path(place), packaging)
    return (parse_copyright(text) if text is not None else None) or ()


def read_copyright(archive: Path, packaging: bool) -> str | None:
    """The text of `debian/copyright`; None when there is none, or the archive cannot be read."""
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                name = member.name.removeprefix("./")
                name = name if packaging else name.partition("/")[2]
                if name == COPYRIGHT and member.isfile() and member.size <= MAX_BYTES:
                    file = members.extractfile(member)
                    return None if file is None else file.read().decode("utf-8", "replace")
    except (OSError, EOFError, tarfile.TarError):
        return None
    return None
