"""The workspace: what has been done, under which fingerprint, so that a rerun does only what is missing.

A stage is published under the fingerprint of its settings, its inputs' fingerprints, the source code that it runs and
the versions of the libraries that it imports. Inside a stage, shards have fingerprints of their own: a SIGKILL costs
the shards in flight, a changed input only its own shards. Publication is a rename, so a folder that is there is whole.
Layout:

    workspace.json                    format and version
    stages/NAME-FINGERPRINT/          a published stage: its files and manifest.json
    stages/NAME-FINGERPRINT.partial/  one in the making; a rerun continues in it
    shards/NAME/FINGERPRINT/          outputs of single shards, shared by all runs
    opt-outs.txt                      what no run in this workspace may use
    opt-out-unfinished.json           what an opt-out that was interrupted has still to take out
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import kringle
from kringle.code_version import code_fingerprint, library_versions
from kringle.engine import Engine, Part, PartDone, Stopwatch
from kringle.errors import UserError

FORMAT = 1  # raised when the layout above changes
_ROWS_AT_ONCE = 10_000  # of a fingerprint: a few megabytes of text


def fingerprint(*parts: Any) -> str:
    """SHA-256 (hex, 32 digits) of JSON-able parts; keys are sorted, so the order of a mapping does not matter."""
    return hashlib.sha256(_json(parts)).hexdigest()[:32]


def fingerprint_of_rows(rows: Iterable[Any], *parts: Any) -> str:
    """`fingerprint(list(rows), *parts)` with a bounded number of rows in memory."""
    digest = hashlib.sha256(b"[[")
    rows, between = iter(rows), b""
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        digest.update(between + _json(some)[1:-1])
        between = b","
    digest.update(b"]" + b"".join(b"," + _json(part) for part in parts) + b"]")
    return digest.hexdigest()[:32]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new content, never half of it, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")  # folders may be shared
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_half_written(path: Path) -> None:
    """Remove what killed processes were in the middle of writing beside `path`, to be renamed to it."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()


def publish_folder(partial: Path, final: Path) -> None:
    """Rename a finished folder into place, its files flushed to disk first."""
    _flush(partial)
    if final.exists():
        shutil.rmtree(final)
    _rename(partial, final)


def _publish_once(partial: Path, final: Path, last: str) -> None:
    """As `publish_folder`, where other processes may publish the same at the same moment: the first one's stays. `last`
    is the file without which a folder is not whole."""
    _flush(partial)
    if final.exists() and not (final / last).exists():
        shutil.rmtree(final)
    try:
        _rename(partial, final)
    except OSError:
        if not (final / last).exists():
            raise
        shutil.rmtree(partial)


