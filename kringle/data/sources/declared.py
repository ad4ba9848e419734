"""The licences that a folder declares: its project metadata first, else the licence files that lie in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from email.parser import HeaderParser

from kringle.data.license_metadata import PROJECT_FILES, from_distribution, from_project_file, is_imprecise
from kringle.data.license_texts import is_license_file, recognise_file
from kringle.data.licenses import UNRECOGNISED

METADATA = ("PKG-INFO", "METADATA")  # of a Python source distribution, of a wheel
_INFO = re.compile(r"(?:^|/)[^/]+\.(?:dist-info|egg-info)$")


def declares(name: str) -> bool:
    """Whether a file of this name can say under which licence its folder is."""
    return name in PROJECT_FILES or name in METADATA or is_license_file(name)


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


def licenses_by_folder(declaring: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Licences by folder of an unpacked tree, from the texts of the files in it that declare any.

    `declaring` has name and text by folder. A distribution's metadata (`PKG-INFO` at its root, `METADATA` in a wheel's
    `.dist-info`) speaks for the root it belongs to, and a licence text beside it makes a family (`BSD`) precise.
    """
    found: dict[str, tuple[str, ...]] = {}
    roots: dict[str, tuple[str, ...]] = {}
    for folder, files in sorted(declaring.items()):
        texts = {name: text for name, text in files.items() if name not in METADATA}
        own = declared_licenses(texts, texts.get)
        for name in METADATA:
            if name in files:
                info = bool(_INFO.search(folder))
                root = folder.rpartition("/")[0] if info else folder
                stated = _of_metadata(files[name])
                if stated and (all(is_imprecise(e) for e in stated)):
                    kin = declaring.get(root, {}) if info else texts
                    exact = declared_licenses(kin, lambda file, kin=kin: kin.get(file))  # type: ignore[misc]
                    stated = more_precise(stated, exact or own)
                if stated:
                    roots.setdefault(root, stated)
        if own and not _INFO.search(folder):
            found[folder] = own
    return found | roots


def more_precise(family: tuple[str, ...], texts: tuple[str, ...]) -> tuple[str, ...]:
    """A family of licences (`LicenseRef-BSD`) by the members of it that licence texts name; else as it was."""
    kin = tuple(e for e in texts if any(e.startswith(f.removeprefix("LicenseRef-")) for f in family))
    return kin if kin and UNRECOGNISED not in texts else family


def _of_metadata(text: str) -> tuple[str, ...]:
    head = HeaderParser().parsestr(re.split(r"\r?\n\r?\n", text, maxsplit=1)[0])
    return from_distribution(
        head.get("License-Expression", ""), head.get_all("Classifier") or [], head.get("License", "")
    )
