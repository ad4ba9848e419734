"""The data room's peers: scripts that run in a peer's own environment, and the source files that all are given."""

from __future__ import annotations

import json
import random
import sysconfig
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LARGEST = 300_000  # bytes of a file


def sample(limit: int) -> list[tuple[str, str]]:
    """(language, text) of this machine's source code, about `limit` bytes in all, in an order that is always the same:
    the standard library and site-packages, a JDK's sources, JavaScript below both and in Node's packages."""
    paths = sysconfig.get_paths()
    roots = [Path(paths["stdlib"]), Path(paths["purelib"]), Path("/usr/lib/node_modules"), Path("/usr/share/nodejs")]
    files = [
        (language, path)
        for root in roots
        if root.is_dir()
        for suffix, language in ((".py", "python"), (".js", "javascript"))
        for path in sorted(root.rglob(f"*{suffix}"))
        if path.is_file() and 0 < path.stat().st_size < LARGEST
    ]
    random.Random(0).shuffle(files)
    out: list[tuple[str, str]] = []
    size = 0
    for archive in sorted(Path("/usr/lib/jvm").glob("*/lib/src.zip"))[:1]:
        with zipfile.ZipFile(archive) as zipped:
            members = [name for name in sorted(zipped.namelist()) if name.endswith(".java")]
            for name in random.Random(0).sample(members, min(len(members), limit // 40_000)):
                text = zipped.read(name).decode("utf-8", "ignore")
                out.append(("java", text))
                size += len(text.encode())
    for language, path in files:
        if size >= limit:
            break
        text = path.read_text(encoding="utf-8", errors="ignore")
        out.append((language, text))
        size += len(text.encode())
    random.Random(1).shuffle(out)
    return out


def write_sample(path: Path, texts: list[tuple[str, str]], limit: int) -> None:
    """The first texts, `limit` bytes of them, as JSON Lines for a peer."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for language, text in texts:
            file.write(json.dumps({"language": language, "content": text}) + "\n")
            size += len(text.encode())
            if size >= limit:
                return
