"""Node and Java on this machine: where they are, and what of the file system they need in a jail.

A runtime is looked for on the PATH (Java also in JAVA_HOME). Neither is installed by us; where one is missing, programs
of its language are not judged, and everything else is.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

_PATIENCE = 30.0  # seconds for a runtime to tell its version on a loaded machine
_OLDEST_NODE = 16  # node: imports and legacy deepEqual as MultiPL-E's tests use them; older ones fail every test
_OLDEST_JAVA = 17


@dataclass(frozen=True)
class Runtime:
    """An installed runtime. `folders` are what a jail must show of it, `environment` what it needs to start there."""

    program: str
    version: str
    folders: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def showing(self, *folders: str) -> Runtime:
        """The same, with more folders to show in its jail."""
        return replace(self, folders=(*self.folders, *folders))

    @property
    def executables(self) -> tuple[str, ...]:
        """What a jail's process may become: the program itself, and the loader that the kernel starts it with."""
        return tuple(filter(None, (self.program, _loader(self.program))))


@functools.cache
def find_node() -> Runtime | str:
    """Node, or one line that says why there is none."""
    path = shutil.which("node")
    if path is None:
        return "there is no Node here (no program 'node' on the PATH), so JavaScript programs are not judged"
    program = os.path.realpath(path)
    version = _first_line([program, "--version"])
    match = re.fullmatch(r"v(\d+)\.\S+", version)
    if match is None or int(match[1]) < _OLDEST_NODE:
        return f"JavaScript programs need Node {_OLDEST_NODE} or newer; {program} says {version!r}"
    return Runtime(program, version, _folders(Path(program).parent.parent, Path(program)))


@functools.cache
def find_java() -> Runtime | str:
    """A Java development kit (a compiler is needed), or one line that says why there is none."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    path = path or shutil.which("java")
    if path is None:
        return "there is no Java here (no program 'java' on the PATH), so Java programs are not judged"
    program = os.path.realpath(path)
    root = Path(program).parent.parent
    if not (root / "lib" / "modules").is_file() or not (root / "bin" / "javac").exists():
        return f"Java programs need a development kit; {root} is a runtime without a compiler"
    version = _first_line([program, "-version"])
    match = re.search(r'version "(\d+)', version)
    if match is None or int(match[1]) < _OLDEST_JAVA:
        return f"Java programs need Java {_OLDEST_JAVA} or newer; {program} says {version!r}"
    # Without /proc the loader cannot tell where the launcher lies, and so not where its library is. That folder alone:
    # with the virtual machine's folder in the variable, the launcher would start itself once more.
    return Runtime(program, version, _folders(root, Path(program)), (("LD_LIBRARY_PATH", f"{root}/lib"),))


def _folders(root: Path, program: Path) -> tuple[str, ...]:
    """The installation's folder, or the program alone where that is a system folder; and what links lead out to."""
    if root == Path("/usr") or root == Path("/"):
        return ()  # jails show the system's folders anyway
    folders = {str(root)}
    for link in (root / "conf").rglob("*"):  # Debian keeps a Java's configuration under /etc
        if link.is_symlink():
            target = Path(os.path.realpath(link))
            folders.add(str(target if target.is_dir() else target.parent))
    outside = sorted(folder for folder in folders if not folder.startswith("/usr/"))
    return tuple(one for one in outside if not any(one.startswith(f"{other}/") for other in outside))


@functools.cache
def _loader(program: str) -> str:
    """The loader that an ELF file names (its PT_INTERP entry, elf(5)); "" where it needs none, or is no ELF file."""
    with Path(program).open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":  # 64 bits
            return ""
        offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        for number in range(count):
            file.seek(offset + number * size)
            kind, _, start, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 3:
                file.seek(start)
                return file.read(length).rstrip(b"\0").decode()
    return ""


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else f"nothing (exit status {done.returncode})"
