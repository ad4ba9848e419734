"""GGUF files of StarCoder's architecture, for llama.cpp, and a plain forward pass over what was written.

The architecture has multi-query attention, learned positions and a tied output: ours. (Sources: llama.cpp's
`convert_hf_to_gguf.py`, class StarCoderModel, and gguf-py's `tensor_mapping.py`.) Needs the package gguf.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.errors import UserError
from kringle.model.transformer import LAYER_NORM_EPSILON, Transformer
from kringle.tokens.tokenizer import Tokenizer

Logits = Callable[[list[int]], np.ndarray]  # ids (T,) -> (T, V)


def write(model: Transformer, tokenizer: Tokenizer, tokens: list[str], file: Path) -> None:
    """Write `file`; `tokens` are the vocabulary's by id, padded rows included. UserError for multi-head attention."""
    import gguf

    c = model.config
    if c.attention != "mqa":
        raise UserError(
            "llama.cpp's StarCoder architecture has one head of keys and values; this model has one per query head",
            where="--to gguf",
            hint="export it to ctranslate2",
        )
    writer = gguf.GGUFWriter(file, "starcoder")
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(4 * c.width)
    writer.add_block_count(c.layers)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    raw = json.loads(tokenizer._backend.to_str())
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["model"]["merges"]]
    specials = vars(tokenizer.specials)
    kinds = [gguf.TokenType.NORMAL] * c.vocab_size
    for i in range(tokenizer.vocab_size, c.vocab_size):
        kinds[i] = gguf.TokenType.UNUSED
    for i in specials.values():
        kinds[i] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("starcoder")  # digits apart, then GPT-2's expression: ours
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(specials["end_of_text"])
    writer.add_eos_token_id(specials["end_of_text"])
    writer.add_pad_token_id(specials["fim_pad"])
    writer.add_add_bos_token(False)
    for key, name in (
        ("fim_pre", "fim_prefix"),
        ("fim_suf", "fim_suffix"),
        ("fim_mid", "fim_middle"),
        ("fim_pad", "fim_pad"),
    ):
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", specials[name])
    for name, parameter in model.named_parameters():
        writer.add_tensor(tensor_name(name), parameter.detach().float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_name(name: str) -> str:
    """A tensor's name in llama.cpp's StarCoder architecture (gguf-py, `tensor_mapping.py`)."""
    parts = {
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    stem, kind = name.removeprefix("transformer.").rsplit(".", 1)
    whole = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, number, part = stem.split(".", 2)
    return f"blk.{number}.{parts[part]}.{kind}"


def run(file: Path) -> Logits:
    """A plain forward pass over the file's tensors and keys, as llama.cpp's graph for StarCoder describes it."""
    import gguf

    reader = gguf.GGUFReader(file)
    tensors = {
        t.name: torch.from_numpy(np.array(t.data)).view(*[int(n) for n in reversed(t.shape)]) for t in reader.tensors
    }

    def key(name: str) -> Any:
        return reader.fields[f"starcoder.{name}"].contents()

    layers, heads, e = int(key("block_count")), int(key("attention.head_count")), int(key("embedding_length"))
    epsilon, d = float(key("attention.layer_norm_epsilon")), e // heads

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (e,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    @torch.no_grad()
    def logits(ids: list[int]) -> np.ndarray:
        t = len(ids)
        x = tensors["token_embd.weight"][ids] + tensors["position_embd.weight"][:t]
        for i in range(layers):
            q, k, v = torch.split(linear(norm(x, f"blk.{i}.attn_norm"), f"blk.{i}.attn_qkv"), [e, d, d], dim=-1)
            scores = q.view(t, heads, d).transpose(0, 1) @ k.t() / math.sqrt(d)
            y = torch.softmax(scores.masked_fill(~torch.ones(t, t).tril().bool(), -torch.inf), -1) @ v
            x = x + linear(y.transpose(0, 1).reshape(t, e), f"blk.{i}.attn_output")
            inner = F.gelu(linear(norm(x, f"blk.{i}.ffn_norm"), f"blk.{i}.ffn_up"), approximate="tanh")
            x = x + linear(inner, f"blk.{i}.ffn_down")
        return np.asarray(norm(x, "output_norm") @ tensors["token_embd.weight"].t())

    return logits


def run_llama_cpp(file: Path, context: int) -> tuple[str, Logits]:
    """The engine itself: its name, and the logits that it computes."""
    import llama_cpp

    wide = llama_cpp.GGML_TYPE_F32  # of keys and values, which it keeps in 16 bits by default
    engine = llama_cpp.Llama(str(file), logits_all=True, n_ctx=context, type_k=wide, type_v=wide, verbose=False)

    def logits(ids: list[int]) -> np.ndarray:
        engine.reset()
        engine.eval(ids)
        return np.array(engine.scores[: len(ids)])

    return f"llama.cpp (llama_cpp {llama_cpp.__version__})", logits
