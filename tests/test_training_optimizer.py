from __future__ import annotations

import itertools
import math

import pytest
import torch
import training_fixtures as shared

from kringle.model.transformer import Transformer
from kringle.training.optimizer import make_optimizer, parameter_groups
from kringle.training.schedule import learning_rate, warmup_steps


def santacoder(step: int) -> float:
    """The rate of the published script: 2% of a decay horizon of 600,000 as warmup."""
    return learning_rate(step, peak=2e-4, schedule="cosine", warmup=warmup_steps(0.02, 600_000), steps=600_000)


def test_the_schedule_meets_the_self_check_of_the_recipe() -> None:
    assert warmup_steps(0.02, 600_000) == 12_000
    assert santacoder(300_000) == pytest.approx(1.03e-4, rel=5e-3)
    assert santacoder(12_000) == 2e-4
    assert santacoder(11_999) == pytest.approx(2e-4, rel=1e-12)
    assert santacoder(5_999) == pytest.approx(1e-4)
    assert 0 < santacoder(599_999) < 1e-14


def test_the_rate_rises_then_falls_and_never_vanishes() -> None:
    rates = [learning_rate(s, peak=1.0, schedule="cosine", warmup=10, steps=100) for s in range(100)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert min(rates) > 0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10 + 30] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


def test_a_constant_schedule_warms_up_too() -> None:
    rates = [learning_rate(s, peak=3.0, schedule="constant", warmup=3, steps=9) for s in range(9)]
    assert rates == pytest.approx([1, 2, 3, 3, 3, 3, 3, 3, 3])
    assert learning_rate(0, peak=3.0, schedule="constant", warmup=0, steps=9) == 3.0


def test_matrices_and_embeddings_decay_and_nothing_else() -> None:
    model = Transformer(shared.model_config())
    names = {id(p): name for name, p in model.named_parameters()}
    decaying, other = parameter_groups(list(model.parameters()), 0.1)
    assert (decaying["weight_decay"], other["weight_decay"]) == (0.1, 0.0)
    assert sum(len(g["params"]) for g in (decaying, other)) == len(names)
    decaying_names = {names[id(p)] for p in decaying["params"]}
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= decaying_names
    for name in names.values():
        assert (name in decaying_names) == (name.endswith("weight") and ".ln_" not in name), name


def test_one_step_is_adamw_as_defined() -> None:
    """Against the update written out, with SantaCoder's betas, for one decaying and one other parameter."""
    model = Transformer(shared.model_config())
    model.initialise(0)
    settings = shared.Settings(learning_rate=0.01)
    optimizer = make_optimizer(model, settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients: dict[str, list[torch.Tensor]] = {name: [] for name in before}
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator)
            gradients[name].append(p.grad.clone())
        optimizer.step()
    after = dict(model.named_parameters())
    for name, decay in (("transformer.wte.weight", 0.1), ("transformer.h.0.mlp.c_fc.bias", 0.0)):
        x, m, v = before[name].double(), 0.0, 0.0
        for t, g in enumerate(gradients[name], start=1):
            m, v = 0.9 * m + 0.1 * g.double(), 0.95 * v + 0.05 * g.double() ** 2
            x = x - 0.01 * decay * x
            x = x - 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-8)
        torch.testing.assert_close(after[name].double(), x, rtol=1e-5, atol=1e-7)


def test_optimizer_state_goes_by_name_and_comes_back() -> None:
    models = [Transformer(shared.model_config()) for _ in range(2)]
    optimizers = []
    for model in models:
        model.initialise(0)
        optimizers.append(make_optimizer(model, shared.Settings()))
    for p in models[0].parameters():
        p.grad = torch.ones_like(p)
    optimizers[0].step()
    saved = optimizers[0].tensors(models[0])
    assert saved["transformer.ln_f.weight.step"].item() == 1
    optimizers[1].restore(models[1], saved)
    again = optimizers[1].tensors(models[1])
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    del saved["transformer.ln_f.weight.exp_avg"]
    with pytest.raises(KeyError, match=r"transformer\.ln_f\.weight\.exp_avg"):
        optimizers[1].restore(models[1], saved)
