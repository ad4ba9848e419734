"""Licences as SPDX expressions: which are permissive, and what the values in package metadata mean.

A document carries a list of SPDX expressions and is permissive only if *every* one of them is; inside an expression an
`OR` needs one permissive branch and an `AND` needs all. Nothing known is not permissive. This module reads names;
`kringle.data.license_texts` reads licence texts. Neither is legal advice: file headers that contradict the package are
not looked at, and metadata is taken at its word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# Licences that ask for attribution and notices at most, in the sense of The Stack (Kocetkov et al. 2022, section 3.1):
# the Blue Oak Council's list, bronze and better, without LPPL-1.3c (its renaming conditions reach derived works); its
# successors of the same kind (PSF-2.0, Unicode-3.0, MulanPSL-2.0 ...); and from its "lead" rating the W3C, HPND and
# WTFPL licences, which The Stack counts in. Weak copyleft (MPL, EPL, LGPL, CDDL) is out, as in The Stack v1.1.
_PERMISSIVE_NAMES = """
0BSD ADSL AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD Apache-1.0 Apache-1.1 Apache-2.0 APAFML
Artistic-2.0 Bahyph Barr BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause
BSD-3-Clause-Attribution BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-3-Clause-Modification
BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty BSD-3-Clause-Open-MPI BSD-4-Clause
BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.5 bzip2-1.0.6 CC0-1.0 CNRI-Jython CNRI-Python
CNRI-Python-GPL-Compatible Cube curl DSDP ECL-1.0 ECL-2.0 eGenix Entessa FTL HPND HPND-sell-variant IBM-pibs ICU
ImageMagick Info-ZIP Intel ISC JasPer-2.0 Libpng libpng-2.0 libtiff LicenseRef-BSD LicenseRef-Public-Domain
Linux-OpenIB MIT MIT-0 MIT-advertising MIT-CMU MIT-enna MIT-feh MIT-Modern-Variant MITNFA MS-PL MTLL MulanPSL-1.0
MulanPSL-2.0 Multics Mup Naumen NCSA Net-SNMP NetCDF NTP OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2 OLDAP-2.2.1
OLDAP-2.2.2 OLDAP-2.3 OLDAP-2.4 OLDAP-2.5 OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01 Plexus PostgreSQL
PSF-2.0 Python-2.0 Python-2.0.1 Ruby Saxpath SGI-B-2.0 SMLNJ Spencer-99 SWL TCL TCP-wrappers Unicode-3.0
Unicode-DFS-2015 Unicode-DFS-2016 Unlicense UPL-1.0 VSL-1.0 W3C W3C-19980720 W3C-20150513 WTFPL X11 Xerox XFree86-1.1
Xnet xpp Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1
"""
PERMISSIVE = frozenset(_PERMISSIVE_NAMES.split())

# Known and not permissive: named so that metadata can be read, and so that nobody mistakes one for another.
_OTHER_NAMES = """
AGPL-1.0-only AGPL-1.0-or-later AGPL-3.0-only AGPL-3.0-or-later APSL-2.0 Artistic-1.0 Artistic-1.0-Perl BUSL-1.1
CC-BY-3.0 CC-BY-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CDDL-1.0 CDDL-1.1 CECILL-2.0
CECILL-2.1 CECILL-B CECILL-C CPAL-1.0 CPL-1.0 Elastic-2.0 EPL-1.0 EPL-2.0 EUPL-1.0 EUPL-1.1 EUPL-1.2 GFDL-1.3-only
GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later IPL-1.0
JSON LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later LicenseRef-AGPL
LicenseRef-Commons-Clause LicenseRef-GPL LicenseRef-LGPL LicenseRef-Proprietary LicenseRef-Unrecognised LPPL-1.3c
MPL-1.0 MPL-1.1 MPL-2.0 MPL-2.0-no-copyleft-exception MS-RL NASA-1.3 Nokia NPL-1.1 NPOSL-3.0 OFL-1.1 OSL-3.0 QPL-1.0
RPL-1.1 RPL-1.5 Sleepycat SPL-1.0 SSPL-1.0 Watcom-1.0
"""
OTHER = frozenset(_OTHER_NAMES.split())

UNRECOGNISED = "LicenseRef-Unrecognised"  # a licence file is there, and its text is none that we know
PROPRIETARY = "LicenseRef-Proprietary"

_CANONICAL = {name.lower(): name for name in PERMISSIVE | OTHER}

# Identifiers that SPDX has retired, as https://spdx.org/licenses lists them, and what replaced them.
_GNU = ("gpl-1.0", "gpl-2.0", "gpl-3.0", "lgpl-2.0", "lgpl-2.1", "lgpl-3.0", "agpl-1.0", "agpl-3.0", "gfdl-1.3")
_RETIRED = {
    **{name: f"{name}-only" for name in _GNU},
    "gpl-2.0-with-classpath-exception": "GPL-2.0-only WITH Classpath-exception-2.0",
    "bsd-2-clause-freebsd": "BSD-2-Clause-Views",
    "bsd-2-clause-netbsd": "BSD-2-Clause",
}


class LicenseSyntaxError(ValueError):
    """Text that is not an SPDX licence expression."""


@dataclass(frozen=True)
class Combined:
    """A node of an expression: all of `parts` apply (`AND`), or one of them may be chosen (`OR`)."""

    operator: Literal["AND", "OR"]
    parts: tuple[Expression, ...]


Expression = str | Combined  # a leaf is `ID` or `ID WITH EXCEPTION`

_TOKEN = re.compile(r"\s*(?:(?P<paren>[()])|(?P<word>[A-Za-z0-9][A-Za-z0-9.:+-]*))")


def _canonical(name: str) -> str:
    """An identifier in SPDX's spelling, retired ones replaced; unknown ones as they are."""
    plain = name.lower().removesuffix("+")
    later = f"{plain.removesuffix('-only')}-or-later"
    if name.endswith("+") and later in _CANONICAL:  # the old way to write "or any later version"
        return _CANONICAL[later]
    current = _RETIRED.get(plain, name.removesuffix("+"))
    return _CANONICAL.get(current.lower(), current)


