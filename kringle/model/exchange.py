"""Model directories that `transformers` loads as native `gpt_bigcode`, and loading them back.

Parameter names and layouts of `kringle.model.transformer` are those of `GPTBigCodeForCausalLM`, so saving is writing
and nothing is converted. A model with rotary positions is written in the same form under a name of its own, which
`transformers` refuses. Loading also takes SantaCoder's older layout (code of its own, projections apart and
transposed), weights in several files and PyTorch's own format. Does not cover: other engines' formats.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from kringle.errors import UserError
from kringle.model.shape import FIM_KEY, FimTraining, ModelConfig
from kringle.model.transformer import LAYER_NORM_EPSILON, Transformer
from kringle.tokens.tokenizer import Tokenizer

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
ROTARY_TYPE = "kringle_rotary"  # no model of `transformers`: it has no gpt_bigcode with rotary positions
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")  # three names of one formula
INITIALIZER_RANGE = 0.02  # of transformers; drawn from only by whoever adds layers to a loaded model


def hugging_face_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` of a `gpt_bigcode` model. Dropout is as trained: the default of 0.1 would reach fine-tuners."""
    end = tokenizer.specials.end_of_text
    return {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode" if config.positions == "learned" else ROTARY_TYPE,
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": 4 * config.width,
        "multi_query": config.attention == "mqa",
        "num_key_value_heads": config.key_value_heads,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": tokenizer.specials.fim_pad,
        "use_cache": True,
        "dtype": "float32",
    }


def save(model: Transformer, tokenizer: Tokenizer, folder: Path, fim: FimTraining | None = None) -> None:
    """Write a directory that `transformers` loads by itself: weights, both configurations and the tokenizer.

    `fim` is how the model was trained to fill in, where that is known; `fim_training` reads it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = hugging_face_config(model.config, tokenizer)
    if fim is not None:
        config[FIM_KEY] = asdict(fim)
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokenizer.save(folder, model.config.context)
    weights = {name: parameter.detach().float().cpu().contiguous() for name, parameter in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)  # the library lets only the owner read it


def load(folder: Path) -> tuple[Transformer, Tokenizer]:
    """The model (float32, without dropout) and the tokenizer of a directory; UserError names what is missing or does
    not fit."""
    config, tokenizer = describe(folder), Tokenizer.load(folder)
    model = _fitted(folder, config, tokenizer, read_weights)
    for name, weight in model.state_dict().items():
        if not all(math.isfinite(end) for end in weight.aminmax()):
            what = f"{name} holds a number that is not finite"
            raise UserError(what, where=str(folder), hint="get the model once more")
    return model.requires_grad_(True), tokenizer


def _fitted(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, read: Callable[[Path], dict[str, Tensor]]
) -> Transformer:
    """The model with the tensors that are read; UserError where they, or the tokenizer, do not fit."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size} rows", where=str(folder)
        )
    with torch.device("meta"):
        model = Transformer(config)
    try:
        weights = native_weights(read(folder), config)
        model.load_state_dict(weights, assign=True)  # refuses missing, unexpected and misshapen tensors
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        where = folder / WEIGHTS_FILE if (folder / WEIGHTS_FILE).exists() else folder
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"weights do not fit the configuration ({why})", where=str(where)) from error
    return model


def check(folder: Path) -> None:
    """Refuse a directory that `load` would, as far as that can be known without reading its weights: UserError where
    the tokenizer, the configuration, or a file of weights is missing or cut short, or tensors have other shapes."""
    _fitted(folder, describe(folder), Tokenizer.load(folder), _shapes)


def _shapes(folder: Path) -> dict[str, Tensor]:
    """What `read_weights` would read, as tensors without numbers."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            try:
                with safetensors.safe_open(file, "pt") as opened:
                    parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
                    floating = {name: part for name, part in parts.items() if "F" in part.get_dtype()}  # F32, BF16
                    tensors |= {n: torch.empty(part.get_shape(), device="meta") for n, part in floating.items()}
            except (OSError, safetensors.SafetensorError) as error:
                raise _damaged(file, error) from error
        else:
            tensors |= {n: t.float() for n, t in _read_pickle(file, "meta").items() if t.is_floating_point()}
    return tensors


def _damaged(file: Path, why: object) -> UserError:
    return UserError(f"damaged or cut short ({why})", where=str(file), hint="get the file once more")


def describe(folder: Path) -> ModelConfig:
    """The shape of the model in a directory, from its `config.json` alone."""
    return read_config(configuration(folder), str(folder / CONFIG_FILE))


def fim_training(folder: Path) -> FimTraining | None:
    """How the model in a directory was trained to fill in; None where its `config.json` does not say, as others' do
    not."""
    return FimTraining.of(configuration(folder), str(folder / CONFIG_FILE))


def nearby(folder: Path) -> str:
    """A question that names the models in a folder, a workspace's among them; empty where it holds none."""
    found = sorted(path.parent for pattern in ("*", "models/*") for path in folder.glob(f"{pattern}/{CONFIG_FILE}"))
    return f"did you mean {' or '.join(map(str, found[:3]))}?" if found else ""


