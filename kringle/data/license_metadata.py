"""What package metadata says about its licence, as SPDX expressions.

Python distributions: `License-Expression` first, then trove classifiers, then the free-text `License` field. Node
packages: `license` or the older `licenses`. Projects: `pyproject.toml`, `setup.cfg`, `package.json`. A value that
cannot be read yields nothing rather than a guess; several classifiers all apply, because nothing says that one may be
chosen.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from kringle.data import license_texts
from kringle.data.licenses import PROPRIETARY, UNRECOGNISED, LicenseSyntaxError, is_known, normalise, parse, render

# Trove classifiers below "License ::". Those that name no version or variant get a
# LicenseRef of their family; the licence files may then tell which one it is.
_CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-1.0",
    "Blue Oak Model License (BlueOak-1.0.0)": "BlueOak-1.0.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "BSD License": "LicenseRef-BSD",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "CEA CNRS Inria Logiciel Libre License, version 2.1 (CeCILL-2.1)": "CECILL-2.1",
    "CeCILL-B Free Software License Agreement (CECILL-B)": "CECILL-B",
    "CeCILL-C Free Software License Agreement (CECILL-C)": "CECILL-C",
    "Common Development and Distribution License 1.0 (CDDL-1.0)": "CDDL-1.0",
    "Common Public License": "CPL-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "Educational Community License, Version 2.0 (ECL-2.0)": "ECL-2.0",
    "European Union Public Licence 1.1 (EUPL 1.1)": "EUPL-1.1",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License (GPL)": "LicenseRef-GPL",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LicenseRef-LGPL",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "IBM Public License": "IPL-1.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.0 (MPL)": "MPL-1.0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Mulan Permissive Software License v2 (MulanPSL-2.0)": "MulanPSL-2.0",
    "Open Software License 3.0 (OSL-3.0)": "OSL-3.0",
    "Other/Proprietary License": PROPRIETARY,
    "PostgreSQL License": "PostgreSQL",
    "Public Domain": "LicenseRef-Public-Domain",
    "Python License (CNRI Python License)": "CNRI-Python",
    "Python Software Foundation License": "PSF-2.0",
    "SIL Open Font License 1.1 (OFL-1.1)": "OFL-1.1",
    "Sleepycat License": "Sleepycat",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "W3C License": "W3C",
    "X.Net License": "Xnet",
    "Zero-Clause BSD (0BSD)": "0BSD",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}

# Free text as people write it, reduced by `_key`; one line per licence.
_SPELLINGS = {
    "MIT": "mit, expat, mit expat, mit x11, mit style, opensource org mit",
    "MIT-0": "mit 0, mit no attribution",
    "Apache-2.0": (
        "apache 2, apache 2 0, apache software 2 0, apache software, apache, asl 2, asl 2 0, al2, apache2, apache2 0, "
        "apache software foundation"
    ),
    "LicenseRef-BSD": "bsd, bsd style, bsd like, modified or new bsd",
    "BSD-2-Clause": "bsd 2, bsd 2 clause, 2 clause bsd, simplified bsd, bsd simplified, freebsd, bsd2, two clause bsd",
    "BSD-3-Clause": (
        "bsd 3, bsd 3 clause, 3 clause bsd, new bsd, modified bsd, bsd new, bsd modified, revised bsd, bsd3, "
        "bsd3clause, three clause bsd, bsd 3 clause new or revised, bsd new or revised, new style bsd"
    ),
    "ISC": "isc, iscl, isc iscl",
    "PSF-2.0": "psf, psf 2, psf 2 0, psfl, python software foundation, psf python software foundation",
    "Python-2.0": "python, python 2 0, python style",
    "Zlib": "zlib, zlib libpng",
    "ZPL-2.1": "zpl, zpl 2 1, zope public, zope public 2 1",
    "ZPL-2.0": "zpl 2 0, zope public 2 0",
    "Unlicense": "unlicense",
    "CC0-1.0": "cc0, cc0 1 0, cc0 1 0 universal, creative commons zero 1 0 universal",
    "WTFPL": "wtfpl, do what the fuck you want to public, wtfpl 2",
    "BSL-1.0": "boost, bsl 1 0, boost software 1 0, boost software",
    "HPND": "hpnd, historical permission notice and disclaimer, pil software",
    "PostgreSQL": "postgresql",
    "NCSA": "ncsa, uiuc, university of illinois ncsa",
    "UPL-1.0": "upl, upl 1 0, universal permissive",
    "Artistic-2.0": "artistic 2, artistic 2 0",
    "LicenseRef-Public-Domain": "public domain, publicdomain, pd",
    "LicenseRef-GPL": "gpl, gnu gpl, gnu general public, gnu public",
    "GPL-2.0-only": "gpl2, gpl 2, gpl 2 0, gnu gpl 2, gnu general public 2, gplv2, gnu gplv2",
    "GPL-2.0-or-later": "gplv2+, gpl2+, gpl 2+, gpl 2 or later, gnu gpl 2 or later, gnu gplv2 or later",
    "GPL-3.0-only": "gpl3, gpl 3, gpl 3 0, gnu gpl 3, gnu general public 3, gplv3, gnu gplv3, gnu gpl 3 0",
    "GPL-3.0-or-later": "gplv3+, gpl3+, gpl 3+, gpl 3 or later, gnu gpl 3 or later, gnu gplv3 or later",
    "LicenseRef-LGPL": "lgpl, gnu lgpl, gnu lesser general public, lesser general public",
    "LGPL-2.1-only": "lgpl 2 1, lgplv2 1, gnu lgpl 2 1, lgpl2 1",
    "LGPL-2.1-or-later": "lgpl 2 1+, lgplv2 1+, lgplv2+, lgpl 2 1 or later",
    "LGPL-3.0-only": "lgpl3, lgpl 3, lgpl 3 0, lgplv3, gnu lgpl 3, gnu lesser general public 3, gnu lgplv3",
    "LGPL-3.0-or-later": "lgplv3+, lgpl 3+, lgpl 3 or later, gnu lgplv3+",
    "LicenseRef-AGPL": "agpl, gnu agpl, gnu affero general public, affero gpl",
    "AGPL-3.0-only": "agpl3, agpl 3, agpl 3 0, agplv3, gnu agpl 3, gnu affero general public 3, gnu agplv3",
    "AGPL-3.0-or-later": "agplv3+, agpl 3+, agpl 3 or later, agpl 3 0 or later",
    "MPL-2.0": "mpl, mpl 2, mpl 2 0, mozilla public, mozilla public 2 0, mplv2, mplv2 0, mozilla public 2 0 mpl 2 0",
    "MPL-1.1": "mpl 1 1, mozilla public 1 1",
    "EPL-1.0": "epl, epl 1 0, eclipse public 1 0",
    "EPL-2.0": "epl 2 0, eclipse public 2 0",
    "EUPL-1.2": "eupl, eupl 1 2",
    "CDDL-1.0": "cddl, cddl 1 0",
    PROPRIETARY: (
        "proprietary, commercial, other proprietary, closed source, nvidia proprietary software, all rights reserved, "
        "private, copyright, unlicensed"
    ),
}

_NOISE = "the license licence licensed under version v open source approved osi a an of terms"
_NOISE_WORDS = frozenset(_NOISE.split())
_FAMILIES = frozenset({"LicenseRef-BSD", "LicenseRef-GPL", "LicenseRef-LGPL", "LicenseRef-AGPL"})
_LONG = 200  # characters; a longer `License` field is a licence text, not a name


def _key(text: str) -> str:
    """The telling words of a licence's name, each once: `The MIT License (MIT)` -> `mit`."""
    text = re.sub(r"\bv(?:ersion|er\.?)?\s*(?=\d)", "", text.lower())
    return " ".join(dict.fromkeys(word for word in re.findall(r"[a-z0-9]+\+?", text) if word not in _NOISE_WORDS))


