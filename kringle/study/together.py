"""One arm trained by several processes that `torchrun` or a cluster's launcher started: `kringle train`.

`kringle run --until encode` prepares the data; then every process runs the same command, trains the same arm of the
workspace's last run, and the first one publishes the stage. `kringle run` then finds it done and evaluates it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kringle.engine import Engine
from kringle.errors import UserError
from kringle.study.last_run import recall
from kringle.study.pipeline import make_job
from kringle.study.running import look_of
from kringle.study.teaching import train_arm
from kringle.workspace import Workspace

if TYPE_CHECKING:
    from kringle.training.parallel import Strategy


def train_together(work: Path, name: str, seed: int | None, strategy: Strategy) -> dict[str, Any]:
    """Train one arm of the workspace's last run; returns what the stage's manifest says, on every process."""
    import torch

    from kringle.training.parallel import join, leave

    workspace = Workspace.open(work, create=False)
    _, plan = recall(workspace)
    runs = [run for run in plan.runs if run.arm.name == name and seed in (None, run.seed)]
    if not runs:
        known = ", ".join(run.name for run in plan.runs)
        raise UserError(f"no such ablation or seed: {name}", where="kringle train", hint=f"known: {known}")
    run = runs[0]
    if plan.encode.manifest() is None:
        hint = "run kringle run --until encode first"
        raise UserError("the token store is not there yet", where=str(workspace.root), hint=hint)
    world = join(strategy)
    finished = False
    try:
        world.first_only(workspace.lock)
        done = world.agree(run.train.manifest())
        if done is None:
            job = make_job(plan, run, "train", torch.get_num_threads())
            if world.first:
                run.train.run(Engine(1), lambda out, shards: train_arm(job, out, world, look_of(job)))
            else:
                train_arm(job, run.train.partial, world, look_of(job))
            done = world.agree(run.train.manifest() if world.first else None)
        if (reason := done["summary"].get("not_run")) is not None:
            raise UserError(f"was not trained: {reason}", where=run.name)
        finished = True
    finally:
        leave(finished=finished)
    return {"arm": run.name, "processes": world.size, "model": str(run.train.folder / "model"), **done["summary"]}
