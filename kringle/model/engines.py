"""Models for other engines: written, run there, compared, and kept only if they compute the same.

`kringle export MODEL --to FORMAT OUT` and `kringle import SRC OUT`. A format is written to a folder beside OUT, loaded
by the engine that it is for, and asked for the logits of real source code; the largest difference from our own model's,
in fp32, is printed, and above a tolerance nothing is left behind.

    gpt_bigcode   run by transformers
    santacoder    the released layout; its code is not on this machine, so a reference over the stored tensors runs it
    ctranslate2   run by CTranslate2, multi-query as it is, multi-head in its GPT-2 form
    gguf          StarCoder's architecture, multi-query; run by llama.cpp where `llama_cpp` is installed, else by a
                  reference over the tensors as read back from the file
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kringle.errors import UserError
from kringle.model import exchange, santacoder
from kringle.model.transformer import LAYER_NORM_EPSILON, Transformer
from kringle.tokens.tokenizer import SPECIAL_TOKENS, TOKENIZER_FILE, Tokenizer

# Sums in another order differ by some 1e-6 of the logits' size per layer; a wrong transposition or order of heads by as
# much as the logits themselves.
TOLERANCE = 1e-3
# llama.cpp looks GELU up in a table of 16-bit floats (ggml's GGML_GELU_FP16): 0.0006 to 0.008 for 4 to 24 layers.
LLAMA_CPP_TOLERANCE = 0.03
PROMPTS, PROMPT_TOKENS = 4, 128
Logits = Callable[[list[int]], np.ndarray]  # ids (T,) -> (T, V)


class Engine(NamedTuple):
    """What runs a model that was written: its name, the logits that it computes, and how far they may be from ours."""

    name: str
    logits: Logits
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Exchanged:
    """What was written, and how far it is from the original."""

    out: str
    format: str
    engine: str  # what computed the other logits
    prompts: int
    tokens: int
    difference: float  # the largest, in logits


def real_prompts(tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Beginnings of this package's own source files, one fill-in-the-middle prompt among them."""
    files = sorted(Path(__file__).parent.glob("*.py"))[:PROMPTS]
    length = min(PROMPT_TOKENS, context - 4)
    prompts = [tokenizer.encode(file.read_text(encoding="utf-8"))[:length] for file in files]
    s, last = tokenizer.specials, prompts[-1]
    third = len(last) // 3
    prompts[-1] = [
        s.fim_prefix,
        *last[:third],
        s.fim_suffix,
        *last[2 * third :],
        s.fim_middle,
        *last[third : 2 * third],
    ]
    return [[s.end_of_text, *prompt] if prompt[0] != s.fim_prefix else prompt for prompt in prompts]


def compare(model: Transformer, engine: Engine, prompts: list[list[int]]) -> float:
    """The largest difference of logits over all prompts and positions; UserError where it is too large."""
    worst = 0.0
    for prompt in prompts:
        with torch.no_grad():
            ours = model(torch.tensor([prompt]))[0].float().numpy()
        got = np.asarray(engine.logits(prompt), dtype=np.float32)[:, : ours.shape[1]]
        if got.shape != ours.shape or not np.isfinite(got).all():
            raise UserError(f"logits of shape {got.shape} instead of {ours.shape}, or not numbers", where="exchange")
        scale = max(1.0, float(np.abs(ours).max()) / 10)
        worst = max(worst, float(np.abs(got - ours).max()) / scale)
    if worst > engine.tolerance:
        raise UserError(
            f"the logits of {engine.name} differ by {worst:.2g}, more than {engine.tolerance}: nothing was written",
            where="exchange",
        )
    return worst


