"""Benchmarks: ours beside each peer in one run, one module a benchmark, the CLI's `kringle bench NAME`.

A module `kringle/bench/NAME.py` has one function, `measure(peers: Peers) -> Measured`. Rates are larger-is-better and
compare only within one run on one machine. A peer runs where it is installed: in this environment, or in the
environment or checkout that `--peer-path NAME=DIR` names; what a peer needs is listed in `benchmarks/peers/NAME.txt`
(a pip requirements file, or a comment that says what to check out).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.machine import machine, versions


def names() -> list[str]:
    """All benchmarks: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


@dataclass(frozen=True)
class Measured:
    """What one benchmark measured. `ours` and `peers` in `unit`, larger is better."""

    unit: str
    ours: float
    peers: Mapping[str, float] = field(default_factory=dict)
    absent: Sequence[str] = ()  # peers that were asked for and are not installed, each with the reason
    utilisation: float | None = None  # share of what the hardware allows, where that is known
    details: Mapping[str, Any] = field(default_factory=dict)  # everything else: sizes, settings, further figures
    lines: Sequence[str] = ()  # for people


@dataclass(frozen=True)
class Peers:
    """Which peers are wanted, and where they are."""

    wanted: bool
    paths: Mapping[str, Path] = field(default_factory=dict)

    def python(self, name: str) -> str:
        """The interpreter of the environment that `--peer-path NAME=DIR` names; else this one."""
        folder = self.paths.get(name)
        candidate = folder / "bin" / "python" if folder else None
        return str(candidate) if candidate and candidate.exists() else sys.executable

    def run(self, name: str, script: Path, *arguments: str, timeout: float = 3600) -> tuple[Any, str | None]:
        """(what a peer's script printed as its last line of JSON, None), or (None, why it could not be run)."""
        command = [self.python(name), str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return None, why[-1]
        return json.loads(done.stdout.strip().splitlines()[-1]), None


def bench(name: str, peers: Peers) -> tuple[dict[str, Any], Sequence[str]]:
    """Run one benchmark; returns its record (the line that `--json` prints) and its lines for people."""
    if name not in names():
        raise UserError(f"unknown benchmark '{name}'", where="kringle bench", hint=f"known: {', '.join(names())}")
    measured: Measured = importlib.import_module(f"kringle.bench.{name}").measure(peers)
    record = asdict(measured)
    lines = record.pop("lines")
    return {"bench": name, **record, "machine": asdict(machine()), "versions": versions()}, lines


def parse_peer_paths(entries: Sequence[str]) -> dict[str, Path]:
    """`NAME=DIR` entries as a mapping; refuses what is malformed or does not exist."""
    paths = {}
    for entry in entries:
        name, separator, folder = entry.partition("=")
        if not separator or not name or not folder:
            raise UserError(f"expected NAME=DIR, got '{entry}'", where="--peer-path")
        paths[name] = Path(folder).expanduser()
        if not paths[name].exists():
            raise UserError(f"{folder} does not exist", where=f"--peer-path {name}")
    return paths
