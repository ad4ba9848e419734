"""Which code a stage runs: the modules that it imports, followed to the end, and the versions of what they import.

A fingerprint made from this changes when anything changes that could change a result, and only then; nobody keeps lists
by hand. Imports are read from the source (those inside functions too, those for type checkers alone not). Data files
beside a module (tables, templates, suites) count as its code where it speaks of them. Not covered: modules that are
imported by a name which is computed, and files that are run as programs without being imported; a stage names those
among its entries.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from kringle import pycache

PACKAGE = "kringle"
ROOT = Path(__file__).parent
# What each module imports, with the hash of its source: to parse all of them takes 0.4 s. Named after what read it.
_PARSED = f"imports-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}-{sys.implementation.cache_tag}.json"
# They carry work or settings, which are part of a stage's fingerprint themselves, without a say in what comes out.
_CARRYING = ("code_version", "engine", "errors", "progress", "pycache", "quantities", "recipe", "settings", "workspace")
CARRIERS = frozenset(f"{PACKAGE}.{name}" for name in _CARRYING)

_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # of a statement that holds others
_DISTRIBUTIONS = {"yaml": "PyYAML"}  # others are found as well, by a slow look at all that is installed


def code_fingerprint(entries: Sequence[str]) -> str:
    """Of the modules (`"data.clean"`) or packages (`"evaluation.jail"`) inside Kringle and of all that they import."""
    digest = hashlib.sha256()
    for file in sorted(_files(_closure(entries))):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(_content(file)).digest())
    for name, version in library_versions(entries).items():
        digest.update(f"{name}={version}\0".encode())
    _keep_parsed()
    return digest.hexdigest()[:32]


def library_versions(entries: Sequence[str]) -> dict[str, str]:
    """Python's version, and that of every distribution that these modules import ("absent" if it is not installed)."""
    imported = {name for module in _closure(entries) for name in _imports(module)}
    tops = {name.partition(".")[0] for name in imported} - {PACKAGE, "__future__"} - sys.stdlib_module_names
    return {"python": platform.python_version(), **dict(sorted(map(_distribution, tops)))}


@functools.cache
def _distribution(package: str) -> tuple[str, str]:
    try:
        name = _DISTRIBUTIONS.get(package, package)
        return name, metadata.version(name)
    except metadata.PackageNotFoundError:  # its distribution has another name (`yaml` is in PyYAML), or it is an extra
        names = _distributions().get(package) if find_spec(package) is not None else None
        return (names[0], metadata.version(names[0])) if names else (package, "absent")


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {package: sorted(names) for package, names in metadata.packages_distributions().items()}


def _closure(entries: Sequence[str]) -> frozenset[str]:
    """Full names of all modules of Kringle that the entries reach, the packages that they lie in included."""
    todo = [module for entry in entries for module in _modules(f"{PACKAGE}.{entry}")]
    found: set[str] = set()
    while todo:
        module = todo.pop()
        if module in found or module in CARRIERS:
            continue
        found.add(module)
        parent = module.rpartition(".")[0]
        if parent and parent != PACKAGE:  # importing a module runs the packages around it
            todo.append(parent)
        todo += [name for name in _imports(module) if _path(name) is not None]
    return frozenset(found)


def _modules(entry: str) -> Iterator[str]:
    """A module itself, or all modules of a package."""
    path = _path(entry)
    if path is None:
        raise ValueError(f"{entry} is no module of Kringle")
    yield entry
    if path.name == "__init__.py":
        for file in path.parent.rglob("*.py"):
            parts = file.relative_to(ROOT.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _path(module: str) -> Path | None:
    """The file of a module of Kringle; None for other modules and for names inside modules."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    place = ROOT.joinpath(*parts[1:])
    candidates = (place / "__init__.py", place.with_suffix(".py")) if len(parts) > 1 else (place / "__init__.py",)
    return next((file for file in candidates if file.is_file()), None)


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """What a module imports, by full name; of `from a import b` both `a` and `a.b`, which may be a module."""
    path = _path(module)
    assert path is not None
    digest = hashlib.sha256(_content(path)).hexdigest()
    known, names = _parsed().get(module, ("", []))
    if known != digest:
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = sorted(set(_imported(ast.parse(_content(path)), package.split("."))))
        _parsed()[module] = (digest, names)
        _new.append(module)
    return frozenset(names)


@functools.cache
def _parsed() -> dict[str, tuple[str, list[str]]]:
    """What was parsed before, by any process: module -> hash of its source, names."""
    kept = pycache.read(__file__, _PARSED)
    try:
        return {} if kept is None else {module: (digest, names) for module, (digest, names) in json.loads(kept).items()}
    except (ValueError, TypeError, AttributeError):  # damaged
        return {}


_new: list[str] = []  # modules that this process has parsed and not kept yet


def _keep_parsed() -> None:
    if _new:
        pycache.write(__file__, _PARSED, json.dumps(_parsed()).encode())
        _new.clear()


def _imported(block: ast.AST, package: Sequence[str]) -> Iterator[str]:
    """Names that the statements in a block import. Expressions, most of a module, hold none and are not looked into."""
    if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
        held: Sequence[ast.AST] = block.orelse
    else:
        held = [statement for part in _BLOCKS for statement in getattr(block, part, ())]
    for statement in held:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                base = ".".join([*package[: len(package) - statement.level + 1], *([base] if base else [])])
            yield base
            if base.partition(".")[0] == PACKAGE:
                yield from (f"{base}.{alias.name}" for alias in statement.names)
        else:
            yield from _imported(statement, package)


def _files(modules: frozenset[str]) -> Iterator[Path]:
    """The modules' files, and the data files beside them, or in folders beside them, that they speak of."""
    sources: dict[Path, list[bytes]] = {}
    for module in modules:
        path = _path(module)
        assert path is not None
        yield path
        sources.setdefault(path.parent, []).append(_content(path))
    for folder, contents in sources.items():
        if folder != ROOT:
            text = b"".join(contents)
            yield from (file for file in _data(folder) if any(word in text for word in _words(file, folder)))


def _words(file: Path, folder: Path) -> Iterator[bytes]:
    """What source code says that reads this file: its name, its suffix, or the folder that it lies in."""
    yield from (word.encode() for word in (file.name, file.suffix, *file.relative_to(folder).parts[:-1]) if word)


def _data(folder: Path) -> Iterator[Path]:
    for place in folder.iterdir():
        if place.is_dir():
            if place.name != "__pycache__" and not (place / "__init__.py").exists():
                yield from _data(place)
        elif place.suffix not in (".py", ".pyc"):
            yield place


@functools.cache
def _content(file: Path) -> bytes:
    return file.read_bytes()
