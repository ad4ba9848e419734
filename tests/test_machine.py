"""What a result says of the machine that it was made on."""

from __future__ import annotations

import platform

import pytest

from kringle.machine import machine


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.8.0-45-generic", "6.8.0"), ("5.15.153.1-microsoft-standard-WSL2", "5.15.153.1"), ("23.6.0", "23.6.0")],
)
def test_the_system_is_told_without_its_build(release: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    assert machine().system == f"{platform.system()} {version} {platform.machine()}"
