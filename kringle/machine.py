"""What a result was made with: the machine and the versions of everything that can change a number."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kringle import __version__
from kringle.engine import default_workers

PACKAGES = ("numba", "numpy", "pyarrow", "pygments", "safetensors", "tokenizers", "torch", "zstandard")


@dataclass(frozen=True)
class Machine:
    """`memory_bytes` is what is installed, `cores` what this process may use; `system` is its name, version and
    architecture."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    torch: str


def _cpu() -> str:
    """The processor's own name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform module knows less, but something
    return platform.processor() or platform.machine()


def machine() -> Machine:
    """This machine; `cores` are those that this process may use."""
    return Machine(
        cpu=_cpu(),
        cores=default_workers(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        # The version alone: what a distributor or a provider puts behind it says nothing of a result.
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        python=platform.python_version(),
        torch=metadata.version("torch"),
    )


def versions() -> dict[str, str]:
    """Kringle, Python and the packages whose version can change a result."""
    found = {"kringle": __version__, "python": sys.version.split()[0]}
    return found | {package: metadata.version(package) for package in PACKAGES}
