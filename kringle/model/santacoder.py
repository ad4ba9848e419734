"""The layout of `bigcode/santacoder` as it was released in 2022, both ways: code of its own, derived from GPT-2.

Linear maps are stored as (in, out). With multi-query attention queries are apart, `attn.q_attn` (E -> E), from keys and
values, `attn.kv_attn` (E -> 2 D, the keys first); with multi-head attention `attn.c_attn` is GPT-2's (3, H, D). The
causal masks `attn.bias` (1, 1, context, context) and `attn.masked_bias` (-10,000) are stored, and the output layer too,
although it is tied. The special tokens are spelled with hyphens: `<fim-prefix>`. (Sources: the checkpoint's own
configuration and tensor names, and the converters of TensorRT-LLM and TransformerLens, which agree.)

The model's code is not shipped here; `reference_logits` computes what it computes, written from the layout alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.errors import UserError
from kringle.model.exchange import CONFIG_FILE, WEIGHTS_FILE
from kringle.model.shape import ModelConfig
from kringle.model.transformer import LAYER_NORM_EPSILON, Transformer
from kringle.tokens.tokenizer import SPECIAL_TOKENS, TOKENIZER_FILE, Tokenizer

MASKED = -10_000.0  # `masked_bias`
TRANSPOSED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
ACTIVATIONS = ("gelu_fast", "gelu_pytorch_tanh", "gelu_new")  # three names of one formula


def is_santacoder(raw: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of this layout."""
    return "attention_head_type" in raw and raw.get("model_type") in (None, "gpt2")


def hyphened(token: str) -> str:
    """SantaCoder's spelling of a special token of ours."""
    return token.replace("_", "-") if token.startswith("<fim_") else token


