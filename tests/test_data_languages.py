from __future__ import annotations

import pytest

from kringle.data.languages import describe_extensions, language_of_name, language_of_shebang


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"),
        ("a.pyi", "python"),
        ("a.pyw", "python"),
        ("A.PY", "python"),
        ("Main.java", "java"),
        ("a.js", "javascript"),
        ("a.min.js", "javascript"),
        ("a.mjs", "javascript"),
        ("a.cjs", "javascript"),
        ("a.jsx", "javascript"),
        ("two words.js", "javascript"),
        ("new\nline.py", "python"),
        ("a.ts", None),
        ("a.json", None),
        ("a.py.bak", None),
        ("a.pyc", None),
        (".py", None),
        ("py", None),
        ("Makefile", None),
        ("", None),
    ],
)
def test_language_by_name(name: str, language: str | None) -> None:
    assert language_of_name(name) == language


@pytest.mark.parametrize(
    ("line", "language"),
    [
        (b"#!/usr/bin/env python3\nprint()", "python"),
        (b"#!/usr/bin/python", "python"),
        (b"#! /usr/local/bin/python3.11 -u\n", "python"),
        (b"#!/usr/bin/env -S python3 -O\n", "python"),
        (b"#!/usr/bin/env PYTHONPATH=. python\n", "python"),
        (b"#!/opt/venv/bin/python3.13t\n", "python"),
        (b"#!/usr/bin/pypy3\n", "python"),
        (b"#!/usr/bin/env node\r\n", "javascript"),
        (b"#!/usr/bin/nodejs --harmony\n", "javascript"),
        (b"#!/usr/bin/java --source 21\n", "java"),
        (b"#!/bin/sh\nexec python3 $0", None),
        (b"#!/usr/bin/env pythonista\n", None),
        (b"#!/usr/bin/perl -w # python\n", None),
        (b"import os\n", None),
        (b"\x7fELF\x00\x00#!/usr/bin/python\n", None),
        (b"", None),
        (b"#!", None),
        (b"#!" + b" " * 10_000 + b"/usr/bin/python\n", None),
    ],
)
def test_language_by_shebang(line: bytes, language: str | None) -> None:
    assert language_of_shebang(line) == language


def test_extensions_for_the_reader() -> None:
    assert describe_extensions(("python", "java")) == "Python (.py .pyi .pyw), Java (.java)"
