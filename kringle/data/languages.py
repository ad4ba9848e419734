"""Which programming language a file is in, from its name or, for scripts without an extension, its first line.

The extension decides: no attempt is made to tell minified or generated code apart here (the basic filter of
`kringle.data.clean` measures that), nor to second-guess a `.js` file that holds something else.
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
    rb"#![ \t]*(?:[^\s]*/)?(?:env[ \t]+(?:(?:-\S*|\w+=\S*)[ \t]+)*(?:[^\s]*/)?)?"
    rb"(?P<program>python|pypy|node|nodejs|java)[\d.]*t?\s"
)
_INTERPRETERS = {
    b"python": "python",
    b"pypy": "python",
    b"node": "javascript",
    b"nodejs": "javascript",
    b"java": "java",
}


def language_of_name(name: str) -> str | None:
    """Language by the extension of a file name, in any case; None when the extension is not one of `EXTENSIONS`."""
    dot = name.rfind(".")
    return EXTENSIONS.get(name[dot:].lower()) if dot > 0 else None


def language_of_shebang(head: bytes) -> str | None:
    """Language by the interpreter line at the start of `head` (the file's first `SHEBANG_BYTES` bytes), or None."""
    match = _SHEBANG.match(head[:SHEBANG_BYTES] + b"\n")
    return _INTERPRETERS[match["program"]] if match else None


def describe_extensions(languages: tuple[str, ...]) -> str:
    """The supported extensions as a reader wants them: `Python (.py .pyi .pyw), Java (.java)`."""
    return ", ".join(
        f"{TITLES[language]} ({' '.join(e for e, of in EXTENSIONS.items() if of == language)})"
        for language in languages
    )