def parse(text: str) -> Expression:
    """An SPDX licence expression as a tree, identifiers in their canonical spelling; operators in any case.

    Raises `LicenseSyntaxError` for anything else. Unknown identifiers are kept: they are just not permissive.
    """
    tokens: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise LicenseSyntaxError(f"not an SPDX licence expression: {text!r}")
        tokens.append(match["paren"] or match["word"])
        position = match.end()
    tree, rest = _parse_or(tokens, text)
    if rest:
        raise LicenseSyntaxError(f"not an SPDX licence expression: {text!r}")
    return tree


def _join(operator: Literal["AND", "OR"], parts: list[Expression]) -> Expression:
    flat: list[Expression] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Combined) and part.operator == operator else (part,))
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Combined(operator, unique)


def _parse_or(tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    first, tokens = _parse_and(tokens, text)
    parts = [first]
    while tokens and tokens[0].upper() == "OR":
        part, tokens = _parse_and(tokens[1:], text)
        parts.append(part)
    return _join("OR", parts), tokens


def _parse_and(tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    first, tokens = _parse_leaf(tokens, text)
    parts = [first]
    while tokens and tokens[0].upper() == "AND":
        part, tokens = _parse_leaf(tokens[1:], text)
        parts.append(part)
    return _join("AND", parts), tokens


def _parse_leaf(tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR", "WITH"):
        raise LicenseSyntaxError(f"not an SPDX licence expression: {text!r}")
    if tokens[0] == "(":
        tree, tokens = _parse_or(tokens[1:], text)
        if not tokens or tokens[0] != ")":
            raise LicenseSyntaxError(f"not an SPDX licence expression: {text!r}")
        return tree, tokens[1:]
    name, tokens = _canonical(tokens[0]), tokens[1:]
    if tokens and tokens[0].upper() == "WITH":
        if len(tokens) < 2 or not tokens[1][0].isalpha() or tokens[1].upper() in ("AND", "OR", "WITH"):
            raise LicenseSyntaxError(f"not an SPDX licence expression: {text!r}")
        return f"{name} WITH {tokens[1]}", tokens[2:]
    return name, tokens


def render(tree: Expression) -> str:
    """The tree as text, with no more parentheses than needed."""
    if isinstance(tree, str):
        return tree
    parts = [f"({render(p)})" if isinstance(p, Combined) and tree.operator == "AND" else render(p) for p in tree.parts]
    return f" {tree.operator} ".join(parts)


def normalise(text: str) -> str:
    """An SPDX expression in canonical spelling; raises `LicenseSyntaxError`."""
    return render(parse(text))


def leaves(tree: Expression) -> Iterable[str]:
    """Every `ID` and `ID WITH EXCEPTION` in an expression."""
    if isinstance(tree, str):
        yield tree
    else:
        for part in tree.parts:
            yield from leaves(part)


def is_known(tree: Expression) -> bool:
    """Whether every identifier in the expression is one that this module knows."""
    return all(leaf.partition(" WITH ")[0].lower() in _CANONICAL for leaf in leaves(tree))


class Allowed:
    """Decides which licences may be trained on: the permissive ones and those that the user allows by name.

    `extra` are SPDX expressions; each permits itself as a whole, or as a leaf of a larger expression. An exception
    (`WITH`) only ever grants more, so allowing a licence allows it with any exception. Raises `LicenseSyntaxError`.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self.extra = frozenset(normalise(e) for e in extra)

    def permits(self, licenses: Iterable[str]) -> bool:
        """Whether a document with these licences may be used: at least one, and every one allowed."""
        licenses = tuple(licenses)
        return bool(licenses) and all(self._permits(e) for e in licenses)

    def _permits(self, expression: str) -> bool:
        try:
            return self._tree(parse(expression))
        except LicenseSyntaxError:
            return False

    def _tree(self, tree: Expression) -> bool:
        if self.extra and render(tree) in self.extra:
            return True
        if isinstance(tree, Combined):
            return (any if tree.operator == "OR" else all)(self._tree(p) for p in tree.parts)
        base = tree.partition(" WITH ")[0]
        return base in PERMISSIVE or base in self.extra


NO_LICENSE = "no licence found"


def license_label(licenses: Iterable[str]) -> str:
    """A document's licences in one line: `MIT`, `MIT + BSD-3-Clause` (both apply), or that there is none."""
    return " + ".join(licenses) or NO_LICENSE


_PERMISSIVE = Allowed()


def is_permissive(licenses: Iterable[str]) -> bool:
    """Whether every one of these SPDX expressions is permissive; False when there is none."""
    return _PERMISSIVE.permits(licenses)
