"""What a run can be told beside the defaults: precision, optimizer, schedule, memory, and what to do when it fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_fixtures as shared
from hypothesis import given
from hypothesis import strategies as st
from training_fixtures import CONTEXT, Fim, Settings, batches, model_config

from kringle.errors import UserError
from kringle.model import exchange, packed
from kringle.model.transformer import Transformer, angles, document_mask, rotate
from kringle.training.guard import SETTLED, Guard
from kringle.training.loss import Objective, block_mask, multiplies_bf16, rows_of
from kringle.training.precision import LossScale
from kringle.training.run import Diverged, TrainingResult
from kringle.training.schedule import learning_rate
from kringle.training.speed import peak_flops, utilisation
from kringle.training.trainer import train
from kringle.training.windows import WindowBatches

CPU = torch.device("cpu")


def run(folder: Path, settings: Settings, **changes: Any) -> TrainingResult:
    given: dict[str, Any] = {"seed": 0, "checkpoint_every": 4, "checkpoints": folder / "checkpoints", **changes}
    config = given.pop("config", model_config())
    made = given.pop("batches", None) or batches(settings=settings)
    return train(config, settings, made, folder / "out", **given)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "out" / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return exchange.load(folder / "out" / "model")[0].state_dict()


# -- the model ---------------------------------------------------------------------------------------------------------


def gradients(model: Transformer, precision: Any, packed_: bool) -> tuple[float, dict[str, torch.Tensor]]:
    batch = batches().batch(1)
    model.zero_grad()
    loss = Objective(model, precision)(rows_of(batch, slice(0, 4), CPU, packed=packed_)) / batch.valid
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_rotary_positions_give_the_same_packed_and_masked(attention: Any) -> None:
    model = Transformer(model_config(attention, positions="rotary")).double()
    model.initialise(0)
    one, other = gradients(model, "fp64", True), gradients(model, "fp64", False)
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-8, atol=1e-12)
    assert sum(p.numel() for p in model.parameters()) == model.config.parameters


def test_rotation_makes_scores_depend_on_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64, generator=generator)
    scores = []
    for shift in (0, 5, 300):
        at = torch.tensor([3 + shift, 10 + shift])
        cosine, sine = angles(at, 8, torch.float64)
        a, b = rotate(torch.stack((q, k)), (cosine, sine))
        scores.append(float(a @ b))
        assert float(a @ a) == pytest.approx(float(q @ q))
    assert scores[1:] == pytest.approx([scores[0]] * 2, rel=1e-9)


def test_a_rotary_model_comes_back_and_transformers_refuses_it(tmp_path: Path) -> None:
    model = Transformer(model_config(positions="rotary"))
    model.initialise(0)
    exchange.save(model, shared.tokenizer(), tmp_path)
    again, _ = exchange.load(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="kringle_rotary"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_sampling_from_a_rotary_model_is_its_forward_pass() -> None:
    from kringle.generation.engine import generate
    from kringle.generation.requests import Request

    model = Transformer(model_config(positions="rotary"))
    model.initialise(3)
    model.eval()
    prompt = shared.tokenizer().encode("def x(a):")
    (completion,) = generate(model, shared.tokenizer(), [Request(prompt, max_new_tokens=6, temperature=0.0, key="a")])
    ids = list(prompt)
    with torch.no_grad():
        for token in completion.tokens:
            logits = model(torch.tensor([ids]))[0, -1, : shared.tokenizer().vocab_size]
            assert logits[token] >= logits.max() - 1e-5
            ids.append(token)


def test_recomputing_changes_memory_alone() -> None:
    model = Transformer(model_config()).double()
    model.initialise(0)
    for packed_ in (True, False):
        model.recompute = False
        kept = gradients(model, "fp64", packed_)
        model.recompute = True
        again = gradients(model, "fp64", packed_)
        assert kept[0] == again[0]
        assert all(torch.equal(kept[1][name], again[1][name]) for name in kept[1])


def test_flex_attention_sees_what_the_document_mask_shows() -> None:
    segments = torch.from_numpy(batches().batch(0).segments)
    tokens, positions = (torch.from_numpy(getattr(batches().batch(0), n)) for n in ("tokens", "positions"))
    for attention in ("mqa", "mha"):
        model = Transformer(model_config(attention, width=64))
        model.initialise(0)
        with torch.no_grad():
            one = model.hidden(tokens, positions, document_mask(segments))
            other = model.hidden(tokens, positions, block_mask(segments))
        inside = segments >= 0
        torch.testing.assert_close(one[inside], other[inside], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not multiplies_bf16(), reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_bfloat16_laid_end_to_end_is_as_close_as_autocast(attention: Any) -> None:
    model = Transformer(model_config(attention, width=64))
    model.initialise(0)
    exact = gradients(model, "fp32", True)
    for packed_ in (True, False):
        near = gradients(model, "bf16", packed_)
        assert near[0] == pytest.approx(exact[0], rel=2e-3)
        for name, gradient in exact[1].items():
            if ".c_attn.bias" in name:
                continue  # a key's bias has no gradient but rounding
            error = (near[1][name] - gradient).norm() / gradient.norm()
            assert error < 0.05, (name, packed_, float(error))


def test_the_loss_in_bfloat16_is_bounded_where_a_probability_vanishes() -> None:
    hidden = torch.zeros(2, 8)
    hidden[:, 0] = 300.0
    weight = torch.zeros(16, 8)
    weight[0, 0] = 1.0
    loss = packed.linear_cross_entropy(hidden, weight, torch.tensor([5, 0]), torch.bfloat16)
    assert 80 < loss.item() < 90


# -- runs --------------------------------------------------------------------------------------------------------------


def test_dropout_is_a_function_of_the_step(tmp_path: Path) -> None:
    config, settings = model_config(dropout=0.3), Settings(steps=8)
    run(tmp_path / "a", settings, config=config)
    seen: list[int] = []
    folder = tmp_path / "b"
    run(folder, settings, config=config, on_step=lambda r, _: seen.append(r.step), should_stop=lambda: seen[-1] == 3)
    torch.manual_seed(99)
    run(folder, settings, config=config)
    assert all(
        torch.equal(a, b) for a, b in zip(weights(folder).values(), weights(tmp_path / "a").values(), strict=True)
    )
    run(tmp_path / "c", settings)
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


def test_muon_trains_resumes_and_leaves_embeddings_to_adamw(tmp_path: Path) -> None:
    settings = Settings(steps=12, optimizer="muon", learning_rate=3e-3)
    run(tmp_path / "a", settings)
    seen: list[int] = []
    run(tmp_path / "b", settings, on_step=lambda r, _: seen.append(r.step), should_stop=lambda: seen[-1] == 7)
    run(tmp_path / "b", settings)
    for name, w in weights(tmp_path / "a").items():
        assert torch.equal(w, weights(tmp_path / "b")[name]), name
    assert losses(tmp_path / "a")[-1] < losses(tmp_path / "a")[0] - 0.2


def test_fp16_scales_skips_what_overflows_and_resumes(tmp_path: Path) -> None:
    scale = LossScale()
    history = []
    for overflowed in [True, True, True, *[False] * 1000]:
        scale.update(overflowed)
        history.append(scale.scale)
    assert history[:3] == [65_536, 32_768, 16_384]  # patience of two, and none left until it has grown again
    assert history[-2:] == [16_384, 32_768]
    assert scale.patience == 2
    low = LossScale(scale=1.0, patience=1)
    for _ in range(3):
        low.update(True)
    assert (low.scale, low.lowest) == (1.0, 3)
    low.update(False)
    assert low.lowest == 0
    low = LossScale(scale=1.0, patience=1)
    low.update(True)
    assert low.scale == 1.0
    settings = Settings(steps=6, precision="fp16")
    result = run(tmp_path, settings)
    run(tmp_path / "exact", Settings(steps=6))
    assert result.skipped == 0
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "exact"), rel=0.02)


def test_schedules_end_where_they_should() -> None:
    rates = [learning_rate(s, peak=1.0, schedule="wsd", warmup=10, steps=100, decay=0.25) for s in range(100)]
    assert rates[9:76] == [1.0] * 67
    assert rates[75:] == pytest.approx([(100 - s) / 25 for s in range(75, 100)])
    assert rates[99] > 0


def test_a_horizon_beyond_the_run_and_a_window_source(tmp_path: Path) -> None:
    settings = Settings(steps=6, decay_steps=12, warmup=0.5)
    source = WindowBatches(
        shared.store(), range(len(shared.store())), shared.tokenizer(), context=CONTEXT,
        batch_tokens=settings.batch_tokens, fim=Fim(), seed=0, steps=6,
    )  # fmt: skip
    result = run(tmp_path, settings, batches=source)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines] == [3e-3 * (s + 1) / 6 for s in range(6)]
    assert result.tokens == result.positions == 6 * settings.batch_tokens
    with pytest.raises(UserError, match=r"decay_tokens: the schedule ends after 3 steps"):
        run(tmp_path / "b", Settings(steps=6, decay_steps=3))


def test_figures_on_the_way_are_logged_once_per_place(tmp_path: Path) -> None:
    settings = Settings(steps=9)
    told: list[int] = []
    seen: list[int] = []
    given: dict[str, Any] = {
        "measure": lambda model: {"bits": float(model.training)},
        "measure_every": 2,
        "on_measure": lambda step, values: told.append(step),
    }
    run(tmp_path, settings, on_step=lambda r, _: seen.append(r.step), should_stop=lambda: seen[-1] == 5, **given)
    run(tmp_path, settings, **given)
    rows = [json.loads(line) for line in (tmp_path / "out" / "measures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 9] == told
    assert {row["bits"] for row in rows} == {0.0}


def test_time_of_all_attempts_counts_and_steps_done_twice_too(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(record: Any, model: Any) -> None:
        if record.step == 7:
            raise Killed

    settings = Settings(steps=10)
    with pytest.raises(Killed):
        run(tmp_path, settings, on_step=die)
    before = [json.loads(x) for x in (tmp_path / "checkpoints" / "log.jsonl").read_text().splitlines()]
    result = run(tmp_path, settings)
    redone = [json.loads(x) for x in (tmp_path / "out" / "redone.jsonl").read_text().splitlines()]
    assert [x["step"] for x in redone] == [5, 6, 7]
    final = [json.loads(x) for x in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert final[:4] == before[:4]
    spent = sum(x["seconds"] for x in [*final, *redone])
    assert result.seconds == pytest.approx(spent)
    assert result.tokens_per_second == pytest.approx(result.tokens / spent)


# -- gone wrong --------------------------------------------------------------------------------------------------------


def test_a_bad_batch_is_skipped_on_request_and_said(tmp_path: Path) -> None:
    def poison(record: Any, model: Transformer) -> None:
        if record.step == 3:
            hooks.append(model.transformer.ln_f.weight.register_hook(lambda gradient: gradient * math.nan))
        elif hooks and record.step == 5:
            hooks.pop().remove()

    hooks: list[Any] = []
    settings = Settings(steps=10, on_divergence="skip")
    result = run(tmp_path, settings, on_step=poison)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["skipped"]] == [4, 5]
    assert lines[3]["gradient_norm"] is None
    assert result.skipped == 2
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())
    hooks.clear()
    with pytest.raises(Diverged, match="at step 14"):  # not forever: eleven in a row
        run(tmp_path / "b", replace(settings, steps=30), on_step=lambda r, m: poison(r, m) if r.step == 3 else None)


def test_an_exploding_loss_is_seen_from_its_mean() -> None:
    guard = Guard(math.log(1000))
    rng = np.random.Generator(np.random.Philox(key=1))
    for step in range(600):
        assert guard.run(max(2.0, 7 - step / 50) + rng.normal(0, 1.5)) is None  # noise alone is no explosion
    told = [guard.run(6.5) for _ in range(100)]
    assert told[5] is None
    assert "climbed from" in str(told[-1])
    assert Guard(math.log(1000)).batch(14.0, 1.0) is not None
    assert Guard(math.log(1000)).batch(13.0, 1.0) is None
    assert Guard(5.0, steps=SETTLED).batch(math.nan, 1.0) == "the loss is nan"


def test_a_rate_that_is_too_high_stops_the_run(tmp_path: Path) -> None:
    settings = Settings(steps=400, learning_rate=30.0, clip=1e9)
    with pytest.raises(Diverged) as caught:
        run(tmp_path, settings, checkpoint_every=1000)
    assert caught.value.documents
    assert "last good checkpoint: none" in str(caught.value)


@given(st.floats(1, 1e9), st.integers(1, 10**10), st.integers(1, 512))
def test_utilisation_is_the_formula_and_none_without_a_peak(speed: float, flops: int, devices: int) -> None:
    assert utilisation(speed, flops, devices, None) is None
    assert utilisation(speed, flops, devices, 1e15) == pytest.approx(speed * flops / devices / 1e15)
    assert peak_flops(CPU, "bf16") is None
