"""The playground's code editor: CodeMirror 6 as its npm packages, pinned in `editor.yaml`, served without a bundler.

    python -m kringle.serve.editor [LIST..]      fetch what is missing of it, and of other lists (`make setup` does)

The packages' files stay in the cache as they came, checked against their SHA-256 at every start, and are read from
there: one ES module each, whose imports of one another an import map resolves. Nothing of them runs on this side.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kringle.data.sources.cache import Pinned, cache_folder, is_cached, load_list
from kringle.data.sources.packages import packages
from kringle.errors import UserError

LIST = Path(__file__).with_name("editor.yaml")
URL = "/playground/editor/"
GET = "python -m kringle.serve.editor"


@dataclass(frozen=True)
class Editor:
    """The editor's modules by their path below `URL`, and where each package is imported from."""

    modules: Mapping[str, bytes]
    imports: Mapping[str, str]


def fetch(list_of_packages: Path = LIST) -> None:
    """Download the packages that the cache lacks. UserError where one cannot be had."""
    packages(str(list_of_packages))


def load() -> Editor | None:
    """The editor from the cache; None where a package is not there or is not what the list says."""
    folder, pinned = cache_folder() / "npm", load_list(str(LIST), ("npm",))
    if not all(is_cached(folder, package) for package in pinned):
        return None
    modules, imports = {}, {}
    for package in pinned:
        path, content = _module(folder, package)
        modules[path] = content
        imports[package.name] = URL + path
    return Editor(modules, imports)


def _module(folder: Path, package: Pinned) -> tuple[str, bytes]:
    """(path, content) of the one ES module that a package exports."""
    ((name, _),) = package.files
    with tarfile.open(folder / name) as archive:

        def read(path: str) -> bytes:
            member = archive.extractfile(f"package/{path}")
            assert member is not None, f"{name} has no file {path}"
            return member.read()

        about: dict[str, Any] = json.loads(read("package.json"))
        entry = str(PurePosixPath(about["exports"]["import"]))
        return f"{package.name}@{package.version}/{entry}", read(entry)


def main() -> int:
    """Fetch the editor and the other lists that are named; 2 and one line where that fails."""
    try:
        for one in (LIST, *map(Path, sys.argv[1:])):
            fetch(one)
    except UserError as error:
        print(f"not installed: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
