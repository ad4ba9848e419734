"""Recognition of licence texts: LICENSE and COPYING files, and whole licences pasted into a metadata field.

A text is reduced to its words (lower case, punctuation and line breaks gone), then compared with signatures: phrases
that must occur and phrases that must not. All signatures that match count, so a file that bundles several licences
yields all of them. A text that matches none, or that carries a known restriction on top (Commons Clause, "good, not
evil"), is never taken for permissive. Not covered: shortened or translated texts, and which part of a bundle a licence
covers.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from kringle.data.licenses import UNRECOGNISED

MAX_TEXT_BYTES = 1_000_000  # longer "licence" files are something else
_NAME = re.compile(
    r"(?:un)?licen[cs]es?(?:[-_.].*)?|(?:.*[-_.])licen[cs]e(?:\.(?:md|txt|rst))?|copying(?:[-_.].*)?", re.I
)
_CODE = re.compile(r".*\.(?:py|pyc|js|java|json|html?|css|c|h|cpp|sh|ts|ya?ml|toml)", re.I)


def is_license_file(name: str) -> bool:
    """Whether a file of this name states the licence of the folder it lies in."""
    lowered = name.lower()
    if "cen" not in lowered and "copy" not in lowered:  # nearly every name, and a fifth of what a look costs
        return False
    return bool(_NAME.fullmatch(name)) and not _CODE.fullmatch(name)


@dataclass(frozen=True)
class _Signature:
    spdx: str
    must: tuple[str, ...]
    never: tuple[str, ...] = ()
    at_most: int | None = None  # words in the whole text: a notice that only names a licence is short


_EXPAT_GRANT = "permission is hereby granted free of charge to any person obtaining a copy"
_BSD = "redistributions of source code must retain the"
_ADVERTISING = "all advertising materials mentioning features"
_ENDORSE = "endorse or promote products derived from"
_ISC_GRANT = (
    "permission to use copy modify and or distribute this software for any purpose with or without fee is hereby"
)
_KEEP_NOTICE = "provided that the above copyright notice and this permission notice appear in all copies"

_NOTICE_WORDS = 400  # the notice that the GPL recommends has 110 words; a list of other people's licences has more
_POINTER_WORDS = 60  # "available under the terms of either of the licences found in LICENSE.APACHE or LICENSE.BSD"

# A licence file that so much as names a copyleft licence is taken to mean it, unless a text explains the mention:
# the Python stack's CNRI part speaks of the GPL, and the weak copyleft licences name the GPL as a secondary licence.
_EXPLAINS_GPL = (
    "cnri",
    "gnu general public license version",
    "gnu general public license gpl version",
    "gnu lesser general public license version",
    "gnu library general public license version",
    "gnu affero general public license version",
    "mozilla public license version",
    "eclipse public license v",
    "apache license version 2 0 january 2004",
)

_SIGNATURES = (
    _Signature("LicenseRef-GPL", ("gnu general public licen",), _EXPLAINS_GPL),
    _Signature("LicenseRef-GPL", ("under the terms of the gnu general public licen",), _EXPLAINS_GPL[1:8]),
    _Signature("LicenseRef-LGPL", ("gnu lesser general public licen",), _EXPLAINS_GPL[1:8]),
    _Signature("LicenseRef-AGPL", ("gnu affero general public licen",), _EXPLAINS_GPL[1:8]),
    _Signature(
        "MPL-2.0", ("mozilla public licen",), ("mozilla public license version 1 1", "eclipse public license v")
    ),
    _Signature("LicenseRef-Proprietary", ("proprietary and confidential",)),
    _Signature("LicenseRef-Proprietary", ("confidential and proprietary",)),
    _Signature("LicenseRef-Proprietary", ("end user license agreement",), ("mozilla public licen",)),
    _Signature("LicenseRef-Proprietary", ("unauthorized copying",)),
    _Signature("GPL-2.0-only", ("gnu general public license gpl version 2 june 1991",)),
    _Signature("AGPL-3.0-only", ("gnu affero general public license", "remote network interaction")),
    _Signature("GPL-3.0-only", ("gnu general public license version 3 29 june 2007",)),
    _Signature("GPL-2.0-only", ("gnu general public license version 2 june 1991",)),
    _Signature("GPL-1.0-only", ("gnu general public license version 1 february 1989",)),
    _Signature("LGPL-3.0-only", ("gnu lesser general public license version 3 29 june 2007",)),
    _Signature("LGPL-2.1-only", ("gnu lesser general public license version 2 1 february 1999",)),
    _Signature("LGPL-2.0-only", ("gnu library general public license version 2 june 1991",)),
    _Signature("MPL-1.1", ("mozilla public license version 1 1", "covered code")),
    _Signature("EPL-2.0", ("eclipse public license v 2 0", "this agreement")),
    _Signature("EPL-1.0", ("eclipse public license v 1 0", "this agreement")),
    _Signature("CDDL-1.0", ("common development and distribution license", "version 1 0")),
    _Signature("CDDL-1.1", ("common development and distribution license", "version 1 1")),
    _Signature("EUPL-1.2", ("european union public licence v 1 2",)),
    _Signature("EUPL-1.1", ("european union public licence v 1 1",)),
    _Signature("OSL-3.0", ("open software license version 3 0",)),
    _Signature("SSPL-1.0", ("server side public license version 1",)),
    _Signature("BUSL-1.1", ("business source license 1 1",)),
    _Signature("Elastic-2.0", ("elastic license 2 0",)),
    _Signature("LicenseRef-Commons-Clause", ("commons clause license condition",)),
    _Signature("JSON", ("the software shall be used for good not evil",)),
    _Signature("CC-BY-NC-4.0", ("attribution noncommercial 4 0 international",)),
    _Signature("CC-BY-NC-SA-4.0", ("attribution noncommercial sharealike 4 0 international",)),
    _Signature("CC-BY-SA-4.0", ("attribution sharealike 4 0 international",)),
    _Signature("CC-BY-ND-4.0", ("attribution noderivatives 4 0 international",)),
    _Signature("CC-BY-4.0", ("attribution 4 0 international",)),
    _Signature("CC-BY-3.0", ("attribution 3 0 unported",)),
    _Signature("CC-BY-SA-3.0", ("attribution sharealike 3 0 unported",)),
    _Signature("OFL-1.1", ("sil open font license version 1 1",)),
    _Signature("MS-RL", ("microsoft reciprocal license",)),
    _Signature("Artistic-1.0", ("the artistic license preamble", "artistic control over the development")),
    _Signature("Apache-2.0", ("apache license version 2 0 january 2004", "grant of patent license")),
    _Signature(
        "Apache-2.0",
        ("licensed under the apache license version 2 0", "limitations under the license"),
        ("grant of patent license",),
        _NOTICE_WORDS,
    ),
    _Signature("Apache-1.1", (_BSD, "this product includes software developed by the apache software foundation")),
    _Signature(
        "MIT",
        (_EXPAT_GRANT, "permission notice shall be included in all copies", "as is without warranty of any kind"),
        ("used for good not evil", "shall not be used in advertising", "commons clause"),
    ),
    _Signature("MIT", ("licensed under the mit license",), (_EXPAT_GRANT,), _NOTICE_WORDS),
    _Signature(
        "X11",
        (_EXPAT_GRANT, "permission notice shall be included in all copies", "shall not be used in advertising"),
    ),
    _Signature(
        "MIT-0",
        (_EXPAT_GRANT, "as is without warranty of any kind"),
        ("permission notice shall be included", "permission notice appear in all copies", "subject to the following"),
    ),
    _Signature("BSD-4-Clause", (_BSD, _ADVERTISING), ("apache software foundation",)),
    _Signature(
        "BSD-3-Clause-Clear",
        (
            _BSD,
            "redistributions in binary form must reproduce",
            _ENDORSE,
            "no express or implied licenses to any party",
        ),
    ),
    _Signature(
        "BSD-3-Clause",
        (_BSD, "redistributions in binary form must reproduce", _ENDORSE),
        (_ADVERTISING, "no express or implied licenses to any party", "apache software foundation"),
    ),
    _Signature(
        "BSD-2-Clause",
        (_BSD, "redistributions in binary form must reproduce"),
        (_ADVERTISING, _ENDORSE, "apache software foundation", "patent license"),
    ),
    _Signature(
        "BSD-2-Clause-Patent",
        (_BSD, "redistributions in binary form must reproduce", "patent license"),
        (_ADVERTISING, _ENDORSE),
    ),
    _Signature(
        "BSD-1-Clause",
        (_BSD, "as is and any express or implied warranties"),
        ("redistributions in binary form", _ADVERTISING, _ENDORSE),
    ),
    _Signature("ISC", (_ISC_GRANT, _KEEP_NOTICE)),
    _Signature("ISC", (_ISC_GRANT.replace(" and or ", " and "), _KEEP_NOTICE)),
    _Signature("0BSD", (_ISC_GRANT, "the author disclaims all warranties"), (_KEEP_NOTICE,)),
    _Signature("BSL-1.0", ("boost software license version 1 0", "obtaining a copy of the software and accompanying")),
    _Signature("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    _Signature("CC0-1.0", ("cc0 1 0 universal",)),
    _Signature("CC0-1.0", ("creative commons cc0 1 0",)),
    _Signature("WTFPL", ("do what the fuck you want to public license",)),
    _Signature(
        "Zlib", ("altered source versions must be plainly marked", "origin of this software must not be misrep")
    ),
    _Signature("BlueOak-1.0.0", ("blue oak model license version 1 0 0",)),
    _Signature("UPL-1.0", ("universal permissive license upl", "larger works")),
    _Signature("MS-PL", ("microsoft public license ms pl",)),
    _Signature(
        "NCSA", ("university of illinois", "redistributions of source code must retain", "deal with the software")
    ),
    _Signature("PostgreSQL", ("postgresql license", "without fee and without a written agreement is hereby granted")),
    _Signature("PSF-2.0", ("python software foundation license version 2",), ("cwi license agreement",)),
    _Signature("Python-2.0", ("python software foundation license version 2", "cwi license agreement")),
    _Signature("CNRI-Python", ("cnri license agreement",), ("python software foundation license",)),
    _Signature("ZPL-2.1", ("zope public license zpl version 2 1",)),
    _Signature("ZPL-2.0", ("zope public license zpl version 2 0",)),
    _Signature("Artistic-2.0", ("the artistic license 2 0",)),
    _Signature("AFL-3.0", ("academic free license version 3 0",)),
    _Signature("ECL-2.0", ("educational community license version 2 0",)),
    _Signature("MulanPSL-2.0", ("mulan permissive software license version 2",)),
    _Signature("Unicode-3.0", ("unicode license v3",)),
    _Signature("Unicode-DFS-2016", ("unicode data files", "unicode software"), ("unicode license v3",)),
    _Signature("OpenSSL", ("openssl toolkit", _ADVERTISING)),
    _Signature(
        "HPND",
        (
            "permission to use copy modify and distribute this software and its documentation for any purpose",
            "without fee is hereby granted",
        ),
        ("without a written agreement",),
    ),
    _Signature(
        "MIT-CMU", ("permission to use copy modify and distribute this software and its associated documentation",)
    ),
    _Signature("Ruby", ("ruby is copyrighted free software by yukihiro matsumoto",)),
    _Signature("PHP-3.01", ("the php license version 3 01",)),
    _Signature(
        "curl",
        (
            "permission to use copy modify and distribute this software for any purpose with or without fee "
            "is hereby granted provided that the above copyright notice and this permission notice appear in "
            "all copies the software is provided as is without warranty of any kind",
        ),
    ),
)

_CLASSPATH = re.compile(
    r"classpath exception|linking this library statically or dynamically with other modules is making"
)
_POINTER = re.compile(
    r" licen[cs]e (?:apache|mit|bsd|txt|md)\b| found in | see (?:the )?(?:file )?(?:licen[cs]e|copying)"
)
_LLVM = "llvm exceptions to the apache 2 0 license"


def words(text: str) -> str:
    """Lower-case words of `text` with one space between them and around them; everything else is gone."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def recognise(text: str) -> tuple[str, ...]:
    """SPDX identifiers of all licences whose text is in `text`, sorted; empty when none is recognised."""
    flat = words(text)
    length = flat.count(" ") - 1
    found = {
        s.spdx
        for s in _SIGNATURES
        if (s.at_most is None or length <= s.at_most)
        and all(phrase in flat for phrase in s.must)
        and not any(phrase in flat for phrase in s.never)
    }
    return tuple(sorted(_refine(found, flat)))