def export_model(folder: Path, format: str, out: Path) -> Exchanged:
    """Write a model of ours for another engine. UserError, with nothing written, where it does not compute the same."""
    writers: dict[str, Callable[[Transformer, Tokenizer, Path], Engine]] = {
        "gpt_bigcode": _gpt_bigcode,
        "santacoder": _santacoder,
        "ctranslate2": _ctranslate2,
        "gguf": _gguf,
    }
    if format not in writers:
        raise UserError(f"unknown format '{format}'", where="--to", hint=f"known: {', '.join(writers)}")
    _refuse_existing(out)
    model, tokenizer = exchange.load(folder)
    if not hasattr(model.transformer, "wpe"):
        raise UserError(
            "its positions are not learned, and no other engine has this architecture without them",
            where=str(folder),
            hint="train with learned positions to use a model elsewhere",
        )
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        engine = writers[format](model.eval(), tokenizer, fresh)
        prompts = real_prompts(tokenizer, model.config.context)
        difference = compare(model, engine, prompts)
        if (folder / "NOTICE").is_file():
            shutil.copy(folder / "NOTICE", fresh / "NOTICE")
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Exchanged(str(out), format, engine.name, len(prompts), sum(map(len, prompts)), difference)


def import_model(source: Path, out: Path) -> Exchanged:
    """Read a model of SantaCoder's released layout, or any `gpt_bigcode` directory, and write it as ours."""
    raw = exchange.configuration(source)
    _refuse_existing(out)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        if santacoder.is_santacoder(raw):
            model, file = santacoder.read(source)
            tensors = santacoder.read_tensors(source)
            format = "santacoder"
            engine = Engine("reference over the stored tensors", _run_santacoder(tensors, raw))
        else:
            file = source / TOKENIZER_FILE
            model = _native(source, raw)
            format = "gpt_bigcode"
            engine = Engine("transformers", _run_transformers(source))
        if file is None or not file.is_file():
            raise UserError(f"no {TOKENIZER_FILE} here", where=str(source), hint="copy the tokenizer's files beside it")
        tokenizer = santacoder.underscored_tokenizer(file, fresh)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size} rows",
                where=str(source),
            )
        exchange.save(model, tokenizer, fresh, exchange.fim_training(source))
        ours, _ = exchange.load(fresh)  # what was written is what is compared
        prompts = real_prompts(tokenizer, model.config.context)
        difference = compare(ours, engine, prompts)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Exchanged(str(out), format, engine.name, len(prompts), sum(map(len, prompts)), difference)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise UserError("is there already", where=str(out), hint="choose another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)


def _native(source: Path, raw: dict[str, Any]) -> Transformer:
    """A `gpt_bigcode` directory whose tokenizer may be another's."""
    with torch.device("meta"):
        model = Transformer(exchange.read_config(raw, str(source / exchange.CONFIG_FILE)))
    tensors = {
        name: tensor.float()
        for name, tensor in santacoder.read_tensors(source).items()
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise UserError(f"weights do not fit the configuration ({error})", where=str(source)) from error
    return model


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this needs the package {package}", where="exchange", hint="pip install 'kringle[exchange]'")


# -- transformers ------------------------------------------------------------------------------------------------------


def _gpt_bigcode(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Engine:
    exchange.save(model, tokenizer, folder)
    return Engine("transformers", _run_transformers(folder))


def _run_transformers(folder: Path) -> Logits:
    _need("transformers")
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    theirs, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {kind: names for kind, names in info.items() if names and kind != "missing_keys"}
    missing = set(info.get("missing_keys", ())) - {"lm_head.weight"}
    if wrong or missing:
        raise UserError(f"transformers found tensors that do not fit: {wrong or missing}", where=str(folder))

    def logits(ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(theirs(torch.tensor([ids])).logits[0])

    return logits


# -- SantaCoder's own layout -------------------------------------------------------------------------------------------


def _santacoder(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Engine:
    santacoder.write(model, tokenizer, folder)
    raw = json.loads((folder / exchange.CONFIG_FILE).read_text())
    tensors = santacoder.read_tensors(folder)
    return Engine("reference over the stored tensors", _run_santacoder(tensors, raw))


def _run_santacoder(tensors: dict[str, Tensor], raw: dict[str, Any]) -> Logits:
    return lambda ids: np.asarray(santacoder.reference_logits(tensors, raw, torch.tensor(ids)))


# -- CTranslate2 -------------------------------------------------------------------------------------------------------


def _ctranslate2(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Engine:
    _need("ctranslate2")
    import ctranslate2

    c = model.config
    named = {n.removeprefix("transformer."): p.detach().float().numpy() for n, p in model.named_parameters()}
    spec = ctranslate2.specs.TransformerDecoderModelSpec.from_config(
        c.layers,
        c.heads,
        pre_norm=True,
        activation=ctranslate2.specs.Activation.GELUTanh,
        multi_query_attention=c.attention == "mqa",
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = named["wte.weight"]
    decoder.position_encodings.encodings = named["wpe.weight"]

    def put(target: Any, name: str, kinds: tuple[str, str] = ("weight", "bias")) -> None:
        for kind, source in zip(kinds, ("weight", "bias"), strict=True):
            setattr(target, kind, named[f"{name}.{source}"])

    put(decoder.layer_norm, "ln_f", ("gamma", "beta"))
    for i, layer in enumerate(decoder.layer):
        at = f"h.{i}"
        if c.attention == "mha":  # CTranslate2 expects GPT-2's order
            for kind in ("weight", "bias"):
                name = f"{at}.attn.c_attn.{kind}"
                named[name] = santacoder.part_major(torch.from_numpy(named[name]), c).numpy()
        put(layer.self_attention.layer_norm, f"{at}.ln_1", ("gamma", "beta"))
        put(layer.self_attention.linear[0], f"{at}.attn.c_attn")
        put(layer.self_attention.linear[1], f"{at}.attn.c_proj")
        put(layer.ffn.layer_norm, f"{at}.ln_2", ("gamma", "beta"))
        put(layer.ffn.linear_0, f"{at}.mlp.c_fc")
        put(layer.ffn.linear_1, f"{at}.mlp.c_proj")
    end = SPECIAL_TOKENS[0]
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = end
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON
    spec.register_vocabulary(_tokens(tokenizer, c.vocab_size))
    spec.validate()
    spec.optimize(quantization=None)
    folder.mkdir(parents=True)
    spec.save(str(folder))
    tokenizer.save(folder / "tokenizer", c.context)
    for file in (folder / "tokenizer").iterdir():
        file.rename(folder / file.name)
    (folder / "tokenizer").rmdir()
    generator = ctranslate2.Generator(str(folder), compute_type="float32")

    def logits(ids: list[int]) -> np.ndarray:
        scores: np.ndarray = np.asarray(generator.forward_batch([ids]))[0]
        return scores

    return Engine(f"CTranslate2 {ctranslate2.__version__}", logits)


def _tokens(tokenizer: Tokenizer, rows: int) -> list[str]:
    """The vocabulary's tokens by id in the file's own spelling, and a name for every padded row."""
    texts = {id: token for token, id in tokenizer._backend.get_vocab(with_added_tokens=True).items()}
    return [texts.get(i, f"<unused_{i}>") for i in range(rows)]


# -- llama.cpp ---------------------------------------------------------------------------------------------------------


def _gguf(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Engine:
    _need("gguf")
    from kringle.model import gguf_file

    folder.mkdir(parents=True)
    file = folder / "model.gguf"
    gguf_file.write(model, tokenizer, _tokens(tokenizer, model.config.vocab_size), file)
    reference = Engine("reference over the file as read back (llama_cpp is not installed)", gguf_file.run(file))
    if importlib.util.find_spec("llama_cpp") is None:
        return reference
    compare(model, reference, real_prompts(tokenizer, model.config.context))  # the file itself, to the usual tolerance
    name, logits = gguf_file.run_llama_cpp(file, PROMPT_TOKENS + 8)
    return Engine(name, logits, LLAMA_CPP_TOLERANCE)
