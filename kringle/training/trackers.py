"""Where a run's figures go beside its own JSON lines: TensorBoard and Weights & Biases, each an extra.

A tracker gets flat names and numbers with a step. Both libraries are asked for by the recipe (`training.track`) and
imported then; one that is missing is said before any training. WANDB_MODE=offline works as that library documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kringle.errors import UserError, unknown

NAMES = ("tensorboard", "wandb")


class Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_trackers(names: Sequence[str], folder: Path, run: str, settings: Mapping[str, Any]) -> list[Tracker]:
    """The trackers asked for, which write below `folder`; UserError for one that is not installed."""
    made: list[Tracker] = []
    for name in names:
        if name not in NAMES:
            raise unknown(name, NAMES, "training.track", "tracker")
        try:
            made.append(_TensorBoard(folder / name) if name == "tensorboard" else _WandB(folder, run, settings))
        except ImportError as error:
            raise UserError(
                f"{name} is not installed ({error})", where="training.track", hint="pip install 'kringle[track]'"
            ) from None
    return made


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(project="kringle", name=run, dir=str(folder), config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
