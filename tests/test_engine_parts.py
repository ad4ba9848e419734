"""The shards of a stage shared out: by a job array's parts, and by a cluster. Every way ends with the same bytes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kringle.engine import Engine, Part, PartDone
from kringle.errors import ShardError, UserError
from kringle.workspace import ShardStore, Stage, Task, Workspace

NUMBERS = list(range(24))


def square(number: int, folder: Path) -> dict[str, Any]:
    (folder / "square").write_text(str(number**2))
    return {"number": number}


def square_once_killed(job: tuple[int, Path], folder: Path) -> dict[str, Any]:
    """As `square`, but the process that is first at number 5 is killed, as for lack of memory."""
    number, marks = job
    if number == 5 and not (marks / "killed").exists():
        (marks / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if marks.name == "slow":
        (marks / f"at-{number}-{os.getpid()}").touch()
        time.sleep(0.4)
    return square(number, folder)


def fail_at_three(number: int, folder: Path) -> dict[str, Any]:
    if number == 3:
        raise ValueError("three is too much")
    return {}


def stage_of(root: Path) -> Stage:
    return Workspace.open(root).stage("squares", {}, entries=["randomness"])


def run_stage(root: Path, engine: Engine) -> dict[str, Any]:
    """A stage of two rounds, the second made from the first: roots, then sums."""

    def build(out: Path, shards: ShardStore) -> dict[str, Any]:
        first = shards.map(engine, square, [Task(f"n{n}", f"first {n}", n) for n in NUMBERS])
        values = [int((folder / "square").read_text()) for folder in first]
        second = shards.map(engine, square, [Task(f"v{v}", f"second {v}", v) for v in values])
        text = "\n".join((folder / "square").read_text() for folder in second)
        (out / "result").write_text(text)
        return {"numbers": len(values)}

    stage_of(root).run(engine, build)
    return {"result": (stage_of(root).folder / "result").read_text()}


def test_every_shard_is_exactly_one_parts() -> None:
    for count in (1, 2, 3, 16):
        for fingerprint in (f"{n * 7919:032x}" for n in range(200)):
            assert sum(Part(i + 1, count).claims(fingerprint) for i in range(count)) == 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1.0/2"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--part: expected I/N"):
        Part.parse(text)


@pytest.mark.parametrize("count", [2, 5])
def test_parts_in_turn_end_with_what_one_run_makes(tmp_path: Path, count: int) -> None:
    expected = run_stage(tmp_path / "one", Engine(2))
    root = tmp_path / "parts"
    stopped = 0
    for part in [Part(i + 1, count) for i in range(count)] * 2:  # once for each round of the stage
        try:
            assert run_stage(root, Engine(1, part)) == expected
        except PartDone:
            assert not stage_of(root).folder.exists()
            stopped += 1
    assert stopped >= count
    assert (stage_of(root).folder / "result").read_text() == expected["result"]
    squares = {name: shards_of(tmp_path / name) for name in ("one", "parts")}
    assert squares["parts"] == squares["one"]
    assert not list(root.rglob("*.partial"))


def shards_of(root: Path) -> dict[str, str]:
    return {p.name: p.joinpath("square").read_text() for p in (root / "shards" / "squares").iterdir()}


def test_a_run_without_part_merges_and_does_what_is_missing(tmp_path: Path) -> None:
    expected = run_stage(tmp_path / "one", Engine(2))
    with pytest.raises(PartDone, match="of other parts are not"):
        run_stage(tmp_path / "parts", Engine(1, Part(2, 3)))
    assert run_stage(tmp_path / "parts", Engine(2)) == expected


def test_a_part_leaves_what_others_are_writing(tmp_path: Path) -> None:
    store = ShardStore(tmp_path, "salt")
    tasks = [Task(f"n{n}", f"{n}", n) for n in NUMBERS]
    first, second = Part(1, 2), Part(2, 2)
    with pytest.raises(PartDone):
        store.map(Engine(1, first), square, tasks)
    theirs = next(name for name in (f"{n:032x}" for n in range(9)) if second.claims(name))
    ours = next(name for name in (f"{n:032x}" for n in range(9)) if first.claims(name))
    for name in (ours, theirs):
        (tmp_path / f"{name}.host.1.partial").mkdir()
    with pytest.raises(PartDone):
        store.map(Engine(1, first), square, tasks)
    assert [p.name for p in tmp_path.glob("*.partial")] == [f"{theirs}.host.1.partial"]


def test_locks_let_parts_in_together_and_each_once(tmp_path: Path) -> None:
    spaces = [Workspace.open(tmp_path) for _ in range(4)]
    spaces[0].lock(Part(1, 2))
    spaces[1].lock(Part(2, 2))
    with pytest.raises(UserError, match="part 1/2 is being worked on already"):
        spaces[2].lock(Part(1, 2))
    with pytest.raises(UserError, match="another run is using this workspace"):
        spaces[3].lock()


# -- Ray ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a second node, as processes of this machine."""
    pytest.importorskip(
        "ray", reason="RAY IS NOT INSTALLED: the cluster engine goes untested (pip install kringle[ray])"
    )
    import ray
    from ray.cluster_utils import Cluster

    paths = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = paths if before is None else f"{paths}:{before}"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_a_cluster_makes_what_local_processes_make(tmp_path: Path, cluster: Any) -> None:
    from kringle.cluster import RayEngine

    engine = RayEngine()
    assert run_stage(tmp_path / "ray", engine) == run_stage(tmp_path / "one", Engine(2))
    assert engine.cpu_seconds > 0


def test_faults_in_a_cluster_name_their_shard(tmp_path: Path, cluster: Any) -> None:
    from kringle.cluster import RayEngine

    store = ShardStore(tmp_path, "salt")
    with pytest.raises(ShardError, match=r"shard number three.*three is too much"):
        store.map(RayEngine(), fail_at_three, [Task("shard number three", "x", 3)])


def test_a_killed_worker_and_a_lost_node_cost_shards_in_flight(tmp_path: Path, cluster: Any) -> None:
    from kringle.cluster import RayEngine

    marks = tmp_path / "slow"
    marks.mkdir()
    store = ShardStore(tmp_path / "ray", "salt")
    tasks = [Task(f"n{n}", f"{n}", (n, marks)) for n in NUMBERS]

    def lose_a_node(index: int) -> None:
        if cluster.second is not None and len(list(marks.glob("at-*"))) >= 4:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None

    folders = store.map(RayEngine(), square_once_killed, tasks, on_done=lose_a_node)
    assert (marks / "killed").exists()
    assert cluster.second is None
    assert [int((folder / "square").read_text()) for folder in folders] == [n**2 for n in NUMBERS]
    begun = len(list(marks.glob("at-*")))
    assert begun <= len(NUMBERS) + 2  # at most one shard for each worker that was lost, done again
