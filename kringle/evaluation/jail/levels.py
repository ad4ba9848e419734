"""How well this machine can jail a program: found out by building jails, never by guessing from versions.

Three levels:
- `full`: namespaces of every kind, a root of the jail's own, no capabilities, resource limits, a filter of system
  calls;
- `partial`: no namespaces, but Landlock keeps programs from the host's files, and the filter from the network, from
  other processes and from making new ones;
- `none`: anything less. Nothing runs then, unless the caller insists with `unsafe`.

Control groups, and Landlock within namespaces, are a second line: reported, but no condition of a level.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from enum import StrEnum

from kringle.errors import UserError
from kringle.evaluation.jail.host import WAYS, Jail, JailError, Way

_NAMESPACES = ("user", "mount", "network", "process", "ipc", "host name")
_ALWAYS = ("resource limits", "no capabilities", "no new privileges", "seccomp")
_FULL = (*(f"{name} namespace" for name in _NAMESPACES), "read-only root", *_ALWAYS)
_PARTIAL = ("landlock", *_ALWAYS)
_PROBE_MEMORY = 512 * 2**20


class Name(StrEnum):
    """The levels, strongest first."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True)
class Level:
    """A level and the way to reach it."""

    name: Name
    way: Way


@dataclass(frozen=True)
class Layer:
    """One layer of the jail: whether it stands, and either what it does or why it does not."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class JailReport:
    """What this machine offers.

    `attempts` tells for each way that was tried why it was not good enough, or "" if it was.
    """

    level: Level
    layers: tuple[Layer, ...]
    attempts: dict[str, str]

    @property
    def why_not_full(self) -> str:
        """One line for a person: what is missing, or "" when nothing is."""
        if self.level.name is Name.FULL:
            return ""
        return "; ".join(f"{way}: {reason}" for way, reason in self.attempts.items() if reason)


@functools.cache
def probe() -> JailReport:
    """Build jails, best way first, until one is full; report the best.

    Takes a tenth of a second; remembered for the process.
    """
    best: JailReport | None = None
    attempts: dict[str, str] = {}
    for way in WAYS:
        try:
            with Jail(way, _PROBE_MEMORY) as jail:
                layers = tuple(Layer(name, ok, why) for name, (ok, why) in jail.layers.items())
        except (JailError, OSError) as error:
            attempts[way] = str(error)
            continue
        name = _level_of(layers)
        attempts[way] = "" if name is Name.FULL else _missing(layers, _FULL)
        if best is None or _rank(name) < _rank(best.level.name):
            best = JailReport(Level(name, way), layers, attempts)
        if name is Name.FULL:
            break
    if best is None:
        return JailReport(Level(Name.NONE, "bare"), (), attempts)
    return best


def level_for_scoring(unsafe: bool) -> Level:
    """The level at which programs will run; refuses `none` unless the caller insists."""
    report = probe()
    if report.level.name is Name.NONE and not unsafe:
        system = "this system (macOS has no namespaces)" if sys.platform == "darwin" else "this machine"
        raise UserError(
            f"{system} cannot jail programs that a model wrote: {report.why_not_full}",
            hint="score on Linux with user namespaces or bubblewrap, or accept the risk with --unsafe",
        )
    return report.level


def _level_of(layers: tuple[Layer, ...]) -> Name:
    if not _missing(layers, _FULL):
        return Name.FULL
    return Name.NONE if _missing(layers, _PARTIAL) else Name.PARTIAL


def _missing(layers: tuple[Layer, ...], wanted: tuple[str, ...]) -> str:
    standing = {layer.name: layer for layer in layers}
    reasons = []
    for name in wanted:
        layer = standing.get(name)
        if layer is None or not layer.ok:
            reasons.append(f"{name} ({layer.detail})" if layer and layer.detail else name)
    return ", ".join(reasons)


def _rank(name: Name) -> int:
    return list(Name).index(name)
