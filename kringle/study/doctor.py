"""What this machine offers to a study, what will be skipped, and why. The CLI's `kringle doctor`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from kringle.errors import UserError
from kringle.machine import machine

_RUNTIMES = {"node": ["node", "--version"], "java": ["java", "-version"]}
VERSION_TIMEOUT = 20.0  # seconds; a cold Java on a loaded machine takes a few


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `ok` is False where something will be skipped; `detail` says what or why."""

    name: str
    ok: bool
    detail: str

    def line(self) -> str:
        return f"{'ok ' if self.ok else 'no '} {self.name:<24} {self.detail}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Look at cores, memory, accelerator, jail and language runtimes. Builds a jail to see whether it holds."""
    here = machine()
    findings = [
        Finding("processor", True, f"{here.cpu}, {here.cores} cores usable"),
        Finding("memory", here.memory_bytes >= 4e9, f"{here.memory_bytes / 1e9:.1f} GB (the default study needs 4)"),
        Finding("python", True, f"{here.python} on {here.system}"),
        _accelerator(),
    ]
    return [*findings, *_jail(), *(_runtime(name, command) for name, command in _RUNTIMES.items())]


def attack_findings() -> Iterator[Finding]:
    """Every shipped attack on the jail, in every language that has a runtime here: whether it was blocked, and by what.

    UserError where this machine has no jail to attack.
    """
    from kringle.evaluation.jail.attack import LANGUAGES, attack
    from kringle.evaluation.jail.levels import Name, probe
    from kringle.evaluation.jail.runner import missing_runtime

    report = probe()
    if report.level.name is Name.NONE:
        raise UserError(f"there is no jail to attack: {report.why_not_full}", where="kringle doctor --attack")
    yield Finding(
        "jail", report.level.name is Name.FULL, f"{report.level.name} ({report.why_not_full or 'all layers'})"
    )
    for language in LANGUAGES:
        if why := missing_runtime(language):
            yield Finding(language, True, f"not attacked: {why}")
    for outcome in attack(report.level):
        yield Finding(f"{outcome.language} {outcome.kind}", outcome.blocked, f"{outcome.name}: {outcome.by}")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", True, f"{torch.cuda.get_device_name()}: trains and samples")
    return Finding("accelerator", False, "none: training runs on the processor")


def _jail() -> list[Finding]:
    from kringle.evaluation.jail.levels import Name, probe

    report = probe()
    runs = "programs that a model wrote will be run" if report.level.name is not Name.NONE else "suites will be skipped"
    reason = f" ({report.why_not_full})" if report.why_not_full else ""
    found = [Finding("jail", report.level.name is Name.FULL, f"{report.level.name}: {runs}{reason}")]
    return found + [Finding(f"  {layer.name}", layer.ok, layer.detail) for layer in report.layers]


def _runtime(name: str, command: list[str]) -> Finding:
    if shutil.which(command[0]) is None:
        return Finding(name, False, "not found on PATH: its installed packages are not searched for source code")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=VERSION_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, False, f"does not start: {error}")
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Finding(name, True, lines[0] if lines else "found")
