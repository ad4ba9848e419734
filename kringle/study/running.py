"""One arm in a worker process: train and measure it, whatever of that is missing."""

from __future__ import annotations

from kringle.engine import Engine
from kringle.study.arm import ArmJob
from kringle.study.teaching import Look


def run_arm(job: ArmJob) -> None:
    """Bring the arm's stages up to date; ticks in training steps."""
    import torch

    from kringle.study.measuring import measure_arm
    from kringle.study.teaching import train_arm

    torch.set_num_threads(job.threads)
    engine = Engine(1)
    job.train.run(engine, lambda out, shards: train_arm(job, out, look=look_of(job)))
    if job.until == "evaluate":
        job.evaluate.run(engine, lambda out, shards: measure_arm(job, out))


def look_of(job: ArmJob) -> Look | None:
    """What measures the model on the way, where the recipe asks for measurements."""
    if not job.arm.training.measurements:
        return None
    from kringle.study.measuring import held_out
    from kringle.study.watch import watcher
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer

    store = TokenStore.open(job.encode / "store")
    training = job.arm.training
    return watcher(held_out(job, store), store, Tokenizer.load(job.tokenizer), training.fim, training.metadata)
