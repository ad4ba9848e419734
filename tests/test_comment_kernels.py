"""The fast scanners against ast + tokenize and pygments: where they are sure, they are right."""

from __future__ import annotations

import random
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_data_comments import oracle

from kringle.data.comments import exact_comment_ratio, measure_comments

PIECES = [
    *(
        "def f():",
        "async def g(a, *, b=None, **c) -> int:",
        "class C(A):",
        "x = 1",
        '"""doc"""',
        "'doc'  ",
        "# note",
        "#",
    ),
    *("if x:", "else:", "pass", "return x", "(", ")", "[", "]", "{", "}", ",", ";", ":", "=", "->", ":=", "@d", "..."),
    *(
        "'a' 'b'",
        "f'{x}'",
        "f'{x!r:>{w}}'",
        "f'{\"'",
        "b'x'",
        "u'é'",
        'r"\\d"',
        "'\\n'",
        '"""a\n  b\n\t c\n"""',
        "'unclosed",
    ),
    *(
        "\\\n",
        "\n",
        "\n    ",
        "\n        ",
        "\n\t",
        "\r\n",
        "\r",
        "\x0c",
        " ",
        "  # é \u3000",
        "print x",
        "exec 'a'",
        "0777",
    ),
    *(
        "except A, e:",
        "raise A, b",
        "try:",
        "except* E:",
        "finally:",
        "import *",
        "from . import a",
        "lambda: 0",
        "not",
        "in",
    ),
    *(
        "is",
        "1if x else 2",
        "1_000",
        "0xfF",
        "1e5",
        ".5j",
        "5.",
        "10L",
        "None",
        "True",
        "match x:",
        "case 1:",
        "type X = 1",
    ),
    *(
        "a.b",
        "x, = y",
        "*a, b = c",
        "x: int | None = None",
        "None = 1",
        "del x",
        "global x",
        "yield",
        "await z",
        "<>",
        "`x`",
    ),
    *("$", "?", "!", "!=", "~x", "-x", "**", "//", "==", "+=", "@", "<<=", "é = 1", "\u2003", "\ufeff", "\x00"),
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
    | st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join)
)
@settings(deadline=None, max_examples=400)
@example('def b():\n    """\n   y"""\ndef a():\n    """ x """\n')
@example('class A:\n    "c"\n    def f(self):\n        "f"\n\n    async def g(self):\n        "no"\n')
@example("#   \n# x  \n")
@example('"""d"""\n')
@example('"""d""" "e"\n')
@example('x = 1\n"""no"""\n')
@example("def f(): 'inline'\n")
@example("def f():\n    ('doc')\n")
@example("if 1:\n    'no'\n")
@example("if 1:\n    def f():\n        'yes'\n    'no'\n")
@example("class C: # c\n    # d\n\n    'yes'\n")
@example("@d\nclass C(A, b=1):\n    r'yes \\d'\n")
@example("x = '''\\\n# no\n'''\n# yes")
def test_python_where_it_is_sure_it_is_right(source: str) -> None:
    measured = measure_comments(source, "python")
    if measured.fast and source:
        text = exact_comment_ratio(source, "python") * len(source)
        parses = True
        try:
            compile(source.removeprefix("\ufeff"), "x", "exec", dont_inherit=True, flags=0x400)
        except (SyntaxError, ValueError):
            parses = False
        if parses:  # of the others it may miss some that no look at neighbouring tokens can tell
            assert measured.ratio * len(source) == text


JAVASCRIPT = [
    *(
        "// c",
        "/* d */",
        "/*",
        "*/",
        "/",
        "/=",
        "/a[/]b/g",
        "/a/v",
        "x",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ";",
        ",",
        ".",
        "`",
    ),
    *(
        "${",
        "}",
        "'",
        '"',
        "'//'",
        '"/*"',
        "`// ${a} //`",
        "return",
        "in",
        "typeof",
        "$in",
        "in$",
        "1",
        "1.5e3",
        "0x1f",
        "08",
    ),
    *(
        "=>",
        "=",
        "++",
        "--",
        "!",
        "?",
        ":",
        "\\",
        "\\\n",
        "\n",
        "\r\n",
        " ",
        "\t",
        "<!--",
        "-->",
        "#a",
        "#! /x",
        "@",
        "é",
        "\x0b",
    ),
    *(
        "function",
        "class",
        "this",
        "constructor",
        "of",
        "as",
        "null",
        "super(a)",
        "f() {",
        "...",
        "5.",
        ".5",
        "**",
        "??=",
        "<<",
    ),
]
JAVA = [
    *(
        "// c",
        "/* d */",
        "/*",
        "*/",
        "/",
        "'",
        '"',
        "'\"'",
        "'\\''",
        "'\\u0041'",
        "'é'",
        "'\\\\'",
        '"//"',
        '"\\""',
        '"""\nx " y\n"""',
    ),
    *('"""', "class", "interface", "record", "public record", "module", "var", "var x", "import", "import static a.b;"),
    *(
        "package a;",
        "Foo module(",
        "new X(",
        "a.class",
        "@interface",
        "@A(x = 1)",
        "int f(",
        "(",
        ")",
        "{",
        "}",
        ";",
        ".",
        ",",
        "=",
    ),
    *(
        "x",
        "$y",
        "1.5f",
        "0x1F",
        "0b11",
        "10L",
        "case 1:",
        "default:",
        "<T>",
        "[]",
        "?",
        " ",
        "\n",
        "\n  ",
        "\r\n",
        "\t",
        "é",
        "\\",
        "#",
    ),
]


@given(st.lists(st.sampled_from(JAVASCRIPT), max_size=14), st.sampled_from(["", " "]))
@settings(deadline=None, max_examples=400)
@example(["x", " ", "/", "a", "/* d */"], "")
@example(["/a[/]b/g", "\n", "/*", "// c"], " ")
@example(["x", "\n", " /a/", "2 // c"], "")
@example(["==", "=>", "/", "a", "// c"], "")
def test_javascript_where_it_is_sure_it_is_right(pieces: list[str], between: str) -> None:
    source = between.join(pieces)
    measured = measure_comments(source, "javascript")
    assert not measured.fast or measured.ratio == exact_comment_ratio(source, "javascript")


@given(st.lists(st.sampled_from(JAVA), max_size=14), st.sampled_from(["", " "]))
@settings(deadline=None, max_examples=400)
@example(["module", "(", "x", ",", '"//"', ")", ";"], "")
def test_java_where_it_is_sure_it_is_right(pieces: list[str], between: str) -> None:
    source = between.join(pieces)
    measured = measure_comments(source, "java")
    assert not measured.fast or measured.ratio == exact_comment_ratio(source, "java")


def test_real_python_is_scanned_and_agrees() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in sorted(root.rglob("*.py")) if p.stat().st_size < 60_000 and "site-packages" not in p.parts]
    sure = 0
    chosen = random.Random(0).sample(files, 150)
    for path in chosen:
        source = path.read_text(encoding="utf-8", errors="ignore")
        measured = measure_comments(source, "python")
        sure += measured.fast
        if measured.fast and source:
            assert measured.ratio * len(source) == pytest.approx(len(oracle(source))), path
    assert sure > 0.8 * len(chosen)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="newer versions take it")
def test_python_2_is_left_to_the_parser() -> None:
    for source in (
        "'''d'''\nprint 'x'\n",
        "'d'\ntry:\n  a\nexcept A, e:\n  b\n",
        "'d'\nraise A, 'b'\n",
        "'d'\nx = 0777\n",
    ):
        measured = measure_comments(source, "python")
        assert measured == (0.0, False)