@functools.lru_cache(maxsize=32)  # many repositories have the same text, word for word
def recognise_file(text: str) -> tuple[str, ...]:
    """Like `recognise`, for a file that is known to be a licence: `LicenseRef-Unrecognised` instead of nothing.

    A file without a word, or one that only points to the licence files beside it, states nothing and yields ().
    """
    if found := recognise(text):
        return found
    flat = words(text)
    points = flat.count(" ") <= _POINTER_WORDS and _POINTER.search(flat)
    return () if points or not flat.strip() else (UNRECOGNISED,)


def _refine(found: set[str], flat: str) -> set[str]:
    """Settle what one text says about another: licences that quote or extend a licence are not that licence."""
    if "GPL-2.0-only" in found and _CLASSPATH.search(flat):
        found = found - {"GPL-2.0-only"} | {"GPL-2.0-only WITH Classpath-exception-2.0"}
    if "Apache-2.0" in found and _LLVM in flat:
        found = found - {"Apache-2.0"} | {"Apache-2.0 WITH LLVM-exception"}
    if "NCSA" in found:
        found = found - {"MIT-0", "BSD-3-Clause", "BSD-2-Clause", "MIT"}
    if "OpenSSL" in found:
        found = found - {"BSD-4-Clause"}
    if found & {"Python-2.0", "PostgreSQL"}:
        found = found - {"HPND"}  # the CWI part of the Python licences, and the model of PostgreSQL's, are of that kind
    if "curl" in found:
        found = found - {"ISC"}
    return found
