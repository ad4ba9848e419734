from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data.license_metadata import (
    from_classifiers,
    from_distribution,
    from_expression,
    from_package_json,
    from_project_file,
    from_value,
)
from kringle.data.license_texts import is_license_file, recognise, recognise_file
from kringle.data.licenses import (
    OTHER,
    PERMISSIVE,
    PROPRIETARY,
    UNRECOGNISED,
    Allowed,
    LicenseSyntaxError,
    is_permissive,
    normalise,
    parse,
    render,
)

JDK = "GPL-2.0-only WITH Classpath-exception-2.0"


# -- expressions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical", "permissive"),
    [
        ("MIT", "MIT", True),
        ("mit", "MIT", True),
        ("apache-2.0", "Apache-2.0", True),
        ("MIT OR GPL-3.0-only", "MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only or mit", "GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", "MIT AND GPL-3.0-only", False),
        ("MIT AND BSD-3-Clause", "MIT AND BSD-3-Clause", True),
        ("MIT AND (GPL-3.0-only OR Zlib)", "MIT AND (GPL-3.0-only OR Zlib)", True),
        ("MIT AND GPL-3.0-only OR Zlib", "MIT AND GPL-3.0-only OR Zlib", True),
        ("(MIT OR Zlib) AND MPL-2.0", "(MIT OR Zlib) AND MPL-2.0", False),
        ("((MIT))", "MIT", True),
        ("MIT AND MIT", "MIT", True),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception", True),
        (JDK, JDK, False),
        ("GPL-2.0-with-classpath-exception", JDK, False),
        ("GPL-2.0", "GPL-2.0-only", False),
        ("GPL-2.0+", "GPL-2.0-or-later", False),
        ("LGPL-2.1+", "LGPL-2.1-or-later", False),
        ("AGPL-3.0", "AGPL-3.0-only", False),
        ("Apache-2.0+", "Apache-2.0", True),
        ("MPL-2.0", "MPL-2.0", False),
        ("EPL-2.0", "EPL-2.0", False),
        ("LGPL-3.0-or-later", "LGPL-3.0-or-later", False),
        ("CC-BY-4.0", "CC-BY-4.0", False),
        ("SSPL-1.0", "SSPL-1.0", False),
        ("BUSL-1.1", "BUSL-1.1", False),
        ("BSL-1.0", "BSL-1.0", True),
        ("JSON", "JSON", False),
        ("UnheardOf-1.0", "UnheardOf-1.0", False),
        ("UnheardOf-1.0 OR MIT", "UnheardOf-1.0 OR MIT", True),
        ("LicenseRef-Mine", "LicenseRef-Mine", False),
        ("DocumentRef-x:LicenseRef-y", "DocumentRef-x:LicenseRef-y", False),
    ],
)
def test_expressions(text: str, canonical: str, permissive: bool) -> None:
    assert normalise(text) == canonical
    assert normalise(canonical) == canonical
    assert is_permissive([text]) is permissive


