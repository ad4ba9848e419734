"""Model directories that `transformers` loads as native `gpt_bigcode`, and loading them back.

Parameter names and layouts of `kringle.model.transformer` are those of `GPTBigCodeForCausalLM`, so saving is writing
and nothing is converted. Covers fp32 directories with our tokenizer. Does not cover: SantaCoder's older layout with
code of its own, other engines' formats, weights in several files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from kringle.errors import UserError
from kringle.model.transformer import LAYER_NORM_EPSILON, ModelConfig, Transformer
from kringle.tokens.tokenizer import Tokenizer

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INITIALIZER_RANGE = 0.02  # of transformers; drawn from only by whoever adds layers to a loaded model


def hugging_face_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` of a `gpt_bigcode` model. Dropout is 0, as trained: the default of 0.1 would reach fine-tuners."""
    end = tokenizer.specials.end_of_text
    return {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
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
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": tokenizer.specials.fim_pad,
        "use_cache": True,
        "dtype": "float32",
    }


def save(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a directory that `transformers` loads by itself: weights, both configurations and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = hugging_face_config(model.config, tokenizer)
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokenizer.save(folder, model.config.context)
    weights = {name: parameter.detach().contiguous() for name, parameter in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)  # the library lets only the owner read it


def load(folder: Path) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a directory that `save` wrote; UserError names what is missing or does not fit."""
    try:
        raw: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"no model here ({error})", where=str(folder / CONFIG_FILE)) from error
    config = read_config(raw, str(folder / CONFIG_FILE))
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size} rows", where=str(folder)
        )
    with torch.device("meta"):
        model = Transformer(config)
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        model.load_state_dict(weights, assign=True)  # refuses missing, unexpected and misshapen tensors
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(f"weights do not fit the configuration ({error})", where=str(folder / WEIGHTS_FILE)) from error
    return model.requires_grad_(True), tokenizer


def read_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """A `gpt_bigcode` configuration as ours; UserError if it asks for what our transformer does not compute."""
    expected = {
        "model_type": "gpt_bigcode",
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }
    for key, value in expected.items():
        if raw.get(key) != value:
            raise UserError(f"{key} is {raw.get(key)!r}, only {value!r} is supported", where=where)
    try:
        if raw.get("n_inner") not in (None, 4 * raw["n_embd"]):
            raise UserError(f"n_inner is {raw['n_inner']}, only 4 times n_embd is supported", where=where)
        return ModelConfig(
            layers=raw["n_layer"],
            width=raw["n_embd"],
            heads=raw["n_head"],
            attention="mqa" if raw["multi_query"] else "mha",
            context=raw["n_positions"],
            vocab_size=raw["vocab_size"],
        )
    except KeyError as error:
        raise UserError(f"the key {error} is missing", where=where) from error
