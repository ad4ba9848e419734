"""Checkpoints: folders that are there whole or not at all, checked when read, refused for another run.

    step-00000120/
      manifest.json            format, step, counters, fingerprint of the run, size and SHA-256 of the two files
      weights.safetensors      the model's parameters, by name
      optimizer.safetensors    the optimizers' state, by parameter name

A checkpoint is written beside its final place, flushed to disk and renamed; the two newest are kept, so a torn write or
a full disk leaves the one before. There is no random state: every draw is a function of the step. Tensors are whole,
however many processes hold them, so a run may go on with another number of processes. Does not cover: models too large
for the first process' memory.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kringle.errors import UserError
from kringle.tokens.store import file_checksum
from kringle.training.optimizer import Optimizers
from kringle.training.parallel import World, like, whole

FORMAT = 1
KEPT = 2
_NAME = re.compile(r"step-(\d{8,})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What a checkpoint gave back beside weights and optimizer state."""

    step: int  # updates done
    counters: dict[str, Any]
    folder: Path


def _folders(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, newest first, whether or not they can be read."""
    if not checkpoints.is_dir():
        return []
    found = [(int(match[1]), path) for path in checkpoints.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint folder, or None; for messages, it is not read."""
    return next((path for _, path in _folders(checkpoints)), None)


def save(
    checkpoints: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizers,
    fingerprint: Mapping[str, Any],
    counters: Mapping[str, Any],
    world: World = World(),  # noqa: B008 (frozen)
) -> Path:
    """Write the checkpoint of `step` and drop all but the two newest; UserError, with nothing lost, on a full disk.

    Every process of `world` must call this; the first one writes.
    """
    weights = {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
    state = optimizer.tensors(model)
    written: Path = world.first_only(
        lambda: _save(checkpoints, step, weights, state, fingerprint, counters, world.size)
    )
    return written


def _save(
    checkpoints: Path,
    step: int,
    weights: dict[str, Tensor],
    state: dict[str, Tensor],
    fingerprint: Mapping[str, Any],
    counters: Mapping[str, Any],
    processes: int,
) -> Path:
    before = newest(checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    for leftover in checkpoints.glob(".partial-*"):
        shutil.rmtree(leftover)  # of a run that was killed while writing
    final = checkpoints / f"step-{step:08d}"
    partial = checkpoints / f".partial-{final.name}"
    partial.mkdir()
    try:
        _write_tensors(partial / "weights.safetensors", weights)
        _write_tensors(partial / "optimizer.safetensors", state)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
            for path in sorted(partial.iterdir())
        }
        manifest = {
            "format": FORMAT,
            "step": step,
            "counters": dict(counters),
            "fingerprint": fingerprint,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processes": processes,
            "files": files,
        }
        _write_text(partial / "manifest.json", json.dumps(manifest, indent=1) + "\n")
        _flush(partial)
        shutil.rmtree(final, ignore_errors=True)  # there only if it was damaged and has been trained anew
        partial.rename(final)
        _flush(checkpoints)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        kept = f"the last good checkpoint is {before.name}" if before else "there is no earlier checkpoint"
        raise UserError(
            f"the checkpoint of step {step} could not be written ({error}); {kept}",
            where=str(checkpoints),
            hint="make room and run again to go on from there",
        ) from error
    for _, path in [(number, path) for number, path in _folders(checkpoints) if number > step]:
        shutil.rmtree(path)  # `restore` has passed over them
    for _, path in _folders(checkpoints)[KEPT:]:
        shutil.rmtree(path)
    return final


def restore(
    checkpoints: Path,
    model: nn.Module,
    optimizer: Optimizers,
    fingerprint: Mapping[str, Any],
    world: World | None = None,
) -> Restored | None:
    """Load the newest checkpoint that is whole into model and optimizer; None if there is none.

    A damaged one is passed over with a warning. UserError if a whole one belongs to another run, naming what differs.
    Of several processes the first one chooses: on a shared disk another may still see an older list of files, and each
    must go on from the same step.
    """
    world = world or World()
    read: _Contents | None = None

    def choose() -> str | None:
        nonlocal read
        for _, folder in _folders(checkpoints):
            try:
                read = _read(folder)
            except _DAMAGE as error:
                logger.warning("checkpoint %s is damaged (%s): passed over, trying the one before", folder, error)
                continue
            if differences := list(_differences(read[0]["fingerprint"], json.loads(json.dumps(fingerprint)))):
                raise UserError(
                    f"is of another run: {'; '.join(differences)}",
                    where=str(folder),
                    hint="use another folder for checkpoints, or delete this one",
                )
            return folder.name
        return None

    name = world.first_only(choose)
    if name is None:
        return None
    folder = checkpoints / name

    def load() -> _Contents:
        try:
            return read or _read(folder)
        except _DAMAGE as error:
            what = f"checkpoint cannot be read by every process ({error})"
            raise UserError(what, where=str(folder), hint="see that all machines share this folder") from error

    manifest, weights, state = world.every(load)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(like(weights[parameter_name], parameter))
    optimizer.restore(model, state)
    return Restored(manifest["step"], manifest["counters"], folder)


_Contents = tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]
_DAMAGE = (OSError, ValueError, KeyError, safetensors.SafetensorError)


def _read(folder: Path) -> _Contents:
    """Manifest, weights and optimizer state; ValueError or OSError if anything is not as it was written."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
    for name, expected in manifest["files"].items():
        if file_checksum(folder / name) != expected["sha256"]:
            raise ValueError(f"{name} does not match its checksum")
    weights, state = (safetensors.torch.load_file(folder / f"{name}.safetensors") for name in ("weights", "optimizer"))
    return manifest, weights, state


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """One phrase for each leaf in which two nested mappings differ."""
    for key in sorted({*old, *new}):
        here = f"{path}.{key}" if path else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, here)
        elif a != b:
            yield f"{here} was {a}, is now {b}"


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    safetensors.torch.save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
    _flush(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
    _flush(path)


def _flush(path: Path) -> None:
    """Have a file's or a folder's content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
