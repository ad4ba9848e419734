"""Export and import: every engine that is here is run, and what does not match is not written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import safetensors.torch
import torch
import training_fixtures as shared

from kringle.errors import UserError
from kringle.model import engines, exchange, santacoder
from kringle.model.engines import export_model, import_model
from kringle.model.transformer import Transformer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def trained(attention: Literal["mqa", "mha"]) -> Transformer:
    model = Transformer(shared.model_config(attention, layers=2, width=32))
    model.initialise(3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(params=["mqa", "mha"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Transformer]:
    model = trained(request.param)
    exchange.save(model, shared.tokenizer(), tmp_path / "model")
    (tmp_path / "model" / "NOTICE").write_text("trained on GPL code\n")
    return tmp_path / "model", model


def test_transformers_and_ctranslate2_compute_the_same(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    for format, engine in (("gpt_bigcode", "transformers"), ("ctranslate2", "CTranslate2")):
        done = export_model(ours[0], format, tmp_path / format)
        assert done.engine.startswith(engine)
        assert 0 <= done.difference < 1e-4
        assert done.tokens > 60
        assert (tmp_path / format / "NOTICE").read_text() == "trained on GPL code\n"
    assert {p.name for p in tmp_path.iterdir()} == {"model", "gpt_bigcode", "ctranslate2"}  # no leftovers


def test_greedy_text_in_ctranslate2(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    """From the exported folder alone, with its own vocabulary file."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    export_model(ours[0], "ctranslate2", tmp_path / "out")
    generator = ctranslate2.Generator(str(tmp_path / "out"), compute_type="float32")
    prompt = [shared.tokenizer().specials.end_of_text, *shared.tokenizer().encode("return ")]
    vocabulary = json.loads((tmp_path / "out" / "vocabulary.json").read_text())
    tokens = prompt
    for _ in range(6):
        with torch.no_grad():
            tokens = [*tokens, int(ours[1](torch.tensor([tokens]))[0, -1].argmax())]
    result = generator.generate_batch(
        [[vocabulary[i] for i in prompt]], max_length=6, min_length=6, include_prompt_in_result=False, end_token=[]
    )
    assert result[0].sequences_ids[0][: len(tokens) - len(prompt)] == tokens[len(prompt) :]


