"""Source `git`: the files of HEAD of one repository, a clone or a bare one, through git itself.

What is committed counts, not what lies in the working tree. `.gitattributes` rules that mark files as vendored or
generated (GitHub's `linguist-vendored`, `linguist-generated`) are respected, and one that names a file's language
(`linguist-language`) stands above its extension. Submodules and symbolic links are left
out and counted. Nothing is fetched, no hook and no file system monitor of the repository is run, and nothing is
written into it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from kringle.data.languages import (
    NOTEBOOK,
    SHEBANG_BYTES,
    is_notebook,
    language_of_name,
    language_of_shebang,
    language_of_title,
)
from kringle.data.license_texts import MAX_TEXT_BYTES
from kringle.data.sources.candidates import SYMLINK, Candidate, Found, Lister, printable
from kringle.data.sources.declared import declared_licenses, declares
from kringle.errors import UserError

SUBMODULE = "submodule: a repository of its own"
MISSING = "the blob is missing from the repository"
NO_SIZE = -1  # of a submodule, and of a blob that the repository lacks
_MARKS = ("linguist-vendored", "linguist-generated")
_LANGUAGE = "linguist-language"
_SCRIPT_BYTES = 100_000  # a longer file without an extension is not looked into for an interpreter line

# A repository's own configuration can name programs to run; none of them is wanted for reading.
_SETTINGS = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    f"core.attributesFile={os.devnull}",
    "protocol.allow=never",  # a partial clone must not fetch what it lacks
)
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


class Entry(NamedTuple):
    """One line of `git ls-tree -r -l`."""

    mode: str
    kind: str
    blob: str
    size: int
    path: str

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def command(git_dir: str, *arguments: str) -> list[str]:
    """A git command line that reads from `git_dir` and runs nothing that the repository configures."""
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return ["git", *settings, f"--git-dir={git_dir}", *arguments]


def environment(**extra: str) -> dict[str, str]:
    """Environment for git: the caller's own, without what a surrounding git has set."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _ENVIRONMENT | extra


def _run(git_dir: str, *arguments: str, input: bytes = b"", **extra: str) -> bytes:
    done = subprocess.run(
        command(git_dir, *arguments), input=input, capture_output=True, check=False, env=environment(**extra)
    )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(
            f"git {arguments[0]} failed: {lines[-1].removeprefix('fatal: ')}",
            where=printable(git_dir),
            hint="try git fsck there",
        )
    return done.stdout


class Blobs:
    """Contents of blobs by id, through one `git cat-file --batch`; use as a context manager."""

    def __init__(self, git_dir: str) -> None:
        self._process = subprocess.Popen(
            command(git_dir, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )

    def __enter__(self) -> Blobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the git process."""
        with self._process as process:
            if process.stdin is not None:
                process.stdin.close()

    def read(self, blob: str) -> bytes:
        """The bytes of a blob. Raises `OSError` when the repository does not have it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{blob}\n".encode())
        stdin.flush()
        header = stdout.readline().split()
        if len(header) != 3:
            raise OSError(0, MISSING)
        data = stdout.read(int(header[2]) + 1)[:-1]
        if len(data) != int(header[2]):
            raise OSError(0, "git ended while reading the blob")
        return data


def find_git_dir(path: Path) -> str:
    """The git directory of a clone (`path/.git`) or of a bare repository (`path`). Raises `UserError`."""
    if shutil.which("git") is None:
        raise UserError("git is not installed", where=printable(str(path)), hint="install git or use source folder")
    try:
        if not path.exists():
            raise UserError("no such repository", where=printable(str(path)), hint="check the path given as source")
        if (path / ".git").exists():
            return str(path.resolve() / ".git")
        if (path / "HEAD").is_file() and (path / "objects").is_dir():
            return str(path.resolve())
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=printable(str(path)), hint="check its permissions"
        ) from None
    raise UserError(
        "is not a git repository", where=printable(str(path)), hint="use source folder for a plain directory"
    )


def git(path: Path, languages: Collection[str]) -> Found:
    """Candidates of HEAD of the repository at `path`. Raises `UserError` when that is no repository with a commit."""
    path = path.expanduser()
    git_dir = find_git_dir(path)
    try:
        commit = _run(git_dir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
    except UserError:
        raise UserError(
            "has no commit to read", where=printable(str(path)), hint="commit something, or use source folder"
        ) from None
    repo = path.resolve().name.removesuffix(".git") or "repository"
    entries = list(_tree(_run(git_dir, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)))
    lister = Lister("git", languages)
    marked, named = _attributes(git_dir, commit, entries)
    try:
        with Blobs(git_dir) as blobs:
            licenses = _licenses(entries, blobs)
            for entry in entries:
                language = _consider(entry, repo, lister, blobs, marked, named)
                if language is not None:
                    lister.found.candidates.append(
                        Candidate(
                            "git", printable(repo), printable(entry.path), language, entry.size, 0,
                            licenses[entry.folder], commit, None, "git", git_dir, entry.blob,
                        )
                    )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=printable(git_dir), hint="clone it in full"
        ) from None
    return lister.found