_BY_KEY = {_key(name): spdx for name, spdx in _CLASSIFIERS.items()} | {
    _key(spelling): spdx for spdx, spellings in _SPELLINGS.items() for spelling in spellings.split(",")
}


def is_imprecise(expression: str) -> bool:
    """Whether an expression names a family only (`BSD`), so that a licence text would say more."""
    return expression in _FAMILIES


def from_value(text: str) -> tuple[str, ...]:
    """A free-text licence value (`Apache License, Version 2.0`, an SPDX expression, a whole licence) as SPDX."""
    text = text.strip()
    if not text:
        return ()
    if len(text) > _LONG or text.count("\n") > 2:
        return license_texts.recognise(text)
    try:
        tree = parse(text)
        if is_known(tree):
            return (render(tree),)
    except LicenseSyntaxError:
        pass
    if single := _BY_KEY.get(_key(text)):
        return (single,)
    for separator, operator in ((r"\s+or\s+|\s*\|\|?\s*", "OR"), (r"\s+and\s+|\s*[,&;+/]\s*", "AND")):
        pieces = [p for p in re.split(separator, text, flags=re.I) if p.strip(" ()")]
        names = [_name(p.strip(" ()")) for p in pieces]
        if len(pieces) > 1 and all(names):
            return (normalise(f" {operator} ".join(f"({name})" for name in names)),)
    return ()


