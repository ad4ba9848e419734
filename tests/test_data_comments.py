from __future__ import annotations

import ast
import io
import sys
import sysconfig
import tokenize
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kringle.data.comments import comment_ratio, lexes_by_pattern, python_text, tokenized_comments


def oracle(source: str) -> str:
    """The definition, with ast.walk and tokenize and nothing clever."""
    kinds = {"ClassDef": "Class", "FunctionDef": "Function/Method", "Module": "Module"}
    try:
        nodes: list[Any] = [n for n in ast.walk(ast.parse(source)) if type(n).__name__ in kinds]
        found = [(kinds[type(n).__name__], getattr(n, "name", ""), ast.get_docstring(n)) for n in nodes]
        docstrings = "\n".join(text for _, _, text in sorted(found, key=lambda item: item[:2]) if text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        docstrings = ""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        comments = "".join(t.string for t in tokens if t.type == tokenize.COMMENT).replace("#", "")
    except (tokenize.TokenError, SyntaxError):
        comments = ""
    return (docstrings + "\n" + comments).strip()


# The probe of the reference function: module docstring, comment, function docstring, trailing comment.
PROBE = '"""mod doc"""\n# hi\ndef f():\n    """fdoc"""\n    return 1  # t\n'


def test_the_probe() -> None:
    assert python_text(PROBE) == "fdoc\nmod doc\n hi t"
    assert comment_ratio(PROBE, "python") == len("fdoc\nmod doc\n hi t") / len(PROBE)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\n", ""),
        ("", ""),
        ("# a\n# b\n", "a b"),
        ("## a # b\n", "a  b"),
        ("x = '# no'  # yes\n", "yes"),
        ('x = """\n# no\n"""  # yes\n', "yes"),
        ("x = 'it\\'s # no'  # yes\n", "yes"),
        ("x = 'a\\\n# no'  # yes\n", "yes"),
        ("x = 'a\\\r\n# no'  # yes\r\n", "yes"),
        ("x = r'\\'  # no'  # yes\n", "yes"),
        ("x = rb'\\'' + u'#'  # yes\n", "yes"),
        ("x = ''  # yes\n", "yes"),
        ("x = ''''# no'''  # yes\n", "yes"),
        ('x = """a""b\\"""" # yes\n', "yes"),
        ('async def f():\n    """no"""\n', ""),
        ('async def f():\n    def g():\n        """yes"""\n', "yes"),
        ('class C:\n    """c"""\n    def f(self):\n        """f"""\n', "c\nf"),
        ('def z():\n    """z"""\ndef a():\n    """a"""\nclass K:\n    """k"""\n', "k\na\nz"),
        ('if 1:\n    def f():\n        """f"""\nelse:\n    class K:\n        """k"""\n', "k\nf"),
        ('try:\n    pass\nexcept E:\n    def f():\n        """f"""\nfinally:\n    def g():\n        """g"""\n', "f\ng"),
        ('match x:\n    case 1:\n        def f():\n            """f"""\n', "f"),
        ('with x:\n    for i in x:\n        while 1:\n            def f():\n                """f"""\n', "f"),
        ('def f():\n    """\n      indented\n    less\n    """\n', "indented\nless"),
        ('x = 1\n"""not a docstring"""\n', ""),
        ("print 'python 2'  # but tokenized\n", "but tokenized"),
        ("def f(:\n    # dropped with the bracket\n", ""),
        ('"""open\n# no\n', ""),
        ("\ufeff# marked\n", "marked"),
        ("# caf\u00e9 \u2028 x\n", "caf\u00e9 \u2028 x"),
        ("x = 1\\\n# no comment\n", "no comment"),
    ],
)
def test_natural_text_of_python(source: str, text: str) -> None:
    assert python_text(source) == text
    if not source.startswith("\ufeff"):
        assert oracle(source) == text


@pytest.mark.parametrize(
    "source", ["(" * 5000, "x = " + "-" * 200_000 + "1", "\x00", "a" + " + a" * 20_000, "if 1:\n" * 150]
)
def test_source_that_breaks_parsers_is_silent(source: str) -> None:
    assert python_text(source) == ""


def test_bare_carriage_returns_are_left_to_the_tokenizer() -> None:
    for source in ("# a\rx = 1  # b\n", "x = 1\r# a\r", "x = 1  # a\ry = '# b'\n"):
        assert not lexes_by_pattern(source, (3, 11))
        assert python_text(source) == oracle(source)
    assert lexes_by_pattern("# a\r\nx = 1\r\n", (3, 11))


def test_formatted_strings_are_left_to_the_tokenizer_where_they_may_nest() -> None:
    for source in ("f'x'", 'rf"""x"""', "(F'{1}')", "t'x'", "Rt'x'"):
        assert lexes_by_pattern(source, (3, 11))
        assert not lexes_by_pattern(source, (3, 12))
    assert lexes_by_pattern("self.f = g('x')  # elf'", (3, 14))
    nested = 'x = f"{d["# no"]}"  # yes\n'
    if sys.version_info >= (3, 12):
        assert python_text(nested) == "yes"


def test_real_python_files_against_the_definition() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    names = ["json", "email", "asyncio", "lib2to3/pgen2", "unittest", "xml/dom"]
    paths = [*sorted(p for name in names for p in (library / name).glob("*.py"))[:60], library / "decimal.py"]
    assert len(paths) > 50
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in paths:
            source = path.read_text(encoding="utf-8")
            assert python_text(source) == oracle(source)
            seen += bool(python_text(source))
    assert seen > 40


_lines = st.sampled_from(
    [
        "# c1",
        "x = 1  # c2",
        "    ",
        "x = '''a",
        "# b''' # c3",
        'y = "# s" # c4',
        "def f():",
        '    """doc # 1"""',
        "class K:",
        "    '''k",
        "    more'''",
        "\\",
        "(",
        ")  # c5",
        "'",
        '"""',
        "\tpass",
        "    pass",
        "pass\r",
        "z = b'\\'#'",
    ]
)


@settings(deadline=None)
@example(["# c1", "\\"], "\r\n")
@given(st.lists(_lines, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_random_source_against_the_definition(lines: list[str], end: str) -> None:
    source = end.join(lines) + end
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert python_text(source) == oracle(source)


# -- Java and JavaScript -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "source", "characters"),
    [
        ("java", "int x; // one\n", len("// one")),
        ("java", "/* a\n b */ int x;\n", len("/* a\n b */")),
        ("java", "/** javadoc */\nclass A {}\n", len("/** javadoc */")),
        ("java", 'String s = "// no";\n', 0),
        ("java", "/* a\r\n b */\r\n", len("/* a\n b */")),  # the lexer's own reading of line ends
        ("javascript", "var x; // one\n/* two */\n", len("// one") + len("/* two */")),
        ("javascript", "#!/usr/bin/env node\nvar x;\n", 0),
        ("javascript", "<!-- html\nvar x;\n", 0),
        ("javascript", "var r = /\\/\\/ no/; // yes\n", len("// yes")),
        ("javascript", "var t = `// no ${1}`;\n", 0),
    ],
)
def test_comments_of_java_and_javascript(language: str, source: str, characters: int) -> None:
    assert comment_ratio(source, language) == characters / len(source)


def test_an_empty_text_has_ratio_zero() -> None:
    assert comment_ratio("", "python") == comment_ratio("", "java") == 0.0


def test_tokenizer_faults_silence_all_comments() -> None:
    assert tokenized_comments("# a\n(\n# b\n") == ""
    assert tokenized_comments("# a\nx = 1\n# b\n") == "# a# b"
