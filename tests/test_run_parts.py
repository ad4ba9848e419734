"""The data stages of a study on several machines: by the parts of a job array, and on a Ray cluster. Same bytes."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import Running, kringle, shared_recipe

from kringle.study.last_run import recall
from kringle.workspace import Workspace

UNTIL = ("--until", "encode")
STAGES = ("collect", "clean", "split", "annotate", "tokenizer", "encode")


def data_of(work: Path) -> dict[str, Any]:
    """Of every published stage its summary (what a data card tells) and the hash of each of its files."""
    found = {}
    for path in (work / "stages").glob("*/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = {
            name: hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
            for name in manifest["files"]
            if name != "manifest.json"
        }
        found[manifest["stage"]] = {"summary": manifest["summary"], "files": files}
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run on one machine makes."""
    work = tmp_path_factory.mktemp("alone") / "work"
    kringle("run", shared_recipe(), "--work", work, *UNTIL).succeeded()
    found = data_of(work)
    assert set(STAGES) <= found.keys()
    return found


def last_line(text: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return record


def test_parts_make_what_one_machine_makes(tmp_path: Path, alone: dict[str, Any]) -> None:
    """Three parts again and again, as an array that is submitted once a stage; one of them is killed on the way."""
    work = tmp_path / "work"
    victim = Running("run", shared_recipe(), "--work", work, "--part", "3/3", *UNTIL)
    if victim.wait_for(work, "stages/*.part-3-of-3.partial"):
        time.sleep(0.1)
    victim.process.kill()  # if it has not come to its end
    victim.wait()
    waited = set()
    for _ in range(2 * len(STAGES)):
        for part in ("1/3", "2/3", "3/3"):
            told = kringle("run", shared_recipe(), "--work", work, "--part", part, *UNTIL, "--json").succeeded()
            if (record := last_line(told.out)).get("waits_for_parts"):
                assert record["missing"] >= 1
                waited.add(record["waits_for_parts"])
        if data_of(work).keys() >= set(STAGES):
            break
    assert waited  # unless every single shard of all stages fell to the first part
    assert data_of(work) == alone
    recall(Workspace.open(work, create=False))  # what parts have done is the workspace's last run
    kringle("run", shared_recipe(), "--work", work, *UNTIL).succeeded()
    assert data_of(work) == alone
    assert not list(work.rglob("*.partial"))


def test_a_run_without_part_ends_what_parts_began(tmp_path: Path, alone: dict[str, Any]) -> None:
    work = tmp_path / "work"
    kringle("run", shared_recipe(), "--work", work, "--part", "1/2").succeeded()
    kringle("run", shared_recipe(), "--work", work, *UNTIL).succeeded()
    assert data_of(work) == alone


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--part", "4/3"), "--part: expected I/N"),
        (("--part", "1/2", "--until", "train"), "the stage 'train' is not shared by parts"),
        (("--part", "1/2", "--from", "clean"), "--from: would remove what other parts have done"),
        (("--part", "1/2", "--engine", "ray"), "--part: a Ray cluster shares the work itself"),
        (("--engine", "spark"), "--engine: unknown engine 'spark'; known: local, ray"),
    ],
)
def test_what_parts_cannot_do_is_refused(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = kringle("run", shared_recipe(), "--work", tmp_path / "work", *arguments)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_ray_makes_what_one_machine_makes(tmp_path: Path, alone: dict[str, Any]) -> None:
    pytest.importorskip("ray", reason="RAY IS NOT INSTALLED: --engine ray goes untested (pip install kringle[ray])")
    work = tmp_path / "work"
    kringle("run", shared_recipe(), "--work", work, "--engine", "ray", *UNTIL).succeeded()
    assert data_of(work) == alone


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray on this machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = kringle("run", shared_recipe(), "--work", tmp_path / "work", "--engine", "ray")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "pip install 'kringle[ray]'" in done.err