def test_santacoders_layout_has_its_names_and_comes_back(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    folder, model = ours
    done = export_model(folder, "santacoder", tmp_path / "santa")
    assert done.difference < 1e-4
    tensors = safetensors.torch.load_file(tmp_path / "santa" / "model.safetensors")
    e, d, context = model.config.width, model.config.head_size, model.config.context
    if model.config.attention == "mqa":
        assert tensors["transformer.h.0.attn.q_attn.weight"].shape == (e, e)
        assert tensors["transformer.h.1.attn.kv_attn.weight"].shape == (e, 2 * d)
        assert "transformer.h.0.attn.c_attn.weight" not in tensors
    else:
        assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (e, 3 * e)
    assert tensors["transformer.h.0.mlp.c_fc.weight"].shape == (e, 4 * e)
    assert tensors["transformer.h.0.attn.bias"].shape == (1, 1, context, context)
    assert float(tensors["transformer.h.0.attn.masked_bias"]) == -10_000
    names = [t["content"] for t in json.loads((tmp_path / "santa" / "tokenizer.json").read_text())["added_tokens"]]
    assert names == ["<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"]
    back = import_model(tmp_path / "santa", tmp_path / "back")
    assert back.difference < 1e-4
    loaded, tokenizer = exchange.load(tmp_path / "back")
    for (name, a), b in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert tokenizer.encode("def x") == shared.tokenizer().encode("def x")


def test_multi_head_santacoder_is_gpt2(tmp_path: Path) -> None:
    """An engine that is not ours for this layout: with multi-head attention it is GPT-2's, to the name."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = trained("mha")
    santacoder.write(model, shared.tokenizer(), tmp_path / "santa")
    raw = json.loads((tmp_path / "santa" / "config.json").read_text())
    keys = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon")
    gpt2 = GPT2LMHeadModel(
        GPT2Config(**{key: raw[key] for key in keys}, activation_function="gelu_pytorch_tanh")
    ).eval()
    missing = gpt2.load_state_dict(santacoder.read_tensors(tmp_path / "santa"), strict=False)
    assert missing.missing_keys == []
    tokens = torch.arange(20)
    with torch.no_grad():
        theirs = gpt2(tokens[None]).logits[0]
        reference = santacoder.reference_logits(santacoder.read_tensors(tmp_path / "santa"), raw, tokens)
        assert (theirs - model(tokens[None])[0]).abs().max() < 1e-4
        assert (theirs - reference).abs().max() < 1e-4


def test_the_first_release_had_no_infilling_tokens_and_came_in_half_precision(tmp_path: Path) -> None:
    """pytorch_model.bin in float16, masks as uint8, a tokenizer file with end-of-text alone."""
    model = trained("mqa")
    santacoder.write(model, shared.tokenizer(), tmp_path / "santa", dtype=torch.float16)
    folder = tmp_path / "santa"
    tensors = santacoder.read_tensors(folder)
    tensors = {n: t.to(torch.uint8) if t.dtype == torch.bool else t for n, t in tensors.items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] == "<|endoftext|>"]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    done = import_model(folder, tmp_path / "out")
    assert done.difference < 1e-4
    _, tokenizer = exchange.load(tmp_path / "out")
    assert tokenizer.specials == shared.tokenizer().specials


def test_the_released_shape_is_counted_exactly() -> None:
    """Names and shapes of the whole 1.1-billion-parameter checkpoint, without its memory."""
    from kringle.model.shape import ModelConfig

    with torch.device("meta"):
        model = Transformer(ModelConfig(24, 2048, 16, "mqa", 2048, 49_280))
        tensors = santacoder.to_santacoder(model)
    assert sum(p.numel() for p in model.parameters()) == 1_124_886_528
    shapes = {name.removeprefix("transformer.h.7."): tuple(t.shape) for name, t in tensors.items() if ".h.7." in name}
    assert shapes == {
        "ln_1.weight": (2048,),
        "ln_1.bias": (2048,),
        "attn.bias": (1, 1, 2048, 2048),
        "attn.masked_bias": (),
        "attn.q_attn.weight": (2048, 2048),
        "attn.q_attn.bias": (2048,),
        "attn.kv_attn.weight": (2048, 256),
        "attn.kv_attn.bias": (256,),
        "attn.c_proj.weight": (2048, 2048),
        "attn.c_proj.bias": (2048,),
        "ln_2.weight": (2048,),
        "ln_2.bias": (2048,),
        "mlp.c_fc.weight": (2048, 8192),
        "mlp.c_fc.bias": (8192,),
        "mlp.c_proj.weight": (8192, 2048),
        "mlp.c_proj.bias": (2048,),
    }


def test_gguf_is_read_back_and_refuses_multi_head(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    if ours[1].config.attention == "mha":
        with pytest.raises(UserError, match="one head of keys and values"):
            export_model(ours[0], "gguf", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    done = export_model(ours[0], "gguf", tmp_path / "out")
    assert done.difference < 1e-4
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items()}
    specials = shared.tokenizer().specials
    assert keys["general.architecture"] == "starcoder"
    assert keys["starcoder.attention.head_count_kv"] == 1
    assert keys["tokenizer.ggml.fim_suf_token_id"] == specials.fim_suffix
    assert keys["tokenizer.ggml.tokens"][specials.fim_middle] == "<fim_middle>"
    assert len(keys["tokenizer.ggml.tokens"]) == ours[1].config.vocab_size


def test_what_does_not_match_is_not_written(
    ours: tuple[Path, Transformer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_major = santacoder.part_major
    monkeypatch.setattr(santacoder, "part_major", lambda x, config: part_major(x, config).flip(0))
    to = santacoder.to_santacoder

    def wrong(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        tensors = to(model, dtype)
        tensors["transformer.h.0.mlp.c_fc.bias"] = tensors["transformer.h.0.mlp.c_fc.bias"] + 0.5
        return tensors

    monkeypatch.setattr(santacoder, "to_santacoder", wrong)
    with pytest.raises(UserError, match="nothing was written"):
        export_model(ours[0], "santacoder", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


def test_mistakes_are_one_line(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    def refused(pattern: str, call: Any) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            call()
        assert "\n" not in str(caught.value)

    refused("unknown format 'onnx'", lambda: export_model(ours[0], "onnx", tmp_path / "o"))
    refused("there already", lambda: export_model(ours[0], "gguf", tmp_path))
    refused("no model here", lambda: import_model(tmp_path, tmp_path / "o"))
    santacoder.write(ours[1], shared.tokenizer(), tmp_path / "s")
    (tmp_path / "s" / "tokenizer.json").unlink()
    refused(r"no tokenizer\.json here", lambda: import_model(tmp_path / "s", tmp_path / "o"))
    weights = tmp_path / "s" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    refused("cannot be read", lambda: import_model(tmp_path / "s", tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_the_commands(ours: tuple[Path, Transformer], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kringle"]
    santa, back = str(tmp_path / "santa"), str(tmp_path / "back")
    done = subprocess.run(
        [*command, "export", str(ours[0]), santa, "--to", "santacoder", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "largest logit difference" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["difference"] < 1e-4
    subprocess.run([*command, "import", santa, back], capture_output=True, text=True, check=True)
    again = subprocess.run([*command, "import", santa, back], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.startswith("kringle: ")


def test_prompts_are_real_code() -> None:
    prompts = engines.real_prompts(shared.tokenizer(), 64)
    assert len(prompts) == engines.PROMPTS
    assert all(len(prompt) <= 64 for prompt in prompts)
    assert any(shared.tokenizer().specials.fim_middle in prompt for prompt in prompts)


def test_an_engine_is_held_to_its_own_tolerance(ours: tuple[Path, Transformer]) -> None:
    model, prompts = ours[1].eval(), [[5, 6, 7]]

    def off(by: float) -> engines.Logits:
        return lambda ids: model(torch.tensor([ids]))[0].detach().numpy() + by

    assert engines.compare(model, engines.Engine("rough", off(0.02), 0.03), prompts) == pytest.approx(0.02, rel=1e-3)
    with pytest.raises(UserError, match=r"the logits of rough differ by 0\.05, more than 0\.03: nothing was written"):
        engines.compare(model, engines.Engine("rough", off(0.05), 0.03), prompts)
    with pytest.raises(UserError, match=r"more than 0\.001"):
        engines.compare(model, engines.Engine("exact", off(0.02)), prompts)
