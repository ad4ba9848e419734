"""Recipes: YAML in, frozen dataclasses out (`kringle.settings`); anything that is not understood is refused with its
path and a suggestion.

A recipe names corpus, cleaning, tokenizer, model, training, evaluation and the ablations, each a named difference from
the base. No stage is run here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union

from kringle.errors import UserError, unknown
from kringle.settings import (
    DEFAULT_FIDELITY,
    NAME,
    Arm,
    CleanSettings,
    ControlSettings,
    CorpusSettings,
    EvaluationSettings,
    FilterSettings,
    ModelSettings,
    Recipe,
    TokenizerSettings,
    TrainingSettings,
    check_batch,
    parse_folder,
)
from kringle.strict_yaml import parse_yaml


def build(cls: type, raw: Any, path: str) -> Any:
    """Build dataclass `cls` from a YAML mapping; `path` names it in errors (`training.fim`)."""
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise UserError(f"expected a mapping, got {raw!r}", where=path)
    known = {f.name: f for f in fields(cls)}
    renamed = {name.replace("pass_at_", "pass@"): name for name in known}  # `pass@1` is the field's name in the field
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for key, value in raw.items():
        name = renamed.get(str(key))
        if name is None:
            raise unknown(str(key), renamed, path, "key")
        here = f"{path}.{key}"
        parse = known[name].metadata.get("parse")
        values[name] = parse(value, here) if parse else _convert(hints[name], value, here)
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"the key '{name}' is missing", where=path)
    return cls(**values)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """A YAML value as the annotated type of its field."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"expected {' or '.join(map(str, choices))}, got {value!r}", where=path)
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(hint, value, path)
    if is_dataclass(hint):
        return build(typing.cast(type, hint), value, path)
    if origin is tuple:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise UserError(f"expected a list of names, got {value!r}", where=path)
        return tuple(value)
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise UserError(f"expected true or false, got {value!r}", where=path)
    raise TypeError(f"no conversion for {hint} at {path}")