def configuration(folder: Path) -> dict[str, Any]:
    """What the configuration in a model's folder says. UserError where there is none that can be read."""
    hint = f"give the folder of a saved model, which has a {CONFIG_FILE}"
    try:
        raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{CONFIG_FILE}: {error.strerror or error}"
        raise UserError(f"no model here ({reason})", where=str(folder), hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"no model here ({CONFIG_FILE} is no JSON: {error})", where=str(folder), hint=hint) from error
    if not isinstance(raw, dict):
        raise UserError(f"no model here ({CONFIG_FILE} is no object)", where=str(folder), hint=hint)
    return raw


def read_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """A `gpt_bigcode` or SantaCoder configuration as ours; UserError if it asks for what our transformer does not
    compute."""
    kind = raw.get("model_type")
    older = "attention_head_type" in raw  # SantaCoder's, whose model_type is gpt2
    if kind not in ("gpt_bigcode", ROTARY_TYPE) and not older:
        raise UserError(f"model_type is {kind!r}, only 'gpt_bigcode' and SantaCoder's own are supported", where=where)
    activation = raw.get("activation_function")
    if activation not in TANH_GELU:
        raise UserError(
            f"activation_function is {activation!r}, only {', '.join(TANH_GELU)} are supported", where=where
        )
    expected = {"layer_norm_epsilon": LAYER_NORM_EPSILON, "scale_attn_weights": True, "tie_word_embeddings": True}
    for key, value in expected.items():
        if raw.get(key, value) != value:
            raise UserError(f"{key} is {raw[key]!r}, only {value!r} is supported", where=where)
    try:
        if raw.get("n_inner") not in (None, 4 * raw["n_embd"]):
            raise UserError(f"n_inner is {raw['n_inner']}, only 4 times n_embd is supported", where=where)
        shared = raw["attention_head_type"] == "multiquery" if older else raw["multi_query"]
        for key in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size"):
            if type(raw[key]) is not int:
                raise UserError(f"{key} is {raw[key]!r}, not a whole number", where=where)
        return ModelConfig(
            layers=raw["n_layer"],
            width=raw["n_embd"],
            heads=raw["n_head"],
            attention="mqa" if shared else "mha",
            context=raw["n_positions"],
            vocab_size=raw["vocab_size"],
            positions="rotary" if kind == ROTARY_TYPE else "learned",
        )
    except KeyError as error:
        raise UserError(f"the key {error} is missing", where=where) from error
    except TypeError as error:
        raise UserError(f"a number is none ({error})", where=where) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a directory in float32, from one file or several, in safetensors or PyTorch's format."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors |= safetensors.torch.load_file(file) if file.suffix == ".safetensors" else _read_pickle(file)
    return {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a directory, all safetensors or all PyTorch's. UserError where there is none,
    or one of several is missing."""
    for name in (WEIGHTS_FILE, "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            try:
                files = sorted({folder / str(file) for file in json.loads(index.read_bytes())["weight_map"].values()})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"names no files of weights ({error!r})", where=str(index)) from error
            if missing := [file.name for file in files if not file.is_file()]:
                raise UserError(f"names {missing[0]}, which is not beside it", where=str(index))
            return files
    raise UserError(f"no {WEIGHTS_FILE} or pytorch_model.bin here", where=str(folder))


def _read_pickle(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """PyTorch's format, tensors alone: nothing in the file is run."""
    loaded = torch.load(file, map_location=device, weights_only=True, mmap=True)
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise UserError("holds something else than named tensors", where=str(file))
    return loaded


def native_weights(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights under our names and in our layout.

    Masks that older files hold and an output layer that repeats the embedding are left out. SantaCoder's code stores
    linear maps as (in, out), and for multi-query attention `q_attn` and `kv_attn` (key, then value) apart; its
    multi-head `c_attn` is GPT-2's (query, key, value) over all heads, ours (query, key, value) head by head.
    """
    left_out = (".attn.bias", ".attn.masked_bias")
    weights = {name: w for name, w in weights.items() if not name.endswith(left_out)}
    head = weights.pop("lm_head.weight", None)
    if head is not None and not head.is_meta and not torch.equal(head, weights["transformer.wte.weight"]):
        raise RuntimeError("lm_head.weight differs from the embedding: the model is not tied")
    rows = weights.get("transformer.h.0.mlp.c_fc.weight")
    if rows is None or rows.shape[0] != config.width:
        return weights
    made: dict[str, Tensor] = {}
    for name, w in weights.items():
        linear = name.endswith(".weight") and ".h." in name and ".ln_" not in name
        made[name] = w.T.contiguous() if linear else w
    for i in range(config.layers):
        place = f"transformer.h.{i}.attn"
        for kind in ("weight", "bias"):
            if f"{place}.q_attn.{kind}" in made:
                parts = [made.pop(f"{place}.{part}.{kind}") for part in ("q_attn", "kv_attn")]
                made[f"{place}.c_attn.{kind}"] = torch.cat(parts)
            elif config.attention == "mha":
                w = made[f"{place}.c_attn.{kind}"]
                heads = w.view(3, config.heads, config.head_size, *w.shape[1:]).transpose(0, 1)
                made[f"{place}.c_attn.{kind}"] = heads.reshape(w.shape)
    return made
