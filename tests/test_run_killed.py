"""A study that is killed in any stage goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from run_fixtures import Running, Study, finished_study, kringle, manifests, models, results, timeless, unfinished

from kringle.errors import UserError
from kringle.study import teaching
from kringle.study.last_run import recall
from kringle.study.pipeline import make_job
from kringle.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: killed runs; processes are read in /proc")

# Stage and seconds within which it is killed: moments are drawn, because no chosen one is the worst.
DEATHS = (
    *(("collect", 0.4), ("clean", 0.3), ("split", 0.5), ("annotate", 0.4), ("tokenizer", 0.2), ("encode", 0.3)),
    *(("train", 2.0), ("train", 4.0), ("evaluate", 0.5), ("score", 1.0), ("report", 0.4)),
)


@pytest.fixture(scope="module")
def study() -> Study:
    return finished_study()


def assert_same(work: Path, study: Study) -> None:
    """The same models to the bit, and the same results but for times and the name of the workspace."""
    assert models(work) == models(study.work)
    mine, theirs = (timeless(results(w)) for w in (work, study.work))
    assert str(mine).replace(str(work), "WORK") == str(theirs).replace(str(study.work), "WORK")
    assert unfinished(work) == []


def test_a_study_that_is_killed_in_every_stage_ends_as_if_it_had_not_been(study: Study, tmp_path: Path) -> None:
    work, killed = tmp_path / "work", []
    for stage, within in DEATHS:
        run = Running("run", study.recipe, "--work", work)
        if run.wait_for(work, f"stages/{stage}[-@]*"):  # in the making, or just made: some take a hundredth of a second
            time.sleep(random.uniform(0, within))
        run.process.kill()  # the leader alone: its workers have to notice
        done = run.wait()
        assert done.code in (-signal.SIGKILL, 0), done.err
        assert "Traceback" not in done.err
        killed.append((stage, done.code))
    assert sum(code != 0 for _, code in killed) >= 5, killed  # a quick machine ends some stages before their moment
    stamps = {folder: manifest["finished"] for folder, manifest in manifests(work).items()}
    kringle("run", study.recipe, "--work", work).succeeded()
    assert_same(work, study)
    after = manifests(work)
    assert {folder: after[folder]["finished"] for folder in stamps} == stamps
    assert {path.name for path in (work / "stages").iterdir()} == after.keys()


@pytest.mark.parametrize(("stage", "within"), [("split", 0.5), ("train", 3.0), ("score", 0.5)])
def test_ctrl_c_says_one_line_and_the_next_run_goes_on(study: Study, tmp_path: Path, stage: str, within: float) -> None:
    work = study.copy(tmp_path / "work")
    run = Running("run", study.recipe, "--work", work, "--from", stage, "--until", stage)
    assert run.wait_for(work, f"stages/{stage}[-@]*.partial")
    time.sleep(random.uniform(0, within))
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: the whole group
    done = run.wait()
    said = [line for line in done.err.splitlines() if not line.startswith("note: ")]
    if done.code == 0:  # it was quicker, and is not stopped at its end either
        assert said == []
        assert not any(work.glob(f"stages/{stage}[-@]*.partial"))
    else:
        assert done.code == 130, done.err
        assert said == ["kringle: interrupted; run the same command again to continue"]
        assert done.out == ""
    kringle("run", study.recipe, "--work", work).succeeded()
    assert models(work) == models(study.work)
    mine, theirs = (timeless(results(w)["comparisons"]) for w in (work, study.work))
    assert mine == theirs
    assert unfinished(work) == []


def test_a_training_that_goes_on_counts_the_steps_before(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan = recall(Workspace.open(study.work, create=False))
    job = make_job(plan, plan.runs[0], "train", threads=1)
    steps, stop = job.units, job.units // 2
    told: list[float] = []

    class Killed(BaseException):
        pass

    def tick(amount: float) -> None:
        told.append(amount)
        if len(told) == stop:
            raise Killed

    monkeypatch.setattr(teaching, "tick", tick)
    with pytest.raises(Killed):
        teaching.train_arm(job, tmp_path)
    assert told == [1] * stop
    told[:] = [0] * stop  # the second attempt is not stopped
    teaching.train_arm(job, tmp_path)
    again = told[stop:]
    assert 1 < again[0] <= stop
    assert again[1:] == [1] * (len(again) - 1)
    assert sum(again) == steps


def test_a_training_that_is_killed_before_it_is_published_is_not_done_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan = recall(Workspace.open(study.work, create=False))
    job = make_job(plan, plan.runs[0], "train", threads=1)
    whole = teaching.train_arm(job, tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    ticks: list[float] = []
    monkeypatch.setattr(teaching, "tick", ticks.append)
    assert teaching.train_arm(job, tmp_path) == json.loads(json.dumps(whole))
    assert ticks == []
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_damaged_token_store_is_not_trained_on(study: Study, tmp_path: Path) -> None:
    _, plan = recall(Workspace.open(study.work, create=False))
    job = make_job(plan, plan.runs[0], "train", threads=1)
    job = replace(job, encode=shutil.copytree(job.encode, tmp_path / "encode"))
    tokens = job.encode / "store" / "tokens.bin"
    raw = bytearray(tokens.read_bytes())
    raw[len(raw) // 2] ^= 1
    tokens.write_bytes(raw)
    with pytest.raises(UserError, match=r"token store is damaged: the tokens of document [0-9a-f]{40} do not match"):
        teaching.train_arm(job, tmp_path)
