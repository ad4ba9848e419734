"""Checkpoints of others as a start: layouts, file formats, tokenizers with their special tokens; recipes' mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
import training_fixtures as shared
from training_fixtures import Fim, Settings, batches, model_config

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.shape import FimTraining, ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer
from kringle.recipe import load_recipe, parse_recipe, shipped
from kringle.study.plan import Options, resolve
from kringle.study.start import checkpoint_fingerprint
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer
from kringle.training.run import Start
from kringle.training.trainer import train


def checkpoint(folder: Path, attention: Any = "mqa") -> Transformer:
    model = Transformer(model_config(attention))
    model.initialise(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    exchange.save(model, shared.tokenizer(), folder)
    return model


def as_santacoder(folder: Path, config: ModelConfig) -> None:
    """The directory's weights and configuration in the layout of the original's code: linear maps as (in, out), queries
    apart from keys and values; GPT-2's order of query, key, value for multi-head attention."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    e, d, h = config.width, config.head_size, config.heads
    made: dict[str, torch.Tensor] = {}
    for name, w in weights.items():
        if ".c_attn." in name and config.attention == "mqa":
            q, kv = w[:e], w[e:]
            made[name.replace("c_attn", "q_attn")] = q.T.contiguous() if w.dim() == 2 else q.clone()
            made[name.replace("c_attn", "kv_attn")] = kv.T.contiguous() if w.dim() == 2 else kv.clone()
        elif ".c_attn." in name:
            rows = [head * 3 * d + part * d + i for part in range(3) for head in range(h) for i in range(d)]
            made[name] = w[rows].T.contiguous() if w.dim() == 2 else w[rows].clone()
        elif w.dim() == 2 and ".h." in name:
            made[name] = w.T.contiguous()
        else:
            made[name] = w
    for i in range(config.layers):
        made[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, config.context, config.context).tril()
        made[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    made["lm_head.weight"] = made["transformer.wte.weight"].clone()
    (folder / "model.safetensors").unlink()
    torch.save(made, folder / "pytorch_model.bin")
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "gpt2", "activation_function": "gelu_fast", "n_inner": None}
    raw["attention_head_type"] = "multiquery" if config.attention == "mqa" else "multihead"
    del raw["multi_query"]
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_santacoders_own_layout_is_the_same_model(tmp_path: Path, attention: Any) -> None:
    model = checkpoint(tmp_path, attention)
    as_santacoder(tmp_path, model.config)
    again, _ = exchange.load(tmp_path)
    assert again.config == model.config
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def test_weights_in_several_files_in_half_precision(tmp_path: Path) -> None:
    model = checkpoint(tmp_path)
    weights = {name: w.half() for name, w in safetensors.torch.load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    names, place = sorted(weights), {}
    for number in (0, 1):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        safetensors.torch.save_file({n: weights[n] for n in names[number::2]}, tmp_path / file)
        place |= dict.fromkeys(names[number::2], file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    again, _ = exchange.load(tmp_path)
    for name, parameter in again.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, model.get_parameter(name).half().float())


def test_a_model_with_an_output_layer_of_its_own_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not tied"):
        exchange.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"n_inner": 20}, "n_inner is 20"),
        ({"n_head": 3}, "not divisible by 3 heads"),
    ],
)
def test_what_our_transformer_does_not_compute_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    checkpoint(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(UserError, match=message):
        exchange.describe(tmp_path)


# -- tokenizers --------------------------------------------------------------------------------------------------------


def test_santacoders_spelling_of_the_specials(tmp_path: Path) -> None:
    made = train_tokenizer(iter(shared.texts()), 300, tmp_path, "hyphen")
    assert made.special_tokens == ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
    assert vars(made.specials) == vars(Tokenizer.load(tmp_path).specials)
    assert made.specials.fim_prefix == 301
    for text in ("<fim-prefix> x <fim_prefix>", "<|endoftext|>"):
        assert made.decode(made.encode(text)) == text
        assert max(made.encode(text)) < made.text_size == 300
    made.save(tmp_path / "saved", 32)
    assert "<fim-suffix>" in (tmp_path / "saved" / "tokenizer_config.json").read_text()


def starcoder_like(folder: Path) -> Tokenizer:
    """Special tokens at the front of the vocabulary, one more among them, as in StarCoder's."""
    raw = json.loads(shared.tokenizer()._backend.to_str())
    front = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>"]
    vocabulary = {token: i for i, token in enumerate(front)}
    for token, id in raw["model"]["vocab"].items():
        vocabulary[token] = id + len(front)
    raw["model"]["vocab"] = vocabulary
    pattern = raw["added_tokens"][0]
    raw["added_tokens"] = [{**pattern, "id": i, "content": token} for i, token in enumerate(front)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    return Tokenizer.load(folder)


def test_special_tokens_in_front_of_the_text(tmp_path: Path) -> None:
    made = starcoder_like(tmp_path)
    assert vars(made.specials) == {
        "end_of_text": 0, "fim_prefix": 1, "fim_middle": 2, "fim_suffix": 3, "fim_pad": 4,
    }  # fmt: skip
    assert made.vocab_size == made.text_size == 326
    text = shared.texts()[0] + "<fim_prefix><filename>"
    ids = made.encode(text)
    assert min(ids) > 5
    assert made.decode(ids) == text
    assert made.decode_bytes([0, 1, 5, *ids]) == text.encode()


@pytest.mark.parametrize("damage", ["no fim", "normalizer", "prefix space", "words"])
def test_a_tokenizer_that_cannot_serve_is_refused(tmp_path: Path, damage: str) -> None:
    raw = json.loads(shared.tokenizer()._backend.to_str())
    if damage == "no fim":
        raw["added_tokens"] = raw["added_tokens"][:1]
    elif damage == "normalizer":
        raw["normalizer"] = {"type": "NFC"}
    elif damage == "prefix space":
        raw["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
    else:
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"日本": 0, "x": 1}, "x"))
        made.add_special_tokens(list(shared.tokenizer().special_tokens))
        raw = json.loads(made.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"lacks the special tokens|byte for byte|byte-level"):
        Tokenizer.load(tmp_path)