def _flush(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_nlink == 1:  # else it is a shard's, which was flushed when it was made
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _rename(partial: Path, final: Path) -> None:
    partial.rename(final)  # fails where `final` is a folder with something in it
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_hidden(folder: Path) -> None:
    """Remove what a killed run was in the middle of writing: files and folders whose names begin with a dot."""
    for leftover in sorted(folder.rglob(".*"), reverse=True):  # what is inside a folder comes before it
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


class Task(NamedTuple):
    """One shard's work: `function(payload, folder)` is run unless its fingerprint is already in the store."""

    name: str
    fingerprint: str
    payload: Any


class ShardStore:
    """Outputs of single shards, by fingerprint. They outlive kills and serve every later run of the same stage."""

    def __init__(self, root: Path, salt: str) -> None:
        self.root, self.salt = root, salt

    def folder(self, fingerprinted: str) -> Path:
        """Where the outcome of the task with this fingerprint is, or will be."""
        return self.root / fingerprint(self.salt, fingerprinted)

    def map(
        self,
        engine: Engine,
        function: Callable[[Any, Path], dict[str, Any]],
        tasks: Sequence[Task],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Path]:
        """Run what is missing; return one published folder per task, in order, each with a `summary.json`.

        `on_done(index)` is called for every task, those found in the store included. With a part of a job array, runs
        what that part claims, and raises `PartDone` unless the others have done theirs.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob("*.partial"):  # of a killed run: nobody else works on these shards now
            own = engine.part is None or engine.part.claims(leftover.name.partition(".")[0])
            if own and not (engine.part is not None and _in_the_making(leftover)):
                shutil.rmtree(leftover, ignore_errors=True)
        folders = [self.folder(task.fingerprint) for task in tasks]
        missing = [i for i, folder in enumerate(folders) if not (folder / "summary.json").exists()]
        for i in sorted(set(range(len(tasks))) - set(missing)):
            if on_done:
                on_done(i)
        part = engine.part
        mine = [i for i in missing if part is None or part.claims(folders[i].name)]
        others = sorted(set(missing) - set(mine))
        payloads = [(function, tasks[i].payload, folders[i]) for i in mine]
        for i, _ in zip(mine, engine.map(run_shard, payloads, names=[tasks[i].name for i in mine]), strict=True):
            if on_done:
                on_done(i)
        if part is not None:
            claimed = sum(part.claims(folder.name) for folder in folders)
            if left := sum(not (folders[i] / "summary.json").exists() for i in others):
                raise PartDone(claimed, len(tasks), left)
        return folders


def shard_summary(folder: Path) -> dict[str, Any]:
    """What the function that made a shard in the store returned."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def _in_the_making(partial: Path) -> bool:
    """Whether the process that `run_shard` named this folder after is alive on this machine: a part's, say, of an array
    that was cut into another number of parts."""
    maker, _, process = partial.name.removesuffix(".partial").rpartition(".")
    if maker.partition(".")[2] != platform.node():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def run_shard(job: tuple[Callable[[Any, Path], dict[str, Any]], Any, Path]) -> None:
    """Work on one shard and publish its folder; in a worker, which may be one of several at the same shard where a
    cluster takes a machine for lost. The first one to end publishes; they all made the same."""
    function, payload, final = job
    partial = final.with_name(f"{final.name}.{platform.node()}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        summary = function(payload, partial)
        write_atomically(partial / "summary.json", json.dumps(summary))
        _publish_once(partial, final, "summary.json")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@dataclass(frozen=True)
class Stage:
    """One step of a run under its fingerprint. Picklable, so that a worker process may run it."""

    name: str
    fingerprint: str
    root: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: str
    entries: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.root / "stages" / f"{self.name}-{self.fingerprint[:12]}"

    @property
    def partial(self) -> Path:
        return self.folder.with_name(self.folder.name + ".partial")

    def manifest(self) -> dict[str, Any] | None:
        """What was published, or None. A folder with missing or cut files counts as not published."""
        path = self.folder / "manifest.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.get("fingerprint") != self.fingerprint:
            return None
        if not isinstance(manifest.get("files"), dict):
            return None
        for name, size in manifest["files"].items():
            file = self.folder / name
            if not file.exists() or file.stat().st_size != size:
                return None
        return manifest

    def run(self, engine: Engine, function: Callable[[Path, ShardStore], dict[str, Any]]) -> dict[str, Any]:
        """Return the manifest, running `function(out, shards)` first if the stage is not published yet.

        `function` writes into the folder `out`, which may hold what a killed run left there, and returns a summary.
        """
        if (done := self.manifest()) is not None:
            return done
        # Parts of a job array may be at the same stage at once, so each has a folder of its own.
        suffix = f".part-{engine.part.number}-of-{engine.part.of}.partial" if engine.part is not None else ".partial"
        partial = self.folder.with_name(self.folder.name + suffix)
        if engine.part is None:
            for leftover in self.folder.parent.glob(f"{self.folder.name}.part-*.partial"):  # of parts that were killed
                shutil.rmtree(leftover)
        partial.mkdir(parents=True, exist_ok=True)
        _remove_hidden(partial)
        watch = Stopwatch(engine)
        try:
            summary = function(partial, ShardStore(self.root / "shards" / self.name.split("@")[0], self.code))
        except PartDone:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        files = {
            str(p.relative_to(partial)): p.stat().st_size
            for p in sorted(partial.rglob("*"))
            if p.is_file() and p != partial / "manifest.json"
        }
        manifest = {
            "stage": self.name,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "inputs": self.inputs,
            "code": self.code,
            "versions": library_versions(self.entries),
            "kringle": kringle.__version__,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cost": watch.read(),
            "files": files,
            "summary": summary,
        }
        write_atomically(partial / "manifest.json", json.dumps(manifest, indent=1))
        if engine.part is None:
            publish_folder(partial, self.folder)
        else:
            _publish_once(partial, self.folder, "manifest.json")
        return manifest


def opt_outs_file(root: Path) -> Path:
    """Where a workspace remembers what was opted out in it."""
    return root / "opt-outs.txt"


def unfinished_opt_out_file(root: Path) -> Path:
    """Where a workspace keeps what an opt-out takes out, from before its first step until after its last."""
    return root / "opt-out-unfinished.json"


class Workspace:
    """A folder that holds runs. One run at a time may write to it: a process, or the parts of a job array."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._locks: list[IO[str]] = []

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Workspace:
        """Open or make a workspace; refuses a folder that is something else, or a workspace of another version."""
        root = root.expanduser().absolute()
        marker = root / "workspace.json"
        try:
            if root.exists() and not root.is_dir():
                raise UserError("is a file, not a folder", where=str(root), hint="choose another --work folder")
            if not marker.exists():
                if not create:
                    raise UserError("is not a workspace", where=str(root), hint="make one with kringle run --work DIR")
                if root.exists() and any(root.iterdir()):
                    raise UserError(
                        "is a folder with other things in it",
                        where=str(root),
                        hint="choose an empty or new --work folder",
                    )
                root.mkdir(parents=True, exist_ok=True)
                write_atomically(marker, json.dumps({"format": FORMAT, "kringle": kringle.__version__}))
        except OSError as error:
            raise UserError(
                f"cannot be used as a workspace: {error.strerror}", where=str(root), hint="choose another --work folder"
            ) from None
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
            version = found["format"]
        except (json.JSONDecodeError, KeyError, TypeError, OSError):
            raise UserError(
                "cannot be read as a workspace", where=str(marker), hint="choose another --work folder"
            ) from None
        if version != FORMAT:
            maker = f"Kringle {found.get('kringle', 'unknown')}"
            raise UserError(
                f"is a workspace of format {version}, made by {maker}; this version reads format {FORMAT}",
                where=str(root),
                hint="choose another --work folder or the Kringle that made it",
            )
        return cls(root)

    def lock(self, part: Part | None = None) -> None:
        """Take the workspace for this process until it ends; refuses at once if another run holds it.

        Parts of a job array hold it together, each part once.
        """
        busy = "another run is using this workspace"
        self._locks = [self._locked("lock", fcntl.LOCK_EX if part is None else fcntl.LOCK_SH, busy)]
        if part is not None:
            what = f"part {part} is being worked on already"
            self._locks.append(self._locked(f"lock-part-{part.number}-of-{part.of}", fcntl.LOCK_EX, what))

    def _locked(self, name: str, kind: int, busy: str) -> IO[str]:
        try:
            file = (self.root / name).open("a+")
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=str(self.root)) from None
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(busy, where=str(self.root), hint="wait for it, or use another --work") from None
        return file

    def stage(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Iterable[Stage] = (),
        entries: Sequence[str] = (),
        extra: str = "",
    ) -> Stage:
        """The stage `name` under these settings and inputs; `entries` are the modules that it runs
        (`kringle.code_version`), `extra` fingerprints any further input."""
        upstream = {stage.name: stage.fingerprint for stage in inputs}
        if extra:
            upstream["source"] = extra
        code = code_fingerprint(entries)
        identity = fingerprint(name, settings, upstream, code)
        return Stage(name, identity, self.root, settings, upstream, code, tuple(entries))
