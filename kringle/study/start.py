"""Starting from what exists: a checkpoint (`model.init`), or a tokenizer alone (`tokenizer.folder`).

A recipe says where the checkpoint is; here its configuration is read and laid into the arms, before anything is run: it
decides shape, context, tokenizer and the special tokens.
The checkpoint itself enters the plan as a fingerprint of its files' names, sizes and times, so an exchanged one is
trained on anew, and nothing has to read gigabytes to find that out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.settings import Arm, ModelSettings, Recipe, check_batch, plain
from kringle.tokens.tokenizer import SPECIAL_TOKENS, TOKENIZER_FILE, Tokenizer, tokenizer_checksum
from kringle.workspace import fingerprint

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def with_start(recipe: Recipe, init: Path | None = None) -> Recipe:
    """The recipe with its checkpoint's shape in every arm that starts from it; `init` replaces the path it names."""
    if init is not None and recipe.base.model.init is None:
        hint = "use one such as adapt, with model: {init: PATH}"
        raise UserError(f"recipe {recipe.name} does not start from a checkpoint", where="--init", hint=hint)
    if all(arm.model.init is None for arm in recipe.arms):
        return recipe
    return replace(recipe, arms=tuple(_started(arm, init) for arm in recipe.arms))


def _started(arm: Arm, init: Path | None) -> Arm:
    folder = arm.model.init if init is None or arm.model.init is None else init
    if folder is None:
        return arm
    from kringle.model import exchange

    try:
        config = exchange.describe(folder)
    except UserError as error:
        hint = exchange.nearby(folder) or "name a checkpoint with --init or model.init"
        raise UserError(error.what, where=error.where, hint=hint) from None
    if not (folder / TOKENIZER_FILE).is_file():
        raise UserError("no tokenizer.json beside the checkpoint", where=str(folder), hint="add the model's tokenizer")
    exchange.check(folder)
    check_batch(arm.training, config.context, f"ablations.{arm.name}: training")
    model = ModelSettings(
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        attention=config.attention,
        context=config.context,
        positions=config.positions,
        dropout=arm.model.dropout,
        init=folder,
    )
    return replace(arm, model=model)


def model_settings(model: ModelSettings) -> dict[str, Any]:
    """An arm's model for the plan: a checkpoint by what it holds instead of by where it lies."""
    settings: dict[str, Any] = plain(model)
    if model.init is not None:
        settings["init"] = checkpoint_fingerprint(model.init)
    return settings


def checkpoint_fingerprint(folder: Path) -> str:
    """Names, sizes and times of the weights, and the bytes of the configuration and the tokenizer."""
    files = sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})
    weights = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    small = [(folder / name).read_text(encoding="utf-8") for name in ("config.json", "tokenizer.json")]
    return fingerprint(weights, small)


def tokenizer_settings(recipe: Recipe, existing: str | None) -> dict[str, Any]:
    """What the tokenizer stage is a function of, beside the training documents where a tokenizer is trained; `existing`
    is the fingerprint of the one that `tokenizer.folder` holds."""
    settings: dict[str, Any] = {**plain(recipe.tokenizer), "folder": existing}
    if (init := recipe.base.model.init) is not None:
        settings["folder"] = tokenizer_checksum(init)
    return settings


def usable_tokenizer(folder: Path, work: Path) -> str:
    """The fingerprint of the tokenizer in a folder. UserError where there is none that can be used; one that a
    workspace has taken before can be, and is not loaded again to find out."""
    checksum = tokenizer_checksum(folder)
    taken = work.glob(f"stages/tokenizer-*/{TOKENIZER_FILE}")
    return checksum if checksum in map(tokenizer_checksum, taken) else Tokenizer.load(folder).checksum


def existing_tokenizer(recipe: Recipe) -> Path | None:
    """The folder of a tokenizer that is taken as it is; None where one is trained."""
    return recipe.base.model.init or recipe.tokenizer.folder


def vocabulary_size(recipe: Recipe) -> int:
    """How many tokens a recipe's tokenizer has, or will have."""
    folder = existing_tokenizer(recipe)
    return recipe.tokenizer.vocab_size + len(SPECIAL_TOKENS) if folder is None else Tokenizer.load(folder).vocab_size