@pytest.mark.parametrize(
    "text",
    ["", " ", "MIT License", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT WITH", "MIT WITH OR", "MIT/X11", "()", "é"],
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(LicenseSyntaxError):
        parse(text)
    assert not is_permissive([text])


def test_all_licences_of_a_document_must_be_permissive_and_none_is_not() -> None:
    assert is_permissive(["MIT", "Apache-2.0 OR GPL-3.0-only"])
    assert not is_permissive(["MIT", "GPL-3.0-only"])
    assert not is_permissive([])
    assert not PERMISSIVE & OTHER


def test_allowing_more() -> None:
    assert Allowed([JDK]).permits([JDK])
    assert not Allowed([JDK]).permits(["GPL-2.0-only"])
    assert Allowed(["GPL-2.0"]).permits([JDK])
    assert Allowed(["gpl-2.0-only with Classpath-exception-2.0"]).permits([JDK])
    assert Allowed(["MPL-2.0"]).permits(["MPL-2.0 AND MIT"])
    assert Allowed(["MPL-2.0 AND MIT"]).permits(["MPL-2.0 AND MIT"])
    assert not Allowed(["MPL-2.0 AND MIT"]).permits(["MPL-2.0"])
    assert not Allowed(["MPL-2.0"]).permits(["EPL-2.0"])
    assert not Allowed(["MPL-2.0"]).permits([])
    with pytest.raises(LicenseSyntaxError):
        Allowed(["MPL 2.0"])


_names = st.sampled_from(["MIT", "GPL-3.0-only", "Zlib", "MPL-2.0", JDK, "Apache-2.0 WITH LLVM-exception"])
_trees = st.recursive(
    _names,
    lambda inner: st.tuples(inner, st.sampled_from([" AND ", " OR "]), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
)


@settings(deadline=None)
@given(_trees)
def test_canonical_form_keeps_the_meaning(text: str) -> None:
    assert normalise(render(parse(text))) == render(parse(text))
    truth = text
    for name, value in (("Apache-2.0 WITH LLVM-exception", "True"), (JDK, "False"), ("GPL-3.0-only", "False")):
        truth = truth.replace(name, value)
    truth = truth.replace("MIT", "True").replace("Zlib", "True").replace("MPL-2.0", "False").lower()
    assert is_permissive([text]) is eval(truth, {"true": True, "false": False})
    assert is_permissive([normalise(text)]) is is_permissive([text])


# -- metadata ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("MIT/X11", "MIT"),
        ("Expat", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("ASL 2.0", "Apache-2.0"),
        ("Apache-2.0 OR MIT", "Apache-2.0 OR MIT"),
        ("Apache 2.0 or MIT", "Apache-2.0 OR MIT"),
        ("BSD, MIT", "LicenseRef-BSD AND MIT"),
        ("BSD", "LicenseRef-BSD"),
        ("BSD-style", "LicenseRef-BSD"),
        ("New BSD License", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD (3-clause)", "BSD-3-Clause"),
        ("BSD 2-Clause", "BSD-2-Clause"),
        ("ISC license (ISCL)", "ISC"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("ZPL 2.1", "ZPL-2.1"),
        ("Public Domain", "LicenseRef-Public-Domain"),
        ("GPL", "LicenseRef-GPL"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("GNU GPL v2", "GPL-2.0-only"),
        ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
        ("LGPLv2.1+", "LGPL-2.1-or-later"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
        ("AGPLv3", "AGPL-3.0-only"),
        ("Proprietary", PROPRIETARY),
    ],
)
def test_licence_field(value: str, expected: str) -> None:
    assert from_value(value) == (expected,)


@pytest.mark.parametrize(
    "value", ["", "UNKNOWN", "Dual License", "see LICENSE", "LICENSE.txt", "free to use", "MIT or so"]
)
def test_licence_field_that_says_nothing(value: str) -> None:
    assert from_value(value) == ()


def test_classifiers() -> None:
    osi = "License :: OSI Approved :: "
    assert from_classifiers([osi + "MIT License", "Programming Language :: Python"]) == ("MIT",)
    assert from_classifiers([osi + "BSD License", osi + "Apache Software License"]) == ("LicenseRef-BSD", "Apache-2.0")
    assert from_classifiers(["License :: OSI Approved"]) == ()
    assert from_classifiers([osi + "GNU Lesser General Public License v3 (LGPLv3)"]) == ("LGPL-3.0-only",)
    assert from_classifiers([osi + "A License Invented Tomorrow"]) == (UNRECOGNISED,)
    assert not is_permissive(from_classifiers([osi + "MIT License", osi + "GNU General Public License (GPL)"]))


def test_the_order_of_a_distributions_metadata() -> None:
    bsd, mpl = (
        "License :: OSI Approved :: BSD License",
        "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
    )
    assert from_distribution("MIT", [mpl], "GPL") == ("MIT",)
    assert from_distribution("", [mpl], "MIT") == ("MPL-2.0",)
    assert from_distribution("", [bsd], "BSD-3-Clause") == ("BSD-3-Clause",)
    assert from_distribution("", [bsd], "") == ("LicenseRef-BSD",)
    assert from_distribution("", [], "ISC") == ("ISC",)
    assert from_distribution("Not An Expression", [], "") == ()
    assert from_distribution("", [], "") == ()


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ({"license": "MIT"}, ("MIT",)),
        ({"license": "(MIT OR GPL-3.0)"}, ("MIT OR GPL-3.0-only",)),
        ({"license": {"type": "BSD-2-Clause", "url": "https://example.com"}}, ("BSD-2-Clause",)),
        ({"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}, ("MIT OR GPL-2.0-only",)),
        ({"licenses": [{"type": "Apache 2.0"}]}, ("Apache-2.0",)),
        ({"licenses": ["MIT", "ISC"]}, ("MIT OR ISC",)),
        ({"licenses": [{"type": "MIT"}, {"url": "x"}]}, ("MIT",)),
        ({"license": "UNLICENSED"}, (PROPRIETARY,)),
        ({"license": "Unlicense"}, ("Unlicense",)),
        ({"license": "SEE LICENSE IN LICENSE.md"}, ()),
        ({"license": 3}, ()),
        ({"licenses": []}, ()),
        ({"licenses": {"type": "ISC"}}, ("ISC",)),
        ({}, ()),
    ],
)
def test_package_json(package: dict[str, object], expected: tuple[str, ...]) -> None:
    assert from_package_json(package) == expected
    assert from_project_file("package.json", json.dumps(package)) == expected


def test_project_files() -> None:
    assert from_project_file("pyproject.toml", '[project]\nlicense = "MIT OR Apache-2.0"') == ("MIT OR Apache-2.0",)
    assert from_project_file("pyproject.toml", '[project]\nlicense = {text = "BSD 3-Clause"}') == ("BSD-3-Clause",)
    assert from_project_file("pyproject.toml", '[project]\nlicense = {file = "LICENSE"}') == ()
    assert from_project_file("pyproject.toml", '[tool.poetry]\nlicense = "MPL-2.0"') == ("MPL-2.0",)
    classifier = '[project]\nclassifiers = ["License :: OSI Approved :: ISC License (ISCL)"]'
    assert from_project_file("pyproject.toml", classifier) == ("ISC",)
    assert from_project_file("pyproject.toml", "[project\n") == ()
    assert from_project_file("setup.cfg", "[metadata]\nlicense = GPLv3\n") == ("GPL-3.0-only",)
    assert from_project_file("setup.cfg", "no section") == ()
    assert from_project_file("package.json", "[1, 2]") == ()
    assert from_project_file("package.json", "{" * 100_000) == ()
    assert from_expression("Zlib") == ("Zlib",)


# -- texts -------------------------------------------------------------------------------------------------------------

MIT_TEXT = """MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED.
"""
BSD_HEAD = """Redistribution and use in source and binary forms, with or without modification, are permitted:
 * Redistributions of source code must retain the above copyright notice.
"""
BSD_BINARY = " * Redistributions in binary form must reproduce the above copyright notice.\n"
BSD_NAMES = " * Neither the name of X may be used to endorse or promote products derived from this software.\n"
BSD_ADVERTISING = " * All advertising materials mentioning features or use must display an acknowledgement.\n"
BSD_TAIL = 'PROVIDED "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES ARE DISCLAIMED.'
ISC_TEXT = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is
hereby granted{}. THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO IT."""
NOTICE_KEPT = ", provided that the above copyright notice and this permission notice appear in all copies"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT_TEXT, ("MIT",)),
        (MIT_TEXT.upper().replace("\n", "\r\n * "), ("MIT",)),
        (MIT_TEXT.replace("The above copyright notice and this permission notice shall be included", "Nothing"), ()),
        (MIT_TEXT + "The Software shall be used for Good, not Evil.", ("JSON",)),
        ("Commons Clause License Condition v1.0\n" + MIT_TEXT, ("LicenseRef-Commons-Clause",)),
        (BSD_HEAD + BSD_BINARY + BSD_TAIL, ("BSD-2-Clause",)),
        (BSD_HEAD + BSD_BINARY + BSD_NAMES + BSD_TAIL, ("BSD-3-Clause",)),
        (BSD_HEAD + BSD_BINARY + BSD_ADVERTISING + BSD_NAMES + BSD_TAIL, ("BSD-4-Clause",)),
        (BSD_HEAD + BSD_TAIL, ("BSD-1-Clause",)),
        (ISC_TEXT.format(NOTICE_KEPT), ("ISC",)),
        (ISC_TEXT.format(""), ("0BSD",)),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n", ("GPL-3.0-only",)),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 2, June 1991\n", ("GPL-2.0-only",)),
        ("The GNU General Public License (GPL)\nVersion 2, June 1991\n\nCLASSPATH EXCEPTION", (JDK,)),
        (
            "GNU LESSER GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007\n GNU General Public License",
            ("LGPL-3.0-only",),
        ),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999", ("LGPL-2.1-only",)),
        ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3\n 13. Remote Network Interaction", ("AGPL-3.0-only",)),
        ("This is free software under the terms of the GNU General Public License as published", ("LicenseRef-GPL",)),
        (MIT_TEXT + "or, at your choice, the GNU General Public Licence", ("LicenseRef-GPL", "MIT")),
        ("Mozilla Public License Version 2.0\n1.4. Covered Software", ("MPL-2.0",)),
        (MIT_TEXT + "Parts are subject to the terms of the Mozilla Public Licence, v. 2.0.", ("MIT", "MPL-2.0")),
        ("Eclipse Public License - v 2.0\n THE ACCOMPANYING PROGRAM IS PROVIDED UNDER THIS AGREEMENT", ("EPL-2.0",)),
        ("Boost Software License - Version 1.0\n obtaining a copy of the software and accompanying", ("BSL-1.0",)),
        ("This is free and unencumbered software released into the public domain.", ("Unlicense",)),
        ("Licensed under the MIT license.", ("MIT",)),
        ("Licensed under the MIT license. " + "But read on. " * 200, ()),
        ("Business Source License 1.1", ("BUSL-1.1",)),
        ("Attribution-NonCommercial 4.0 International", ("CC-BY-NC-4.0",)),
        ("Proprietary and confidential. " + MIT_TEXT, (PROPRIETARY, "MIT")),
        ("All rights reserved.", ()),
        ("", ()),
    ],
)
def test_recognition_of_texts(text: str, expected: tuple[str, ...]) -> None:
    assert recognise(text) == tuple(sorted(expected))


def test_a_licence_file_that_is_not_recognised_is_not_permissive() -> None:
    assert recognise_file("You may use this on Tuesdays.") == (UNRECOGNISED,)
    assert recognise_file("   \n") == ()
    pointer = "Available under the terms of either of the licenses found in LICENSE.APACHE or LICENSE.BSD."
    assert recognise_file(pointer) == ()
    assert not is_permissive(recognise_file("You may use this on Tuesdays."))


def test_pythons_own_licence_is_recognised() -> None:
    text = (Path(sysconfig.get_path("stdlib")) / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Python-2.0" in recognise(text)
    assert is_permissive(recognise(text))


COMMON = Path("/usr/share/common-licenses")  # Debian's


@pytest.mark.skipif(not COMMON.is_dir(), reason=f"{COMMON} is not there: it is Debian's")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apache-2.0", "Apache-2.0"),
        ("BSD", "BSD-3-Clause"),
        ("Artistic", "Artistic-1.0"),
        ("GPL-1", "GPL-1.0-only"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-3", "GPL-3.0-only"),
        ("LGPL-2", "LGPL-2.0-only"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("LGPL-3", "LGPL-3.0-only"),
        ("MPL-1.1", "MPL-1.1"),
        ("MPL-2.0", "MPL-2.0"),
        ("CC0-1.0", "CC0-1.0"),
    ],
)
def test_whole_licence_texts(name: str, expected: str) -> None:
    assert recognise((COMMON / name).read_text(encoding="utf-8")) == (expected,)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LICENSE", True),
        ("LICENCE.md", True),
        ("license.txt", True),
        ("LICENSE-MIT", True),
        ("LICENSE.APACHE", True),
        ("COPYING", True),
        ("COPYING.LESSER", True),
        ("UNLICENSE", True),
        ("LİCENSE", True),
        ("MIT-LICENSE.txt", True),
        ("LICENSES.third-party", True),
        ("license.py", False),
        ("licenses.json", False),
        ("README.md", False),
        ("copyright.js", False),
        ("relicensed.txt", False),
    ],
)
def test_names_of_licence_files(name: str, expected: bool) -> None:
    assert is_license_file(name) is expected
