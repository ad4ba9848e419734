"""Source `installed`: real code that is already on this machine, with the licences that its packages declare."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from kringle.data.sources.candidates import Found
from kringle.data.sources.jdk import find_jdks, jdk_sources
from kringle.data.sources.node import find_node_modules, node_sources
from kringle.data.sources.python import Python, python_sources, running_python


class Machine(NamedTuple):
    """Where a machine keeps its installed packages."""

    python: Python
    node_modules: tuple[Path, ...]
    jdks: tuple[Path, ...]


def this_machine() -> Machine:
    """The machine that this process runs on, found by looking at paths and environment variables alone."""
    return Machine(running_python(), find_node_modules(), find_jdks())


def installed(languages: Collection[str], machine: Machine | None = None) -> Found:
    """Candidates of everything installed: the running Python, global Node packages, and JDKs where Java is wanted."""
    machine = machine or this_machine()
    found = python_sources(machine.python, languages)
    found.extend(node_sources(machine.node_modules, languages))
    if "java" in languages:
        found.extend(jdk_sources(machine.jdks, languages))
        if not machine.jdks:
            found.notes.append("no JDK was found (JAVA_HOME, java on PATH, /usr/lib/jvm), so there is no Java from one")
    return found
