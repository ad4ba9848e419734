from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest
import safetensors.torch
import torch
import training_fixtures as shared

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.shape import FIM_KEY, FimTraining
from kringle.model.transformer import Transformer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def trained(attention: Literal["mqa", "mha"]) -> Transformer:
    """Weights that differ from their initial values everywhere, biases and LayerNorms too."""
    model = Transformer(shared.model_config(attention))
    model.initialise(3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_transformers_loads_the_directory_and_computes_our_logits(
    tmp_path: Path, attention: Literal["mqa", "mha"]
) -> None:
    from transformers import AutoModelForCausalLM

    model = trained(attention)
    exchange.save(model, shared.tokenizer(), tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == "GPTBigCodeForCausalLM"
    assert not any(info.values()), info
    assert not theirs.training
    tokens = torch.randint(0, shared.tokenizer().vocab_size, (3, shared.CONTEXT))
    with torch.no_grad():
        ours, expected = model(tokens), theirs(tokens).logits
    assert (ours - expected).abs().max().item() <= 1e-4
    assert expected.std() > 0.1
    end = shared.tokenizer().specials.end_of_text
    for config in (theirs.config, theirs.generation_config):
        assert (config.bos_token_id, config.eos_token_id) == (end, end)
    assert (theirs.config.resid_pdrop, theirs.config.embd_pdrop, theirs.config.attn_pdrop) == (0.0, 0.0, 0.0)
    assert theirs.config.tie_word_embeddings
    prompt = torch.tensor([[end, *shared.tokenizer().encode("def ")]])
    continued = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False)
    steps = prompt
    for _ in range(continued.shape[1] - prompt.shape[1]):
        with torch.no_grad():
            steps = torch.cat((steps, model(steps)[:, -1:].argmax(-1)), dim=1)
    assert continued.tolist() == steps.tolist()


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_loading_gives_back_model_and_tokenizer(tmp_path: Path, attention: Literal["mqa", "mha"]) -> None:
    model = trained(attention)
    exchange.save(model, shared.tokenizer(), tmp_path)
    loaded, tokenizer = exchange.load(tmp_path)
    assert loaded.config == model.config
    for (name, a), (other, b) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert b.requires_grad
    assert tokenizer.checksum == shared.tokenizer().checksum


def test_how_it_was_trained_to_fill_in_stays_with_the_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    known, unknown = tmp_path / "known", tmp_path / "unknown"
    exchange.save(trained("mqa"), shared.tokenizer(), known, FimTraining(0.5, 0.25))
    exchange.save(trained("mqa"), shared.tokenizer(), unknown)
    assert exchange.fim_training(known) == FimTraining(0.5, 0.25)
    assert exchange.fim_training(unknown) is None
    loaded = AutoModelForCausalLM.from_pretrained(known)  # a key of ours does not keep transformers from it
    loaded.save_pretrained(tmp_path / "again")
    assert exchange.fim_training(tmp_path / "again") == FimTraining(0.5, 0.25)
    config = json.loads((known / "config.json").read_text())
    (known / "config.json").write_text(json.dumps(config | {FIM_KEY: {"rate": "half"}}))
    with pytest.raises(UserError, match="fim_training is"):
        exchange.fim_training(known)


def test_transformers_own_directories_load_too(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = trained("mqa")
    exchange.save(model, shared.tokenizer(), tmp_path / "ours")
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    shared.tokenizer().save(tmp_path / "theirs", shared.CONTEXT)
    loaded, _ = exchange.load(tmp_path / "theirs")
    tokens = torch.arange(12)[None]
    assert torch.equal(loaded(tokens), model(tokens))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"n_inner": 8}, "n_inner is 8"),
        ({"n_head": None}, r"config\.json"),
        ({"n_layer": 3}, "weights do not fit"),
        ({"n_positions": 64}, "weights do not fit"),
        ({"vocab_size": 128}, "the tokenizer has 325 ids, the model 128 rows"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    exchange.save(trained("mqa"), shared.tokenizer(), tmp_path)
    file = tmp_path / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(UserError, match=message) as caught:
        exchange.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_torn_files_are_one_line(tmp_path: Path) -> None:
    exchange.save(trained("mqa"), shared.tokenizer(), tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model\.safetensors: weights do not fit"):
        exchange.load(tmp_path)
    del tensors["transformer.h.0.ln_1.bias"]
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(UserError, match=r"transformer\.h\.0\.ln_1\.bias"):
        exchange.load(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        exchange.load(tmp_path)
    with pytest.raises(UserError, match="no model here"):
        exchange.load(tmp_path / "nowhere")


def test_everyone_who_may_read_the_configuration_may_read_the_weights(tmp_path: Path) -> None:
    exchange.save(trained("mqa"), shared.tokenizer(), tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
