"""Makes `letter_pairs.csv`, the vocabulary that `rarity` compares strings with. Run once, when the table is to change:

    python -m kringle.pii.count_letter_pairs ROOT... > kringle/pii/letter_pairs.csv

Counted are the pairs of neighbouring characters in every identifier that occurs in at least two source files: what
only one file holds may be a key, and data in base 64 repeats itself nowhere. Each identifier counts once, numbers and
hexadecimal not at all. Files of up
to 200 kB are taken in the order of a hash of their path, up to 50 MB a language; archives called `src.zip` count as
folders.

The table that is shipped was counted over the public code of one machine: the standard libraries of Python 2.7 and 3.6
to 3.13 with installed packages, the sources of OpenJDK 25, and the packages that come with npm.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from kringle.pii.rarity import CLASS_OF, CLASSES

LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".java": "java"}
FILE_LIMIT, LANGUAGE_LIMIT = 200_000, 50_000_000  # bytes
IDENTIFIER = re.compile(rb"[A-Za-z0-9_]{4,60}")
NUMBER = re.compile(rb"[0-9]+|(?=.*[0-9])(?:[0-9a-f]{7,}|[0-9A-F]{7,})")  # also commits and digests

Source = tuple[str, int, Callable[[], bytes]]  # path, size, how to read it


def count_pairs(words: Iterable[bytes]) -> np.ndarray:
    """Counts of neighbouring classes of characters over words, (54, 54) int64."""
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for word in words:
        codes = np.frombuffer(word.translate(CLASS_OF), dtype=np.uint8)
        np.add.at(counts, (codes[:-1], codes[1:]), 1)
    return counts


def sources(roots: Iterable[Path]) -> Iterator[Source]:
    """Source files of folders, and of archives called `src.zip` in them."""
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.name == "src.zip" and path.is_file():
                archive = zipfile.ZipFile(path)
                for member in archive.infolist():
                    yield f"{path}!{member.filename}", member.file_size, functools.partial(archive.read, member)
            elif path.suffix in LANGUAGES and path.is_file() and not path.is_symlink():
                yield str(path), path.stat().st_size, path.read_bytes


def vocabulary(found: Iterable[Source]) -> list[bytes]:
    """Identifiers of at least two distinct files."""
    left = dict.fromkeys(LANGUAGES.values(), LANGUAGE_LIMIT)
    seen: set[bytes] = set()
    files: Counter[bytes] = Counter()
    for path, size, read in sorted(found, key=lambda source: hashlib.blake2b(source[0].encode()).digest()):
        language = LANGUAGES.get(Path(path.rpartition("!")[2]).suffix, "")
        if not language or size > FILE_LIMIT or left[language] < size:
            continue
        data = read()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            left[language] -= size
            files.update(set(IDENTIFIER.findall(data)))
    return [word for word, count in files.items() if count >= 2 and not NUMBER.fullmatch(word)]


def main() -> None:
    words = vocabulary(sources([Path(root) for root in sys.argv[1:]]))
    print(f"# Pairs of neighbours in {len(words)} identifiers; rows first, columns second; a-z A-Z digit joiner")
    for row in count_pairs(words):
        print(",".join(map(str, row)))


if __name__ == "__main__":
    main()