def _consider(
    entry: Entry, repo: str, lister: Lister, blobs: Blobs, marked: Mapping[str, str], named: Mapping[str, str]
) -> str | None:
    """The language of an entry that is a candidate; None, with the reason recorded, for any other."""
    if is_notebook(entry.name) and "python" in lister.languages and entry.kind == "blob":
        lister.skip(repo, entry.path, NOTEBOOK)
        return None
    told = named.get(entry.path)
    language = language_of_name(entry.name) if told is None else language_of_title(told)
    script = language is None and told is None and "." not in entry.name
    if entry.kind == "commit":
        lister.skip(repo, entry.path, SUBMODULE)
    elif entry.mode == "120000":
        if script or language in lister.languages:
            lister.skip(repo, entry.path, SYMLINK)
    elif entry.size == NO_SIZE:
        if language in lister.languages:
            lister.skip(repo, entry.path, f"unreadable: {MISSING}")
    else:
        if script and entry.mode == "100755" and entry.size <= _SCRIPT_BYTES:
            language = language_of_shebang(blobs.read(entry.blob)[:SHEBANG_BYTES])
        if lister.wanted(language, entry.name):
            if entry.path not in marked:
                return language
            lister.skip(repo, entry.path, f"marked {marked[entry.path]} in .gitattributes")
    return None


def _tree(listing: bytes) -> Iterator[Entry]:
    for line in listing.split(b"\0"):
        if line:
            description, _, path = line.partition(b"\t")
            mode, kind, blob, size = description.decode().split()
            yield Entry(mode, kind, blob, int(size) if size.isdigit() else NO_SIZE, os.fsdecode(path))


def _licenses(entries: Sequence[Entry], blobs: Blobs) -> Mapping[str, tuple[str, ...]]:
    """Licences that apply in every directory: what it declares itself, else what the nearest one above does."""
    declaring: dict[str, dict[str, Entry]] = {}
    folders = {""}
    for entry in entries:
        folder = entry.folder
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
        if entry.kind == "blob" and entry.mode != "120000" and declares(entry.name):
            declaring.setdefault(entry.folder, {})[entry.name] = entry

    found: dict[str, tuple[str, ...]] = {}
    for folder in sorted(folders):  # parents before what is in them
        files = declaring.get(folder, {})

        def read(name: str, files: Mapping[str, Entry] = files) -> str | None:
            entry = files[name]
            return blobs.read(entry.blob).decode("utf-8", "replace") if entry.size <= MAX_TEXT_BYTES else None

        found[folder] = declared_licenses(files, read) or (found[folder.rpartition("/")[0]] if folder else ())
    return found


def _attributes(git_dir: str, commit: str, entries: Sequence[Entry]) -> tuple[dict[str, str], dict[str, str]]:
    """Paths that `.gitattributes` marks as vendored or generated, with the mark; and paths whose language it names.

    Attributes are read from an index made for the purpose, because git before 2.40 cannot read them from a commit.
    """
    if not any(entry.name == ".gitattributes" for entry in entries):
        return {}, {}
    with tempfile.TemporaryDirectory(prefix="kringle-git-") as scratch:
        index = str(Path(scratch) / "index")
        _run(git_dir, "read-tree", commit, GIT_INDEX_FILE=index)
        paths = b"\0".join(os.fsencode(entry.path) for entry in entries) + b"\0"
        wanted = (*_MARKS, _LANGUAGE)
        output = _run(git_dir, "check-attr", "--cached", "-z", "--stdin", *wanted, input=paths, GIT_INDEX_FILE=index)
    fields = output.split(b"\0")
    triples = list(zip(fields[0::3], fields[1::3], fields[2::3], strict=False))
    language = _LANGUAGE.encode()
    marked = {os.fsdecode(p): m.decode() for p, m, value in triples if m != language and value in (b"set", b"true")}
    unsaid = (b"unspecified", b"unset", b"set")
    named = {
        os.fsdecode(p): value.decode("utf-8", "replace")
        for p, m, value in triples
        if m == language and value not in unsaid
    }
    return marked, named