def _name(text: str) -> str | None:
    """One licence's name as SPDX, without looking for combinations."""
    try:
        if is_known(parse(text)):
            return normalise(text)
    except LicenseSyntaxError:
        pass
    return _BY_KEY.get(_key(text))


def from_expression(text: str) -> tuple[str, ...]:
    """A field that must hold an SPDX expression; identifiers that we do not know are kept. Else as free text."""
    try:
        return (normalise(text),) if text.strip() else ()
    except LicenseSyntaxError:
        return from_value(text)


def from_classifiers(classifiers: Iterable[str]) -> tuple[str, ...]:
    """SPDX of all `License ::` trove classifiers; unknown ones count as unrecognised, `OSI Approved` alone as none."""
    found: dict[str, None] = {}
    for classifier in classifiers:
        parts = [part.strip() for part in classifier.split("::")]
        if parts[0] != "License" or parts[-1] in ("License", "OSI Approved", "DFSG approved"):
            continue
        found[_CLASSIFIERS.get(parts[-1]) or _name(parts[-1]) or UNRECOGNISED] = None
    return tuple(found)


def from_distribution(expression: str, classifiers: Iterable[str], field: str) -> tuple[str, ...]:
    """Licences of a Python distribution by its three kinds of metadata, in that order; () when none says anything.

    A classifier that names a family only (`BSD License`) gives way to a field that names a member of it.
    """
    if found := from_expression(expression):
        return found
    found = from_classifiers(classifiers)
    if found and not all(is_imprecise(e) for e in found):
        return found
    return from_value(field) or found


def from_package_json(package: Mapping[str, Any]) -> tuple[str, ...]:
    """Licences of a Node package: `license` (text or the old object), else `licenses` (any of them may be chosen)."""
    value = package.get("license")
    if isinstance(value, Mapping):
        value = value.get("type")
    if isinstance(value, str) and value.strip():
        if value.strip() == "UNLICENSED":  # npm's word for "nobody may use this"; not the Unlicense
            return (PROPRIETARY,)
        return from_expression(value.strip().removesuffix("*"))
    several = package.get("licenses")
    if isinstance(several, Mapping | str):
        several = [several]
    if not isinstance(several, list):
        return ()
    names = [entry.get("type") if isinstance(entry, Mapping) else entry for entry in several]
    found = [from_expression(name) for name in names if isinstance(name, str)]
    if not found or not all(found):
        return ()
    return (normalise(" OR ".join(f"({expressions[0]})" for expressions in found)),)


def from_project_file(name: str, text: str) -> tuple[str, ...]:
    """Licences that `package.json`, `pyproject.toml` or `setup.cfg` declare; () for broken files and silent ones."""
    try:
        if name == "package.json":
            package = json.loads(text)
            return from_package_json(package) if isinstance(package, dict) else ()
        if name == "pyproject.toml":
            return _from_pyproject(tomllib.loads(text))
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        classifiers = parser.get("metadata", "classifiers", fallback="").splitlines()
        return from_distribution("", classifiers, parser.get("metadata", "license", fallback=""))
    except (ValueError, configparser.Error, RecursionError):
        return ()


PROJECT_FILES = ("package.json", "pyproject.toml", "setup.cfg")


def _from_pyproject(data: Mapping[str, Any]) -> tuple[str, ...]:
    tool = data.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, Mapping) else None
    for table in (data.get("project"), poetry):
        if not isinstance(table, Mapping):
            continue
        value = table.get("license")
        field = value.get("text") if isinstance(value, Mapping) else value
        classifiers = table.get("classifiers")
        classifiers = [c for c in classifiers if isinstance(c, str)] if isinstance(classifiers, list) else []
        field = field if isinstance(field, str) else ""
        if found := from_distribution("", classifiers, field) if isinstance(value, Mapping) else from_expression(field):
            return found
        if found := from_classifiers(classifiers):
            return found
    return ()
