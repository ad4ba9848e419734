"""A corpus of any size for proofs of scale: the real source files of this machine, again and again, each time changed.

A variant of a file lacks some of its paragraphs, has the others in another order, and a third of its long identifiers
carry the variant's number, so that neither exact nor near-duplicate removal sees through it and the number of distinct
words grows as in new code. It is no substitute for real corpora where quality is measured; for time and memory the
sizes, line lengths and words are those of real files.
"""

from __future__ import annotations

import re
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kringle.randomness import stream

_LONG = re.compile(rb"\b[A-Za-z_][A-Za-z0-9_]{7,}\b")
LARGEST = 200_000  # bytes; a few huge generated files would make up most of a small corpus
JAVA = ("/usr/lib/jvm/*/lib/src.zip",)


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


def changed(name: str, data: bytes, variant: int) -> bytes:
    """The variant of one file; variant 0 is the file itself."""
    if not variant:
        return data
    chance = stream(0, "grown-corpus", name, variant)
    paragraphs = data.split(b"\n\n")
    kept = [paragraphs[i] for i in chance.permutation(len(paragraphs)) if len(paragraphs) < 4 or chance.random() < 0.85]
    words = sorted(set(_LONG.findall(data)))
    renamed = {word: word + b"_%d" % variant for word in words if chance.random() < 0.33}
    text = b"\n\n".join(kept)
    return _LONG.sub(lambda match: renamed.get(match[0], match[0]), text) + b"\n"


def grow(folder: Path, size: int) -> int:
    """Write about `size` bytes of variants to `folder/vN/...`; returns the exact number."""
    files = list(originals())
    total, variant = 0, 0
    while total < size:
        for name, data in files:
            text = changed(name, data, variant)
            target = folder / f"v{variant}-{name.split('/')[0]}" / name.split("/", 1)[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
            total += len(text)
            if total >= size:
                break
        variant += 1
    return total
