"""One process of a group: trains a tiny model and writes its losses. Arguments: settings as JSON. Run by torchrun."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
import training_fixtures as shared

from kringle.training.parallel import end, join, leave
from kringle.training.trainer import train


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    folder = Path(asked["folder"])
    settings = shared.Settings(**asked["settings"])
    world = join(asked["strategy"])
    stop = asked.get("stop")
    seen: list[int] = []
    result = train(
        shared.model_config(asked.get("attention", "mqa")),
        settings,
        shared.batches(settings=settings),
        folder / "out",
        seed=0,
        checkpoints=folder / "checkpoints",
        checkpoint_every=100,
        world=world,
        on_step=lambda record, _: seen.append(record.step),
        should_stop=(lambda: bool(stop and seen and seen[-1] >= stop)),
    )
    if world.first:
        (folder / "result.json").write_text(json.dumps(dataclasses.asdict(result), default=str))
    leave(finished=True)
    end()


main()