def configuration(config: ModelConfig, end_of_text: int) -> dict[str, Any]:
    """`config.json` as the released model has it."""
    return {
        "architectures": ["GPT2LMHeadCustomModel"],
        "model_type": "gpt2",
        "auto_map": {
            "AutoConfig": "configuration_gpt2_mq.GPT2CustomConfig",
            "AutoModelForCausalLM": "modeling_gpt2_mq.GPT2LMHeadCustomModel",
        },
        "attention_head_type": "multiquery" if config.attention == "mqa" else "multihead",
        "activation_function": "gelu_fast",
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": 4 * config.width,
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def to_santacoder(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of the released layout, masks and output layer included."""
    c = model.config
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensor = parameter.detach().to(dtype)
        stem, kind = name.rsplit(".", 1)
        if stem.endswith("attn.c_attn"):
            if c.attention == "mqa":
                query, rest = torch.split(tensor, [c.width, 2 * c.head_size])
                for part, piece in (("q_attn", query), ("kv_attn", rest)):
                    piece = piece.t() if kind == "weight" else piece
                    tensors[f"{stem.removesuffix('c_attn')}{part}.{kind}"] = piece.contiguous()
                continue
            tensor = part_major(tensor, c)
        tensors[name] = (tensor.t() if kind == "weight" and stem.endswith(TRANSPOSED) else tensor).contiguous()
    mask = torch.ones(c.context, c.context, dtype=torch.bool).tril()[None, None]
    for i in range(c.layers):
        tensors[f"transformer.h.{i}.attn.bias"] = mask.clone()
        tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(MASKED, dtype=dtype)
    tensors["lm_head.weight"] = model.transformer.wte.weight.detach().to(dtype).clone()
    return tensors


def from_santacoder(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tensors under our names in our layout, float32; UserError for one that is missing."""
    out: dict[str, Tensor] = {}
    try:
        for name, tensor in tensors.items():
            if name.endswith((".attn.bias", ".attn.masked_bias")) or name == "lm_head.weight":
                continue
            stem, kind = name.rsplit(".", 1)
            transposed = kind == "weight" and stem.endswith((*TRANSPOSED, "attn.q_attn", "attn.kv_attn"))
            plain = tensor.float().t() if transposed else tensor.float()
            if stem.endswith("attn.kv_attn"):
                continue
            if stem.endswith("attn.q_attn"):
                rest = tensors[f"{stem.removesuffix('q_attn')}kv_attn.{kind}"].float()
                plain = torch.cat((plain, rest.t() if transposed else rest))
                name = f"{stem.removesuffix('q_attn')}c_attn.{kind}"
            elif stem.endswith("attn.c_attn") and config.attention == "mha":
                plain = head_major(plain, config)
            out[name if name.startswith("transformer.") else f"transformer.{name}"] = plain.contiguous()
    except KeyError as error:
        raise UserError(f"the tensor {error} is missing", where="SantaCoder's layout") from error
    return out


def part_major(x: Tensor, config: ModelConfig) -> Tensor:
    """(H, 3, D) rows -> GPT-2's (3, H, D)."""
    shape = (config.heads, 3, config.head_size, *x.shape[1:])
    return x.view(shape).transpose(0, 1).reshape(x.shape)


def head_major(x: Tensor, config: ModelConfig) -> Tensor:
    """GPT-2's (3, H, D) rows -> (H, 3, D)."""
    shape = (3, config.heads, config.head_size, *x.shape[1:])
    return x.reshape(shape).transpose(0, 1).reshape(x.shape)


@torch.no_grad()
def reference_logits(tensors: Mapping[str, Tensor], raw: Mapping[str, Any], tokens: Tensor) -> Tensor:
    """Logits (T, V) of tokens (T,), computed over the stored tensors as the released code does: x W + b, and masks read
    from the checkpoint. Masked scores are minus infinity here; after a softmax -10,000 is the same in float32."""
    heads, e = int(raw["n_head"]), int(raw["n_embd"])
    d, t = e // heads, len(tokens)

    def get(name: str) -> Tensor:
        return tensors[name if name in tensors else f"transformer.{name}"].float()

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.addmm(get(f"{name}.bias"), x, get(f"{name}.weight"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (e,), get(f"{name}.weight"), get(f"{name}.bias"), float(raw["layer_norm_epsilon"]))

    x = get("wte.weight")[tokens] + get("wpe.weight")[:t]
    for i in range(int(raw["n_layer"])):
        h = norm(x, f"h.{i}.ln_1")
        if raw["attention_head_type"] == "multiquery":
            q = linear(h, f"h.{i}.attn.q_attn").view(t, heads, d).transpose(0, 1)
            key, value = torch.split(linear(h, f"h.{i}.attn.kv_attn"), d, dim=-1)
            key, value = key[None], value[None]
        else:
            q, key, value = (
                part.view(t, heads, d).transpose(0, 1)
                for part in torch.split(linear(h, f"h.{i}.attn.c_attn"), e, dim=-1)
            )
        scores = q @ key.transpose(-1, -2) / math.sqrt(d)
        name = f"transformer.h.{i}.attn.bias"
        seen = tensors[name][0, 0, :t, :t].bool() if name in tensors else torch.ones(t, t).tril().bool()
        y = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ value
        x = x + linear(y.transpose(0, 1).reshape(t, e), f"h.{i}.attn.c_proj")
        h = linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + linear(h, f"h.{i}.mlp.c_proj")
    output = tensors.get("lm_head.weight", get("wte.weight")).float()
    return norm(x, "ln_f") @ output.t()


def write(model: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """A directory of the released layout: weights, configuration, tokenizer files with hyphened special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = configuration(model.config, tokenizer.specials.end_of_text)
    raw["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / CONFIG_FILE).write_text(json.dumps(raw, indent=2) + "\n")
    safetensors.torch.save_file(to_santacoder(model, dtype), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    tokenizer.save(folder, model.config.context)
    for name in (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json"):
        _respell(folder / name, {token: hyphened(token) for token in SPECIAL_TOKENS})


def _respell(path: Path, names: Mapping[str, str]) -> None:
    """Replace whole JSON strings; in `tokenizer.json` only among the added tokens, since text tokens may be alike."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return names.get(value, value)
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        if isinstance(value, dict):
            return {names.get(key, key): walk(entry) for key, entry in value.items()}
        return value

    raw = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens" in raw:
        raw["added_tokens"] = walk(raw["added_tokens"])
    else:
        raw = walk(raw)
    path.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a directory, from one file or several, in safetensors or PyTorch's format; nothing is run."""
    for name in (WEIGHTS_FILE, "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        files = [name] if (folder / name).is_file() else []
        try:
            if index.is_file():
                files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            tensors: dict[str, Tensor] = {}
            for file in files:
                path = folder / Path(file).name
                if path.suffix == ".safetensors":
                    tensors |= safetensors.torch.load_file(path)
                else:
                    tensors |= torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # the two libraries raise many kinds for a damaged file
            raise UserError(f"cannot be read ({type(error).__name__}: {error})", where=str(folder / name)) from None
        if tensors:
            return tensors
    raise UserError(f"no {WEIGHTS_FILE} or pytorch_model.bin here", where=str(folder))


def read(folder: Path) -> tuple[Transformer, Path | None]:
    """The model of a directory in this layout, float32, and its tokenizer file if there is one."""
    raw = json.loads((folder / CONFIG_FILE).read_text())
    where = str(folder / CONFIG_FILE)
    if raw.get("activation_function") not in ACTIVATIONS:
        raise UserError(f"activation_function is {raw.get('activation_function')!r}", where=where)
    try:
        config = ModelConfig(
            layers=raw["n_layer"],
            width=raw["n_embd"],
            heads=raw["n_head"],
            attention="mqa" if raw["attention_head_type"] == "multiquery" else "mha",
            context=raw["n_positions"],
            vocab_size=raw["vocab_size"],
        )
    except KeyError as error:
        raise UserError(f"the key {error} is missing", where=where) from error
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(from_santacoder(read_tensors(folder), config), assign=True)
    except RuntimeError as error:
        raise UserError(f"weights do not fit the configuration ({error})", where=str(folder)) from error
    file = folder / TOKENIZER_FILE
    return model, file if file.is_file() else None


def underscored_tokenizer(file: Path, out: Path) -> Tokenizer:
    """Write SantaCoder's `tokenizer.json` to `out` in our spelling of the special tokens, adding those it lacks (the
    first release had no fill-in-the-middle tokens), and load it."""
    raw = json.loads(file.read_text(encoding="utf-8"))
    names = {hyphened(token): token for token in SPECIAL_TOKENS}
    added = [{**entry, "content": names.get(entry["content"], entry["content"])} for entry in raw["added_tokens"]]
    there = {entry["content"] for entry in added}
    first = len(raw["model"]["vocab"])
    for i, token in enumerate(SPECIAL_TOKENS):
        if token not in there and token not in raw["model"]["vocab"]:
            plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": first + i, "content": token, **plain, "special": True})
    raw["added_tokens"] = sorted(added, key=lambda entry: int(entry["id"]))
    out.mkdir(parents=True, exist_ok=True)
    (out / TOKENIZER_FILE).write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.load(out)