def _merge(base: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `difference` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in difference.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _check_model(model: ModelSettings, raw: Mapping[str, Any], path: str) -> None:
    shape = ("layers", "width", "heads")
    if model.init is not None:
        for key in (*shape, "attention", "context", "positions"):
            if key in raw:
                raise UserError("comes from the checkpoint of model.init", where=f"{path}.{key}", hint="leave it out")
        return
    for key in shape:
        if not getattr(model, key):
            raise UserError(f"the key '{key}' is missing", where=path, hint="or start from a checkpoint with init")
    if model.width % model.heads:
        raise UserError(f"width {model.width} is not divisible by {model.heads} heads", where=path)
    if model.positions == "rotary" and model.width // model.heads % 2:
        hint = "make width / heads even"
        raise UserError(
            f"rotary positions need an even head size, not {model.width // model.heads}", where=path, hint=hint
        )


def _check_training(training: TrainingSettings, model: ModelSettings, path: str) -> None:
    if training.horizon < training.steps:
        raise UserError(
            f"the schedule ends after {training.horizon} steps, the run after {training.steps}",
            where=f"{path}.decay_tokens",
            hint="let it be at least tokens",
        )
    if training.schedule == "wsd" and training.warmup + training.decay > 1:
        what = f"warmup and decay are {training.warmup:g} and {training.decay:g} of the schedule, more than the whole"
        raise UserError(what, where=f"{path}.decay", hint="let them be 1 together at most")
    if training.mixture and training.fidelity == "faithful":
        raise UserError(
            "SantaCoder's procedure mixes languages in proportion to their tokens",
            where=f"{path}.mixture",
            hint="leave it out, or use fidelity: corrected",
        )
    if training.skip and model.init is None:
        hint = "name one in model.init"
        raise UserError("without training there has to be a checkpoint to measure", where=f"{path}.skip", hint=hint)


def _arm(name: str, difference: Any, raw: Mapping[str, Any]) -> Arm:
    path = f"ablations.{name}"
    difference = difference or {}
    if not isinstance(difference, dict):
        raise UserError(f"expected a difference such as {{model: {{attention: mha}}}}, got {difference!r}", where=path)
    for key in difference:
        if key not in ("model", "training", "filter"):
            raise unknown(str(key), ("model", "training", "filter"), path, "key")
    base = {"model": raw.get("model") or {}, "training": {"fidelity": raw.get("fidelity", DEFAULT_FIDELITY)}}
    merged = _merge(_merge(base, {"training": raw.get("training") or {}}), difference)
    prefix = {key: f"{path}.{key}" if key in difference else key for key in ("model", "training", "filter")}
    model = build(ModelSettings, merged["model"], prefix["model"])
    training = build(TrainingSettings, merged["training"], prefix["training"])
    _check_model(model, merged["model"], prefix["model"])
    if model.init is None:
        check_batch(training, model.context, prefix["training"])
    _check_training(training, model, prefix["training"])
    return Arm(name, difference, model, training, build(FilterSettings, difference.get("filter"), prefix["filter"]))


_SECTIONS = {
    "corpus": CorpusSettings,
    "clean": CleanSettings,
    "tokenizer": TokenizerSettings,
    "evaluation": EvaluationSettings,
}


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """A recipe from its YAML text; raises `UserError` with the path of whatever is wrong."""
    raw = parse_yaml(text, where)
    if not isinstance(raw, dict):
        raise UserError("a recipe is a mapping with name, corpus, tokenizer, model, training, ablations", where=where)
    known = ("name", "fidelity", *_SECTIONS, "model", "training", "ablations", "controls", "seed_variance")
    for key in raw:
        if key not in known:
            raise unknown(str(key), known, where, "key")
    for key in ("name", "corpus", "model", "training", "ablations"):
        if key not in raw:
            raise UserError(f"the key '{key}' is missing", where=where)
    if not isinstance(raw["name"], str) or not NAME.fullmatch(raw["name"]):
        raise UserError(f"expected letters, digits, '.', '_' and '-', got {raw['name']!r}", where="name")
    fidelity = _convert(Literal["faithful", "corrected"], raw.get("fidelity", DEFAULT_FIDELITY), "fidelity")
    ablations = raw["ablations"]
    if not isinstance(ablations, dict) or not ablations:
        raise UserError("expected at least one ablation, the base, such as {fim: {}}", where="ablations")
    for name in ablations:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"expected letters, digits, '.', '_' and '-', got {name!r}", where="ablations")
    first = next(iter(ablations))
    if ablations[first]:
        raise UserError(
            "the first ablation is the base and has no difference",
            where=f"ablations.{first}",
            hint=f"write {first}: {{}}",
        )
    sections = {key: build(cls, raw.get(key), key) for key, cls in _SECTIONS.items()}
    evaluation = sections["evaluation"]
    if not 0 < evaluation.held_out < 1:
        raise UserError("must be above 0 and below 1: verdicts need held-out data", where="evaluation.held_out")
    arms = tuple(_arm(name, difference, raw) for name, difference in ablations.items())
    _check_tokenizer(sections["tokenizer"], raw.get("tokenizer"), arms)
    for arm in arms[1:]:
        if not set(arm.training.seeds) & set(arms[0].training.seeds):
            what = f"has no seed in common with the base, {arms[0].name}"
            raise UserError(what, where=f"ablations.{arm.name}.training.seeds", hint="a pair needs the same seed")
    return Recipe(
        name=raw["name"],
        fidelity=fidelity,
        arms=arms,
        text=text,
        controls=_parse_controls(raw.get("controls", False), "controls"),
        seed_variance=parse_folder(raw.get("seed_variance"), "seed_variance"),
        **sections,
    )


def _parse_controls(value: Any, path: str) -> ControlSettings | None:
    if value is None or isinstance(value, bool):
        return ControlSettings() if value else None
    settings: ControlSettings = build(ControlSettings, value, path)
    return settings


def _check_tokenizer(tokenizer: TokenizerSettings, raw: Any, arms: tuple[Arm, ...]) -> None:
    """All arms share one tokenizer: trained here, a folder's, or that of the checkpoint that the base starts from."""
    init = arms[0].model.init
    if init is not None:
        if raw:
            hint = "leave it out"
            raise UserError("the checkpoint of model.init brings its own tokenizer", where="tokenizer", hint=hint)
    elif tokenizer.folder is not None:
        if given := set(raw) - {"folder"}:
            hint = "leave it out"
            raise UserError("the tokenizer of the folder has its own", where=f"tokenizer.{min(given)}", hint=hint)
    elif not tokenizer.vocab_size:
        raise UserError("the key 'vocab_size' is missing", where="tokenizer")
    for arm in arms:
        if arm.model.init is not None and arm.model.init != init:
            what = "starts from another checkpoint than the base, so its tokens may differ"
            raise UserError(what, where=f"ablations.{arm.name}.model.init", hint="make it a study of its own")


def shipped() -> list[str]:
    """Names of the recipes that come with Kringle."""
    return sorted(
        p.name.removesuffix(".yaml") for p in resources.files("kringle.recipes").iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name (`laptop`) or a file by path."""
    path = Path(name_or_path).expanduser()
    try:
        if path.suffix in (".yaml", ".yml") or path.exists():
            return parse_recipe(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None
    if name_or_path not in shipped():
        raise unknown(name_or_path, shipped(), "recipe", "recipe")
    text = (resources.files("kringle.recipes") / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, where=f"recipe {name_or_path}")
