"""The workspace: reruns do only what is missing, and whatever is there is whole."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle import workspace as workspaces
from kringle.engine import Engine, Part
from kringle.errors import ShardError, UserError
from kringle.workspace import ShardStore, Stage, Task, Workspace, fingerprint, fingerprint_of_rows


def write_payload(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    with Path(payload["log"]).open("a") as log:
        log.write(payload["text"] + "\n")
    if payload["text"] == "broken":
        raise ValueError("cannot")
    (folder / "text").write_text(payload["text"])
    return {"length": len(payload["text"])}


def tasks(log: Path, *texts: str) -> list[Task]:
    return [Task(text, fingerprint(text), {"log": str(log), "text": text}) for text in texts]


def test_a_stage_runs_once_and_its_manifest_tells_what_it_cost(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "work")
    calls = []

    def build(out: Path, shards: ShardStore) -> dict[str, Any]:
        calls.append(out)
        (out / "result").write_text("42")
        return {"answer": 42}

    stage = workspace.stage("answer", {"question": "?"})
    assert stage.manifest() is None
    first = stage.run(Engine(1), build)
    again = workspace.stage("answer", {"question": "?"}).run(Engine(1), build)
    assert first == again
    assert len(calls) == 1
    assert first["summary"] == {"answer": 42}
    assert first["cost"]["peak_memory"] > 0
    assert not stage.partial.exists()
    other = workspace.stage("answer", {"question": "!"})
    assert other.fingerprint != stage.fingerprint


def test_inputs_and_code_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "work")
    a, b = workspace.stage("a", {"x": 1}), workspace.stage("a", {"x": 2})
    assert workspace.stage("c", {}, [a]).fingerprint != workspace.stage("c", {}, [b]).fingerprint
    assert workspace.stage("c", {}, extra="1").fingerprint != workspace.stage("c", {}, extra="2").fingerprint
    assert workspace.stage("c", {}, entries=["data.clean"]).fingerprint != workspace.stage("c", {}).fingerprint


def test_a_cut_file_makes_the_stage_run_again(tmp_path: Path) -> None:
    stage = Workspace.open(tmp_path / "work").stage("s", {})

    def build(out: Path, shards: ShardStore) -> dict[str, Any]:
        (out / "result").write_text("whole")
        return {}

    stage.run(Engine(1), build)
    (stage.folder / "result").write_text("who")
    assert stage.manifest() is None
    stage.run(Engine(1), build)
    assert (stage.folder / "result").read_text() == "whole"


@pytest.mark.parametrize("damage", [b"[]", b'"x"', b"null", b"\xff\xfe", b"{", b'{"fingerprint": "FINGERPRINT"}'])
def test_a_damaged_manifest_makes_the_stage_run_again(tmp_path: Path, damage: bytes) -> None:
    stage = Workspace.open(tmp_path / "work").stage("s", {})
    stage.run(Engine(1), lambda out, shards: {})
    (stage.folder / "manifest.json").write_bytes(damage.replace(b"FINGERPRINT", stage.fingerprint.encode()))
    assert stage.manifest() is None
    stage.run(Engine(1), lambda out, shards: {"again": True})
    assert (stage.manifest() or {})["summary"] == {"again": True}


def test_a_part_leaves_what_a_living_process_is_making(tmp_path: Path) -> None:
    """As one of an array that was cut into another number of parts."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store = ShardStore(tmp_path / "shards", "salt")
    living, left = (
        store.root / f"{fingerprint(str(pid))}.{platform.node()}.{pid}.partial" for pid in (os.getpid(), ended.pid)
    )
    for folder in (living, left):
        folder.mkdir(parents=True)
    store.map(Engine(1, Part(1, 1)), write_payload, [])
    assert living.exists()
    assert not left.exists()
    store.map(Engine(1), write_payload, [])  # a whole run is alone
    assert not living.exists()


def test_finished_shards_survive_a_fault_and_only_missing_ones_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = ShardStore(tmp_path / "shards", "salt")
    with pytest.raises(ShardError, match="shard broken"):
        store.map(Engine(1), write_payload, tasks(log, "one", "two", "broken"))
    assert not list((tmp_path / "shards").glob("*.partial"))
    folders = store.map(Engine(1), write_payload, tasks(log, "one", "two", "three"))
    assert [(f / "text").read_text() for f in folders] == ["one", "two", "three"]
    assert [json.loads((f / "summary.json").read_text())["length"] for f in folders] == [3, 3, 5]
    assert log.read_text().split() == ["one", "two", "broken", "three"]
    other_code = ShardStore(tmp_path / "shards", "other salt")
    assert other_code.map(Engine(1), write_payload, tasks(log, "one"))[0] != folders[0]


def test_what_is_not_a_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        Workspace.open(tmp_path / "file")
    with pytest.raises(UserError, match="other things in it"):
        Workspace.open(tmp_path)
    with pytest.raises(UserError, match="is not a workspace"):
        Workspace.open(tmp_path / "new", create=False)
    Workspace.open(tmp_path / "work")
    marker = tmp_path / "work" / "workspace.json"
    marker.write_text('{"format": 99, "kringle": "9.9"}')
    with pytest.raises(UserError, match=r"is a workspace of format 99, made by Kringle 9\.9"):
        Workspace.open(tmp_path / "work")
    marker.write_text("{")
    with pytest.raises(UserError, match="cannot be read as a workspace"):
        Workspace.open(tmp_path / "work")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = Workspace.open(tmp_path / "work"), Workspace.open(tmp_path / "work")
    first.lock()
    with pytest.raises(UserError, match="another run is using this workspace"):
        second.lock()


def test_a_stage_travels_to_a_worker(tmp_path: Path) -> None:
    stage = Workspace.open(tmp_path / "work").stage("travels", {"x": 1})
    (manifest,) = Engine(1).map(run_in_worker, [stage])
    assert manifest["summary"] == {"worker": True}
    assert stage.manifest() == manifest


def run_in_worker(stage: Stage) -> dict[str, Any]:
    return stage.run(Engine(1), lambda out, shards: {"worker": True})


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.text(), st.none() | st.integers()), max_size=7), at_once=st.integers(1, 4))
def test_rows_have_one_fingerprint_however_many_are_looked_at_at_once(rows: list[Any], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspaces, "_ROWS_AT_ONCE", at_once)
        assert fingerprint_of_rows(iter(rows), {"b": 1, "a": [2]}, None) == fingerprint(rows, {"a": [2], "b": 1}, None)
