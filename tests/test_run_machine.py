"""Studies on machines that lack something: room on the disk, or a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from run_fixtures import ARMS, Study, finished_study, kringle, models, results, timeless, unfinished, write_recipe

from kringle.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: full disks and missing networks")


class SmallDisk:
    """A file system in memory whose size can be changed while it is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, size: str, *, grow: bool = False) -> None:
        self._mount(f"remount,size={size}" if grow else f"size={size}")

    def protect(self) -> None:
        self._mount("remount,ro")

    def _mount(self, options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"NOT CHECKED: a full disk, because none can be made here: {done.stderr.strip()}")

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("NOT CHECKED: a full disk, because only root can make a small one")
    small = SmallDisk(tmp_path / "disk")
    yield small
    small.remove()


@pytest.fixture(scope="module")
def study() -> Study:
    return finished_study()


def test_a_full_disk_says_so_in_one_line_and_the_run_goes_on_once_there_is_room(study: Study, disk: SmallDisk) -> None:
    disk.mount("12k")
    work = disk.folder / "work"
    stages = set()
    # Sizes at which different stages come to their end; what does not fit differs with the libraries' versions.
    for size in ("12k", "300k", "600k", "1000k", "4500k"):
        disk.mount(size, grow=True)
        done = kringle("run", study.recipe, "--work", work)
        said = [line for line in done.err.splitlines() if not line.startswith("note: ")]
        assert done.code in (1, 2), done.err  # 2 where it is a checkpoint that the disk has no room for
        assert len(said) == 1, done.err
        assert said[0].startswith("kringle: ")
        assert "No space left on device" in said[0]
        assert done.code == 2 or "free some space and run" in said[0]
        stages |= {path.name.partition("-")[0] for path in work.glob("stages/*.partial")}
    assert len(stages) >= 3, stages
    disk.mount("80m", grow=True)
    kringle("run", study.recipe, "--work", work).succeeded()
    assert models(work) == models(study.work)
    mine, theirs = (timeless(results(w)["comparisons"]) for w in (work, study.work))
    assert mine == theirs
    assert unfinished(work) == []


@pytest.mark.skipif(
    shutil.which("mount") is None or os.geteuid() != 0, reason="NOT CHECKED: only root can make a disk read-only"
)
def test_a_workspace_that_cannot_be_written_is_one_line_and_nothing_is_lost(study: Study, tmp_path: Path) -> None:
    work = tmp_path / "work"
    Workspace.open(work)
    stages = SmallDisk(work / "stages")
    try:
        stages.mount("1m")
        stages.protect()
        done = kringle("run", study.recipe, "--work", work, "--until", "collect")
        assert done.code == 1
        (said,) = [line for line in done.err.splitlines() if not line.startswith("note: ")]
        assert said.startswith(f"kringle: {work}/stages/collect-")
        assert said.endswith(": Read-only file system; see to its permissions or choose another folder and run again")
    finally:
        stages.remove()
    kringle("run", study.recipe, "--work", work, "--until", "collect").succeeded()


def without_network() -> Sequence[str]:
    """A prefix for commands under which there is no network, not even to this machine itself."""
    for prefix in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
        ):
            return prefix
    pytest.skip("NOT CHECKED: a study without a network, because no namespace can be made here")


def test_a_study_of_the_code_on_this_machine_needs_no_network(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        None,
        ablations=("fim", "no-fim"),
        suites="[starter]",
        steps=10,
        lines=10,
        max_bytes="2MB",
        held_out_bytes="200kB",
        samples=1,
    )
    work = tmp_path / "work"
    done = kringle("run", recipe, "--work", work, prefix=without_network()).succeeded()
    assert "Traceback" not in done.err
    found = results(work)
    assert {share["name"] for share in found["corpus"]["languages"]} >= {"python"}
    assert [arm["name"] for arm in found["arms"]] == list(ARMS[:2])
    again = kringle("run", recipe, "--work", work, prefix=without_network()).succeeded()
    assert again.err.startswith("Nothing to do: all ")
    jails = [arm["suites"][0]["jail"] for arm in found["arms"]]
    if jails != ["full", "full"]:
        pytest.skip(f"NOT CHECKED: programs without a network, because the jail is {jails[0]} there")
    assert all(sum(arm["suites"][0]["verdicts"].values()) == 60 for arm in found["arms"])
