"""Training on a GPU: a CPU's gradients, the same weights after a stop and a resume, every option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fixtures import Fim, Settings, batches, model_config

from kringle.model import exchange
from kringle.model.transformer import Transformer
from kringle.training import loss as loss_module
from kringle.training.loss import Objective, rows_of
from kringle.training.parallel import join
from kringle.training.trainer import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CONTEXT = 256
SETTINGS = Settings(steps=8, batch_tokens=8 * CONTEXT, fim=Fim(0.5), precision="bf16")


def model_of(attention: Any = "mqa", **changes: Any) -> Transformer:
    model = Transformer(model_config(attention, width=64, context=CONTEXT, **changes))
    model.initialise(0)
    return model


def gradients(model: Transformer, precision: Any, device: torch.device, flexible: bool) -> dict[str, torch.Tensor]:
    batch = batches(settings=SETTINGS, context=CONTEXT).batch(1)
    model.to(device).zero_grad()
    inputs = rows_of(batch, slice(0, 8), device, packed=device == CPU, flexible=flexible)
    loss = Objective(model, precision)(inputs) / batch.valid
    loss.backward()
    found = {name: p.grad.cpu().clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach().cpu(), **found}


def compare(near: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], limit: float) -> None:
    for name, gradient in exact.items():
        if ".c_attn.bias" in name:
            continue  # a key's bias has no gradient but rounding
        error = float((near[name] - gradient).norm() / gradient.norm())
        assert error < limit, (name, error)


@pytest.mark.parametrize("attention", ["mqa", "mha"])
@pytest.mark.parametrize("flexible", [False, True])
def test_gradients_are_those_of_the_cpu(attention: Any, flexible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "FLEX_FROM", CONTEXT)
    exact = gradients(model_of(attention), "fp32", CPU, flexible)
    model = model_of(attention)
    if flexible:
        for block in model.transformer.h:
            block.compile(dynamic=False)
    compare(gradients(model, "fp32", CUDA, flexible), exact, 5e-3 if flexible else 1e-4)  # Triton multiplies in TF32
    compare(gradients(model, "bf16", CUDA, flexible), exact, 0.06)


def weights_after(folder: Path, *, stop: int | None = None, **given: Any) -> dict[str, torch.Tensor]:
    """The weights of a run, made in one go or stopped on the way and gone on with."""
    seen = 0

    def should_stop() -> bool:
        nonlocal seen
        seen += 1
        return seen == stop

    config = given.pop("config", model_config(width=64, context=CONTEXT))
    settings = given.pop("settings", SETTINGS)
    for _ in range(1 if stop is None else 2):
        result = train(
            config,
            settings,
            batches(settings=settings, context=CONTEXT),
            folder / "out",
            seed=0,
            checkpoints=folder / "checkpoints",
            checkpoint_every=100,
            should_stop=should_stop,
            world=join(),
        )
    assert result.finished
    lines = (folder / "out/log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]
    return exchange.load(folder / "out/model")[0].state_dict()


@pytest.mark.parametrize("flex_from", [CONTEXT, 10_000])
@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_a_run_that_was_stopped_has_the_weights_of_one_that_was_not(
    attention: Any, flex_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "FLEX_FROM", flex_from)
    config = model_config(attention, width=64, context=CONTEXT)
    whole = weights_after(tmp_path / "whole", config=config)
    parts = weights_after(tmp_path / "parts", stop=3, config=config)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": Settings(steps=8, batch_tokens=8 * CONTEXT, precision="fp16")},
        {"settings": Settings(steps=8, batch_tokens=8 * CONTEXT, precision="bf16", recompute=True)},
        {"settings": Settings(steps=8, batch_tokens=8 * CONTEXT, precision="bf16", optimizer="muon")},
        {"settings": Settings(steps=8, batch_tokens=8 * CONTEXT, precision="bf16", micro_batch_tokens=3 * CONTEXT)},
        {"config": model_config(width=64, context=CONTEXT, dropout=0.1)},
        {"config": model_config(width=64, context=CONTEXT, positions="rotary")},
    ],
    ids=["fp16", "recompute", "muon", "micro-batches", "dropout", "rotary"],
)
def test_options_train(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "FLEX_FROM", CONTEXT)
    weights_after(tmp_path, **changes)
