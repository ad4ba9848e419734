"""`kringle release`: one folder per ablation in Hugging Face layout, each with its model card.

A folder holds weights, configurations and tokenizer as `transformers` loads them, `README.md` (the card) and
`eval_results.yaml`. An ablation trained with several seeds is released with the first; the others get folders of their
own, `NAME-seed-N`. Controls that a study added for itself are no ablations and are left out, and so is a checkpoint
that it measured as it was (`training.skip`): that is its maker's to release. Folders are written beside OUT and moved
there together: OUT is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kringle.errors import UserError
from kringle.model.shape import FimTraining
from kringle.recipe import parse_recipe
from kringle.study.model_card import Facts, License, eval_results, model_card
from kringle.study.optout import models_with_opted_out
from kringle.study.results import Arm, Results
from kringle.tokens.tokenizer import Tokenizer

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class Released:
    """One folder, and the command that uploads it."""

    name: str
    folder: str
    upload: str


def release(
    work: Path,
    out: Path,
    *,
    license: License = "openrail-m",
    owner: str | None = None,
    despite_notice: bool = False,
    say: Callable[[str], object] = print,
) -> list[Released]:
    """Write the release of a workspace's last report; `say` is told which ablation is left out. UserError, with nothing
    written, where something is missing, or where the data's licences speak against it and `despite_notice` is not
    given."""
    if license not in get_args(License):
        raise UserError(f"licence is openrail-m or apache-2.0, not '{license}'", where="--license")
    report = work / "report" / "results.json"
    if not report.is_file():
        raise UserError("no report here", where=str(work), hint="finish the study with kringle run --work DIR")
    results = Results.from_json(report.read_text(encoding="utf-8"), str(report))
    if results.release_note and not despite_notice:
        raise UserError(
            results.release_note, where="kringle release", hint="--despite-notice releases it with this stamp"
        )
    ablations = {arm.name: arm for arm in parse_recipe(results.recipe.text).arms}
    done = [arm for arm in results.arms if arm.training is not None and arm.name in ablations]
    arms = [arm for arm in done if not ablations[arm.name].training.skip]
    untrained = ", ".join(dict.fromkeys(arm.name for arm in done if arm not in arms))
    if untrained and not arms:
        raise UserError(f"{untrained} is a checkpoint as it was: nothing was trained here", where=str(report))
    if not arms:
        raise UserError("the study has no trained model", where=str(report))
    stale = {Path(stage).name for stage in models_with_opted_out(work)}
    trained = {name: (work / "models" / name).resolve().parent.name for name in (f"{a.name}-s{a.seed}" for a in arms)}
    if opted_out := [name for name, stage in trained.items() if stage in stale]:
        what = f"{', '.join(opted_out)} learnt from documents that are opted out by now"
        raise UserError(what, where=str(work), hint="train again without them: kringle run")
    for arm in arms:
        if ablations[arm.name].model.init is not None and arm.training is not None and arm.training.init is None:
            what = f"does not name the checkpoint that {arm.name} went on from"
            raise UserError(what, where=str(report), hint="write it again with kringle report --work DIR")
    if out.exists():
        raise UserError("is there already", where=str(out), hint="choose another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    released = []
    try:
        first: set[str] = set()
        for arm in arms:
            name = f"{arm.name}-seed-{arm.seed}" if arm.name in first else arm.name
            first.add(arm.name)
            repository = f"{owner}/{results.study}-{name}" if owner else name
            _one(work / "models" / f"{arm.name}-s{arm.seed}", fresh / name, results, arm, repository, license)
            target = shlex.quote(str(out / name))
            upload = f"hf upload {shlex.quote(repository if owner else f'OWNER/{results.study}-{name}')} {target} ."
            released.append(Released(name, str(out / name), upload))
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if untrained:
        say(f"note: {untrained} is left out: a checkpoint as it was, not trained here")
    return released


def _one(source: Path, target: Path, results: Results, arm: Arm, repository: str, license: License) -> None:
    missing = [name for name in MODEL_FILES if not (source / name).is_file()]
    if missing:
        raise UserError(
            f"{', '.join(missing)} missing", where=str(source), hint="bring the study up to date with kringle run"
        )
    target.mkdir(parents=True)
    for name in (*MODEL_FILES, "NOTICE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    hashes = {name: _sha256(target / name) for name in ("model.safetensors", "tokenizer.json", "config.json")}
    config = json.loads((target / "config.json").read_text())
    fim = FimTraining.of(config, str(source / "config.json"))
    fills_in = fim is not None and fim.rate > 0
    facts = Facts(repository, license, config, hashes, Tokenizer.load(target).special_tokens, fills_in)
    (target / "README.md").write_text(model_card(results, arm, facts), encoding="utf-8")
    (target / "eval_results.yaml").write_text(eval_results(results, arm), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