# -- training on -------------------------------------------------------------------------------------------------------


def test_training_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    before = checkpoint(tmp_path / "model")
    settings = Settings(steps=1, learning_rate=1e-9, warmup=0.0)
    start = Start(tmp_path / "model", "abc")
    given = {"seed": 0, "checkpoints": tmp_path / "c", "checkpoint_every": 9}
    train(before.config, settings, batches(settings=settings), tmp_path / "out", start=start, **given)  # type: ignore[arg-type]
    after, _ = exchange.load(tmp_path / "out" / "model")
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(parameter, after.get_parameter(name), rtol=0, atol=1e-7)
    assert exchange.fim_training(tmp_path / "out" / "model") == FimTraining(settings.fim.rate, settings.fim.spm)
    again = Start(tmp_path / "model", "xyz")
    with pytest.raises(UserError, match="init was abc, is now xyz"):
        train(before.config, settings, batches(settings=settings), tmp_path / "b", start=again, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("known", [None, FimTraining(0.5, 0.5)])
def test_going_on_from_left_to_right_alone_keeps_what_is_known_of_filling_in(
    tmp_path: Path, known: FimTraining | None
) -> None:
    before = checkpoint(tmp_path / "model")
    settings = Settings(steps=1, learning_rate=1e-9, warmup=0.0, fim=Fim(rate=0.0))
    start = Start(tmp_path / "model", "abc", known)
    given = {"seed": 0, "checkpoints": tmp_path / "c", "checkpoint_every": 9, "start": start}
    train(before.config, settings, batches(settings=settings), tmp_path / "out", **given)  # type: ignore[arg-type]
    assert exchange.fim_training(tmp_path / "out" / "model") == known


def test_adapt_takes_shape_and_context_from_the_checkpoint(tmp_path: Path) -> None:
    config = model_config(context=512)
    model = Transformer(config)
    model.initialise(0)
    exchange.save(model, shared.tokenizer(), tmp_path)
    recipe = resolve(Options(recipe="adapt", init=tmp_path))
    for arm in recipe.arms:
        shape = arm.model
        assert (shape.layers, shape.width, shape.heads, shape.context) == (2, 16, 4, 512)
    assert [arm.training.steps for arm in recipe.arms] == [244, 0]
    first = checkpoint_fingerprint(tmp_path)
    raw = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(raw + " ")
    assert checkpoint_fingerprint(tmp_path) != first
    with pytest.raises(UserError, match="no model here"):
        resolve(Options(recipe="adapt", init=tmp_path / "nothing"))
    with pytest.raises(UserError, match="does not start from a checkpoint"):
        resolve(Options(recipe="laptop", init=tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        resolve(Options(recipe="adapt", init=tmp_path))


def adaptable(folder: Path) -> Path:
    model = Transformer(model_config(context=512))
    model.initialise(0)
    exchange.save(model, shared.tokenizer(), folder)
    return folder


def cut(file: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def number(name: str, value: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, name: value}))

    return change


def indexed(text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def reshaped(change: Callable[[dict[str, torch.Tensor]], object], *, pickled: bool = False) -> Callable[[Path], object]:
    def save(folder: Path) -> None:
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        change(weights)
        if pickled:
            (folder / "model.safetensors").unlink()
            torch.save(weights, folder / "pytorch_model.bin")
        else:
            safetensors.torch.save_file(weights, folder / "model.safetensors")

    return save


def widened(weights: dict[str, torch.Tensor]) -> None:
    weights["transformer.ln_f.bias"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (reshaped(widened), r"model\.safetensors: weights do not fit the configuration \((?s:.)*ln_f\.bias"),
        (reshaped(widened, pickled=True), r"weights do not fit the configuration \((?s:.)*ln_f\.bias"),
        (reshaped(lambda w: w.pop("transformer.h.0.ln_1.weight")), r"weights do not fit(?s:.)*h\.0\.ln_1\.weight"),
        (reshaped(lambda w: w.pop("transformer.wte.weight")), r"weights do not fit(?s:.)*wte\.weight"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors or pytorch_model\.bin here"),
        (cut("model.safetensors", 5000), r"model\.safetensors: damaged or cut short"),
        (cut("model.safetensors", 0), r"model\.safetensors: damaged or cut short"),
        (cut("tokenizer.json", 1000), r"tokenizer\.json: not a tokenizer file"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"), r"tokenizer\.json: not a tokenizer file"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json is no JSON"),
        (number("n_head", 2.0), r"n_head is 2\.0, not a whole number"),
        (number("n_layer", True), r"n_layer is True, not a whole number"),
        (indexed("{"), r"names no files of weights"),
        (indexed("{}"), r"names no files of weights"),
        (indexed('{"weight_map": {"a": "one.safetensors"}}'), r"names one\.safetensors, which is not beside it"),
    ],
)
def test_a_damaged_checkpoint_is_refused_before_any_work(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(adaptable(tmp_path))
    with pytest.raises(UserError, match=message):
        resolve(Options(recipe="adapt", init=tmp_path))


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    (adaptable(tmp_path) / "model.safetensors").unlink()
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: holds something else than named tensors"):
        exchange.load(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    file = adaptable(tmp_path) / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    weights["transformer.ln_f.bias"][3] = float("nan")
    safetensors.torch.save_file(weights, file)
    with pytest.raises(UserError, match=r"transformer\.ln_f\.bias holds a number that is not finite"):
        exchange.load(tmp_path)


def test_a_folder_of_checkpoints_tells_which_it_holds(tmp_path: Path) -> None:
    adaptable(tmp_path / "models" / "fim-s0")
    for folder in (tmp_path, tmp_path / "models"):
        with pytest.raises(UserError, match=r"did you mean .*/models/fim-s0\?"):
            resolve(Options(recipe="adapt", init=folder))


BASE = """
name: x
corpus: {sources: [{installed: {}}]}
tokenizer: {vocab_size: 512}
model: {layers: 2, width: 32, heads: 2, context: 128}
training: {tokens: 60k, batch_tokens: 1024}
ablations: {base: {}, other: {}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("heads: 2,", "heads: 3,", "width 32 is not divisible by 3 heads"),
        ("heads: 2,", "", "the key 'heads' is missing"),
        ("heads: 2,", "heads: 32, positions: rotary,", "even head size, not 1"),
        ("heads: 2,", "heads: 2, dropout: 1,", r"model\.dropout: must be below 1"),
        ("1024", "1000", "batch_tokens 1000 is not a multiple of the context 128; use 896"),
        ("1024", "1024, micro_batch_tokens: 64", "must hold a row of 128 tokens"),
        ("60k", "0", r"training\.tokens: must be at least 1"),
        ("1024", "1024, decay_tokens: 20k", "the schedule ends after 20 steps, the run after 59"),
        ("1024", "1024, schedule: wsd, warmup: 0.3, decay: 0.9", "warmup and decay are 0.3 and 0.9 of the schedule"),
        ("1024", "1024, precision: fp8", r"training\.precision: expected auto or fp32"),
        ("1024", "1024, mixture: {cobol: 1}", "unknown language 'cobol'"),
        ("1024", "1024, mixture: {python: 0}", "all weights are 0"),
        ("1024", "1024, mixture: {python: 1}, fidelity: faithful", "in proportion to their tokens"),
        ("1024", "1024, track: [wandv]", "did you mean wandb"),
        ("1024", "1024, skip: true", "there has to be a checkpoint"),
        ("1024", "1024, recompute: 1", "expected true or false"),
        ("{vocab_size: 512}", "{}", "the key 'vocab_size' is missing"),
        (
            "{vocab_size: 512}",
            "{vocab_size: 512, folder: m}",
            r"tokenizer\.vocab_size: the tokenizer of the folder has",
        ),
        ("{vocab_size: 512}", "{specials: hyphen, folder: m}", r"tokenizer\.specials: the tokenizer of the"),
        ("{layers: 2, width: 32, heads: 2, context: 128}", "{init: m}", "brings its own tokenizer"),
        ("other: {}", "other: {model: {init: m}}", r"model\.(layers|init)"),
    ],
)
def test_bad_settings_are_refused_by_the_recipe(old: str, new: str, message: str) -> None:
    assert old in BASE
    with pytest.raises(UserError, match=message):
        parse_recipe(BASE.replace(old, new))


def test_shipped_recipes_are_whole_and_have_the_sizes_they_say() -> None:
    assert {"laptop", "overnight", "adapt", "single-gpu", "santacoder-1b"} <= set(shipped())
    sizes = {}
    for name in shipped():
        recipe = load_recipe(name)
        for arm in recipe.arms:
            m = arm.model
            if m.init is None:
                rows = padded_vocabulary(recipe.tokenizer.vocab_size + 5)
                config = ModelConfig(m.layers, m.width, m.heads, m.attention, m.context, rows, m.positions, m.dropout)
                sizes[name, arm.name] = config.parameters
    assert sizes["santacoder-1b", "fim"] == 1_124_886_528
    assert sizes["santacoder-1b", "mha"] == 1_313_722_368
    assert 9.5e6 < sizes["overnight", "fim"] < 10.5e6
    paper = load_recipe("santacoder-1b")
    final = next(arm for arm in paper.arms if arm.name == "final")
    assert (paper.base.training.steps, paper.base.training.horizon, final.training.steps) == (300_000, 600_000, 600_000)
    assert paper.base.training.batch_tokens == 192 * 2048 == 393_216
    assert paper.base.model.dropout == 0.1
    assert paper.tokenizer.specials == "hyphen"


def test_the_exact_counts_are_those_of_the_tensors() -> None:
    for attention, count in (("mqa", 1_124_886_528), ("mha", 1_313_722_368)):
        config = ModelConfig(24, 2048, 16, attention, 2048, 49_280)  # type: ignore[arg-type]
        with torch.device("meta"):
            model = Transformer(config)
        assert sum(p.numel() for p in model.parameters()) == config.parameters == count


def test_a_mixture_gives_each_language_its_share_and_shows_all_pieces_before_any_twice(tmp_path: Path) -> None:
    from kringle.tokens.store import TokenStore

    texts = list(shared.texts())[:8]
    tokens = shared.tokenizer().encode_batch(texts)
    documents = [
        (shared.document_id(text), "python" if i % 2 else "java", len(text.encode()), ids)
        for i, (text, ids) in enumerate(zip(texts, tokens, strict=True))
    ]
    store = TokenStore.write(tmp_path / "s", documents, vocab_size=320, tokenizer=shared.tokenizer().checksum)
    made = batches(store=store, mixture={"python": 3, "java": 1})
    languages = np.array(store.languages)
    counts = np.zeros(made.pieces, int)
    shares = np.zeros(2)
    for epoch in range(12):
        plan = made._plan(epoch)
        counts += np.bincount(plan.pieces, minlength=made.pieces)
        lengths = made._length[plan.pieces]
        is_python = languages[made._document[plan.pieces]] == "python"
        shares += (lengths[is_python].sum(), lengths[~is_python].sum())
    for language in ("python", "java"):
        seen = counts[languages[made._document] == language]
        assert seen.max() - seen.min() <= 1
    assert shares[0] / shares.sum() == pytest.approx(0.75, abs=0.03)
    for bad, message in (({"python": 1.0}, "no weight for java"), ({"python": 0.0, "java": 0.0}, "above 0")):
        with pytest.raises(UserError, match=message):
            batches(store=store, mixture=bad)
