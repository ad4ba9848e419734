"""A corpus of any size for proofs of scale: the real source files of this machine, again and again, each time changed.

A variant of a file has another word for each of its words: one that is about as frequent among all files, one time in
fifty with letters added, which hardly any file has. So it is about as long as the file, parses as it does, and shares
hardly more words with other variants than strangers share; neither exact nor near-duplicate removal sees through it,
and what the tokenizer learns from grows by new words too. It is no substitute for real corpora where quality is
measured; for time and memory the sizes, line lengths, words and duplicates (those among the files, once a variant) are
those of real files.
"""

from __future__ import annotations

import keyword
import re
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kringle.randomness import stream

_WORD = re.compile(rb"\b[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE = re.compile(rb"\\(?:N\{[^}]*\}|[A-Za-z_][A-Za-z0-9_]*)")  # in a string, what follows a backslash is no word
LARGEST = 200_000  # bytes; a few huge generated files would make up most of a small corpus
SHORTEST = 3  # characters of a word that changes: shorter ones are prefixes of strings, operators, units
STRATUM = 512  # words of neighbouring frequency that change places
NEW = 0.02  # share of the words of a variant that get letters added
JAVA = ("/usr/lib/jvm/*/lib/src.zip",)
# Words that stay, or a variant would not parse: keywords, and what Python reads in comments and future imports.
_JAVA = """abstract assert boolean break byte case catch char class const continue default double else enum extends
final finally float for goto if implements import instanceof int interface long native new non open opens package
permits private protected provides public record requires return sealed short static strictfp super switch synchronized
this throw throws transient transitive try uses var void volatile when while with yield exports module to true false
null"""
_JAVASCRIPT = "async await debugger delete export from function get in let of set static target typeof undefined"
_PYTHON = """match case type coding encoding utf latin ascii __future__ annotations division absolute_import generators
generator_stop nested_scopes print_function unicode_literals with_statement barry_as_FLUFL"""
FIXED = frozenset(word.encode() for word in [*keyword.kwlist, *_JAVA.split(), *_JAVASCRIPT.split(), *_PYTHON.split()])


def originals(limit: int = 400_000_000) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of Python and JavaScript files of this Python's installation, and of a JDK's sources."""
    total = 0
    paths = sysconfig.get_paths()
    for root in dict.fromkeys(Path(paths[key]) for key in ("stdlib", "purelib")):
        for file in sorted(root.rglob("*")):
            if file.suffix in (".py", ".js") and file.is_file() and 0 < file.stat().st_size <= LARGEST:
                data = file.read_bytes()
                total += len(data)
                name = f"{root.name}/{file.relative_to(root)}"
                # Under names of their own: sources leave out what is installed in a folder of somebody's code.
                yield name.replace("site-packages", "packages").replace("node_modules", "modules"), data
                if total > limit:
                    return
    for archive in sorted(p for pattern in JAVA for p in Path("/").glob(pattern[1:]) if p.is_file())[:1]:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.filename.endswith(".java") and 0 < entry.file_size <= LARGEST:
                    total += entry.file_size
                    yield f"jdk/{entry.filename}", opened.read(entry)
                    if total > limit:
                        return


def words_of(files: list[tuple[str, bytes]]) -> list[bytes]:
    """The words that may change, by the number of files that have them, and then by the alphabet."""
    counts: Counter[bytes] = Counter()
    for _, data in files:
        counts.update({word for word in _WORD.findall(data) if len(word) >= SHORTEST} - FIXED)
    return sorted(counts, key=lambda word: (-counts[word], word))


def dictionary(words: list[bytes], variant: int) -> dict[bytes, bytes]:
    """What each word is in a variant: the words of a stratum change places, and a few get letters added. Empty for
    variant 0."""
    if not variant:
        return {}
    chance = stream(0, "grown-corpus", variant)
    mark = b"_"
    number = variant
    while number:  # in letters: digits would be tokens of their own
        number, digit = divmod(number, 26)
        mark += bytes([ord("a") + digit])
    out = {}
    for first in range(0, len(words), STRATUM):
        block = words[first : first + STRATUM]
        places, new = chance.permutation(len(block)).tolist(), (chance.random(len(block)) < NEW).tolist()
        out.update({w: block[p] + mark if fresh else block[p] for w, p, fresh in zip(block, places, new, strict=True)})
    return out


def changed(data: bytes, names: dict[bytes, bytes]) -> bytes:
    """A file with its words changed."""
    if not names:
        return data
    out, end = [], 0
    for escape in _ESCAPE.finditer(data):
        out += [_WORD.sub(lambda match: names.get(match[0], match[0]), data[end : escape.start()]), escape[0]]
        end = escape.end()
    out.append(_WORD.sub(lambda match: names.get(match[0], match[0]), data[end:]))
    return b"".join(out)


def home(name: str, variant: int) -> Path:
    """Where a variant of a file lies: every package, and every folder of the standard library, is a repository."""
    *folders, file = name.split("/")
    depth = 3 if "packages" in folders[1:2] else 2
    return Path(f"v{variant}-{'-'.join(folders[:depth])}", *folders[depth:], file)


def variants(first: int = 0) -> Iterator[tuple[str, int, bytes]]:
    """(name, variant, bytes) without end: the files, each as the variant `first`, then each as the next one."""
    files = list(originals())
    words: list[bytes] = []
    while True:
        if first and not words:
            words = words_of(files)
        names = dictionary(words, first)
        for name, data in files:
            yield name, first, changed(data, names)
        first += 1


def grow(folder: Path, size: int, first: int = 0) -> int:
    """Write about `size` bytes of files and their variants, from the number `first` on; returns the exact number."""
    total = 0
    for name, variant, text in variants(first):
        target = folder / home(name, variant)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)
        total += len(text)
        if total >= size:
            return total
    raise AssertionError("variants have no end")
