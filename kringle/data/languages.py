"""Which programming language a file is in: from its name, then from its content.

The extension decides first; a file without one is looked at if it is executable, by its interpreter line. Once a file
is read, its content may overrule its name: an interpreter line that names another language does (as GitHub's Linguist
has it), and so does text that is markup or data from its first character on. TypeScript (`.ts`, `.tsx`, `.mts`, `.cts`)
is not JavaScript, Cython (`.pyx`) and Starlark (`.bzl`) are not Python, Kotlin, Groovy and JSP are not Java; `.mjs`
(modules), `.cjs` (CommonJS) and `.jsx` (with XML literals) are JavaScript, and `.pyi` (stubs) is Python. A notebook
(`.ipynb`) is in no language: it holds outputs and prose beside its code, and SantaCoder had none.
"""

from __future__ import annotations

import re

EXTENSIONS = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".java": "java",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
}

TITLES = {"python": "Python", "java": "Java", "javascript": "JavaScript"}

SHEBANG_BYTES = 256  # the kernel itself reads no more of an interpreter line (Linux BINPRM_BUF_SIZE)

_SHEBANG = re.compile(
    rb"#![ \t]*(?:[^\s]*/)?(?:env[ \t]+(?:(?:-\S*|\w+=\S*)[ \t]+)*(?:[^\s]*/)?)?(?P<program>[A-Za-z+-]+)[\d.]*t?\s"
)
_INTERPRETERS = {
    "python": "python",
    "pypy": "python",
    "pypy-c": "python",
    "jython": "python",
    "node": "javascript",
    "nodejs": "javascript",
    "java": "java",
}
_ALIASES = {"js": "javascript", "node": "javascript", "py": "python", "python3": "python"}  # Linguist's own
# Programs that run any language, or none that is known from them: they say nothing about the text after the line.
_NEUTRAL = frozenset(("env", "uv", "pipx", "poetry", "hatch", "nix-shell", "cmd", "true", "false", "jupyter", "bin"))
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh"))
_MARKUP = (("<?xml", "XML"), ("<!doctype", "HTML"), ("<html", "HTML"), ("%!ps", "PostScript"), ("{\\rtf", "RTF"))


def language_of_name(name: str) -> str | None:
    """Language by the extension of a file name, in any case; None when the extension is not one of `EXTENSIONS`."""
    dot = name.rfind(".")
    return EXTENSIONS.get(name[dot:].lower()) if dot > 0 else None


def language_of_shebang(head: bytes) -> str | None:
    """Language by the interpreter line at the start of `head` (the file's first `SHEBANG_BYTES` bytes), or None."""
    program = _interpreter(head)
    return None if program is None else _INTERPRETERS.get(program)


def _interpreter(head: bytes) -> str | None:
    match = _SHEBANG.match(head[:SHEBANG_BYTES] + b"\n")
    return match["program"].decode().lower() if match else None


def language_of_title(title: str) -> str | None:
    """Language by the name that a table or an attribute gives it (`Python`, `JavaScript`, `js`), in any case; None for
    any other."""
    name = title.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in TITLES else None


NOTEBOOK = "notebook: cells with outputs, no source file"


def is_notebook(name: str) -> bool:
    """Whether a file of this name is a Jupyter notebook."""
    return name.lower().endswith(".ipynb")


def contradiction(language: str, content: str) -> tuple[str | None, str] | None:
    """What a file's text says against the language of its name: (the language it is in, if it is one of ours, and the
    evidence), or None when it says nothing against it."""
    head = content[:SHEBANG_BYTES].lstrip("\ufeff")
    program = _interpreter(head.encode("utf-8", "surrogatepass"))
    if program is not None and program not in _NEUTRAL:
        found = _INTERPRETERS.get(program)
        if found != language and not (program in _SHELLS and language == "python" and _starts_python(content)):
            return found, f"the interpreter line names {program}"
    start = head.lstrip()[:16].lower()
    for mark, name in _MARKUP:
        if start.startswith(mark):
            return None, f"the text is {name}"
    return None


def _starts_python(content: str) -> bool:
    """Whether a script for the shell goes on as Python does: the known trick of a string that both languages read."""
    lines = [line.strip() for line in content.split("\n", 12)[1:12]]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return first.startswith(("'''", '"""', '":"', "':'", "''':", '""":', '"exec"', "'exec'", "import ", "from "))


def describe_extensions(languages: tuple[str, ...]) -> str:
    """The supported extensions as a reader wants them: `Python (.py .pyi .pyw), Java (.java)`."""
    return ", ".join(
        f"{TITLES[language]} ({' '.join(e for e, of in EXTENSIONS.items() if of == language)})"
        for language in languages
    )
