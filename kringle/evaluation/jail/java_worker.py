"""Our own Java classes (`java/`), compiled at first use into the user's cache: workers, and the tuples of MultiPL-E.

Nothing is compiled where the cache already holds these sources for this Java.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kringle.errors import UserError
from kringle.evaluation.jail.runtimes import Runtime, find_java

SOURCES = Path(__file__).resolve().parent / "java"
EXPORTS = "--add-exports=jdk.compiler/com.sun.tools.javac.api=ALL-UNNAMED"
_PATIENCE = 300.0
# Strings are joined by plain calls: to link the dynamic ones costs every short-lived machine some 20 ms.
_OPTIONS = ("-nowarn", "-XDstringConcat=inline", EXPORTS)
ARCHIVE = "workers.jar"
# The first compiler of machine code alone, also where a machine serves for long: javac in the jail takes 5 ms of CPU
# time a program with it from the 200th program on, and 10 ms with both, of which the second never catches up.
SERIAL = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:-UseContainerSupport",
    "-Xshare:auto",
)


@functools.cache
def worker_folder() -> Path:
    """The folder with `workers.jar`; made if it is not there. UserError where the sources do not compile."""
    java = find_java()
    if isinstance(java, str):
        raise UserError(java)
    folder = _cache() / f"java-{_fingerprint(java)}"
    if not (folder / ARCHIVE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".java-", dir=folder.parent))
        try:
            _build(java, made)
            made.chmod(0o755)  # the jail's user must be able to read it
            try:
                made.rename(folder)
            except OSError:
                if not (folder / ARCHIVE).is_file():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kringle"


def _fingerprint(java: Runtime) -> str:
    digest = hashlib.blake2b(f"{java.program} {java.version} {_OPTIONS}".encode(), digest_size=8)
    for source in sorted(SOURCES.rglob("*.java")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _build(java: Runtime, folder: Path) -> None:
    tools = Path(java.program).parent
    classes = folder / "classes"
    classes.mkdir()
    sources = [str(source) for source in sorted(SOURCES.rglob("*.java"))]
    _run([str(tools / "javac"), *_OPTIONS, "-d", str(classes), *sources])
    # An archive and not the folder: one file to open and not twenty. No time stamp of today's goes in.
    _run([str(tools / "jar"), "--create", "--no-manifest", "--file", str(folder / ARCHIVE), "-C", str(classes), "."])
    tuples = folder / "tuples" / "org"
    tuples.mkdir(parents=True)
    (classes / "org" / "javatuples").rename(tuples / "javatuples")
    remote = folder / "referee" / "kringle"  # what the referee's copies of problems are compiled with
    remote.mkdir(parents=True)
    (classes / "kringle" / "Remote.class").rename(remote / "Remote.class")
    shutil.rmtree(classes)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the Java workers cannot be built: {error}", where=command[0]) from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(
            f"the Java workers cannot be built: {words[0] if words else 'without saying why'}", where=command[0]
        )
