"""The between-seed variance of a recipe, kept for later studies of the same recipe that can afford one seed only.

A study with two or more seeds writes `seed-variance.json` beside its report. A recipe with `seed_variance: FILE` uses
it where it has none of its own; a shipped recipe may come with one. It holds for the same model, tokenizer and
training as those of the base that it was measured with; anything else is refused. The corpus may be another, which
is why every remark names the variance as that of an earlier study.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.settings import Recipe, plain
from kringle.study.verdicts import SeedVariance
from kringle.tokens.tokenizer import tokenizer_checksum
from kringle.workspace import fingerprint, write_atomically

FILE = "seed-variance.json"
SCHEMA = "kringle-seed-variance/1"


def identity(recipe: Recipe) -> str:
    """What the variance is a property of: the base's model, tokenizer and training, whatever the seeds. Settings at
    their defaults are left out, so that a setting which a later version adds does not make an old file another's."""
    training = {key: value for key, value in _set(recipe.base.training).items() if key != "seeds"}
    tokenizer = _set(recipe.tokenizer)
    if recipe.tokenizer.folder is not None:
        tokenizer["folder"] = tokenizer_checksum(recipe.tokenizer.folder)
    return fingerprint(_set(recipe.base.model), tokenizer, training)


def _set(settings: Any) -> dict[str, Any]:
    """The settings that differ from their defaults."""
    return {
        f.name: _set(value) if is_dataclass(value) else plain(value)
        for f in fields(settings)
        if (value := getattr(settings, f.name)) != f.default
    }


def write(recipe: Recipe, variances: Mapping[str, SeedVariance], path: Path) -> None:
    """Keep what a study found; nothing is written where it found none."""
    if not variances:
        return
    rows = {
        measure: {"run": v.run, "items": v.items, "degrees_of_freedom": v.degrees_of_freedom}
        for measure, v in variances.items()
    }
    body = {"schema": SCHEMA, "recipe": recipe.name, "identity": identity(recipe), "measures": rows}
    write_atomically(path, json.dumps(body, indent=1) + "\n")


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}", where="seed_variance") from None


def load(path: Path, recipe: Recipe) -> dict[str, SeedVariance]:
    """The variances by measure; `UserError` where the file is not one, or is another recipe's."""
    return _parse(read_text(path), recipe, f"seed_variance: {path}")


def shipped(recipe: Recipe) -> dict[str, SeedVariance]:
    """What comes with the recipe of this name, if it still is the recipe that it was measured with; else nothing."""
    file = resources.files("kringle.recipes") / f"{recipe.name}.seeds.json"
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    return _parse(text, recipe, str(file)) if json.loads(text)["identity"] == identity(recipe) else {}


def _parse(text: str, recipe: Recipe, where: str) -> dict[str, SeedVariance]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=where) from None
    if not isinstance(body, dict) or body.get("schema") != SCHEMA or not isinstance(body.get("measures"), dict):
        raise UserError(f"expected a file of schema '{SCHEMA}'", where=where, hint=f"use the {FILE} beside a report")
    if body.get("identity") != identity(recipe):
        what = (
            f"was measured with another model, tokenizer or training than this recipe's (recipe {body.get('recipe')})"
        )
        raise UserError(what, where=where, hint="run this recipe with several seeds once and use its file")
    return {str(measure): _variance(row, f"{where}, {measure}") for measure, row in body["measures"].items()}


def _variance(row: Any, where: str) -> SeedVariance:
    if not isinstance(row, dict) or set(row) != {"run", "items", "degrees_of_freedom"}:
        raise UserError("expected run, items and degrees_of_freedom", where=where)
    numbers = [row["run"], row["items"]]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= 0 for x in numbers):
        raise UserError(f"variances are finite and not negative, got {numbers}", where=where)
    freedom = row["degrees_of_freedom"]
    if not isinstance(freedom, int) or isinstance(freedom, bool) or freedom < 1:
        raise UserError(f"degrees_of_freedom is a whole number above 0, got {freedom!r}", where=where)
    return SeedVariance(float(row["run"]), float(row["items"]), freedom)
