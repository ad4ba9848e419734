"""What a study would cost: the paper's own numbers, closed forms, and what it refuses to guess."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import pytest
from run_fixtures import kringle

from kringle.errors import UserError
from kringle.recipe import load_recipe
from kringle.study.forecast import GPUS, forecast


def test_santacoder_is_the_papers() -> None:
    """Parameters: transformers' config of the release; tokens: 300,000 and 600,000 steps of 192 x 2,048; speed: paper,
    section 4 (3.1 days on 96 V100 for an ablation)."""
    found = forecast("santacoder-1b", gpu="v100", count=96)
    arms = {arm.name: arm for arm in found.arms}
    assert arms["fim"].parameters == 1_124_886_528
    assert arms["mha"].parameters == 1_313_722_368
    assert (arms["fim"].key_value_bytes_per_token, arms["mha"].key_value_bytes_per_token) == (12_288, 196_608)
    assert (arms["fim"].tokens, arms["fim"].steps) == (300_000 * 393_216, 300_000)
    assert (arms["final"].tokens, arms["fim-2x"].tokens) == (600_000 * 393_216, 600_000 * 393_216)
    assert arms["fim"].flops == pytest.approx(9.35e20, rel=0.01)
    assert arms["fim"].hours / 96 / 24 == pytest.approx(3.1, rel=0.02)
    assert [name for name in arms if name.startswith("control-")][:2] == ["control-seed", "control-harm"]
    assert list(found.days_by_count) == [1, 2, 4, 8, 16, 32, 64, 96]
    assert found.days_by_count[1] == pytest.approx(96 * found.days_by_count[96])
    rates = dict(found.learning_rate)
    assert max(rates.values()) == pytest.approx(2e-4, rel=1e-2)
    assert rates[3_000] == pytest.approx(2e-4 * 3_001 / 12_000)  # warmup is 2% of a horizon of 600,000
    assert rates[299_999] == pytest.approx(1.03e-4, rel=5e-3)  # an ablation ends half-way down the cosine


def test_cost_is_arithmetic() -> None:
    eight, one = (forecast("santacoder-1b", gpu="h100", count=n, price=2.0) for n in (8, 1))
    assert one.price == eight.price == pytest.approx(2.0 * one.device_hours)
    assert one.days == pytest.approx(8 * eight.days)
    assert one.flops == sum(arm.flops * arm.seeds for arm in one.arms)
    speed = one.flops / one.device_hours / 3600
    assert 0.28 * 989e12 < speed < 0.43 * 989e12


def test_utilisation_lies_between_what_was_published() -> None:
    h100 = GPUS["h100"]
    assert h100.utilisation(10**6) == 0.28
    assert h100.utilisation(10**12) == h100.utilisation(1_300_000_000) == 0.418
    assert 0.28 < h100.utilisation(400_000_000) < 0.379
    assert h100.utilisation(760_000_000) == pytest.approx(0.379)


def test_more_seeds_items_and_samples_see_smaller_differences(tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    path.write_text(
        resources.files("kringle.recipes").joinpath("laptop.yaml").read_text().replace("[0]}", "[0, 1, 2]}")
    )
    found = forecast(str(path), gpu="h200")
    now = {d.measure: d.value for d in found.detectable}
    for option in found.options:
        for d in option.detectable:
            assert d.value <= now[d.measure] * (1 + 1e-9)
    ten = next(option for option in found.options if option.change == "10 seeds")
    assert ten.cost_factor == pytest.approx(10 / 3)
    assert {d.measure: d.value for d in ten.detectable}["bits per byte"] < now["bits per byte"]
    single = forecast("laptop", gpu="h200")
    if len(load_recipe("laptop").base.training.seeds) == 1:
        assert all("one seed" in d.basis for d in single.detectable)


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown GPU 'tpu'"):
        forecast("laptop", gpu="tpu")
    with pytest.raises(UserError, match="speed was measured"):
        forecast("laptop", work=tmp_path)
    for wrong in ({"count": 0, "gpu": "h100"}, {"count": 2}, {"price": -1.0, "gpu": "h100"}):
        with pytest.raises(UserError):
            forecast("laptop", work=tmp_path, **wrong)  # type: ignore[arg-type]


def trained(work: Path, *speeds: float, **summary: object) -> Path:
    """A workspace in which models were trained so fast (tokens/s)."""
    settings = {"model": {"layers": 4, "width": 128, "context": 256}}
    for number, speed in enumerate(speeds):
        folder = work / f"stages/train@a-s{number}-x"
        folder.mkdir(parents=True)
        said = {"tokens_per_second": speed, "parameters": 1_000_000, "processes": 1, **summary}
        (folder / "manifest.json").write_text(json.dumps({"settings": settings, "summary": said}))
    return work


@pytest.mark.parametrize(
    ("device", "threads", "together", "side_by_side"),
    [
        ("cpu", 1, 2, 12),  # that few ran at once, and the other cores had nothing to do
        ("cpu", 5, 2, 2),
        ("cpu", 16, 1, 1),  # measured on a larger machine
        ("cuda", 1, 1, 1),  # however many cores
        ("cuda", 1, 3, 3),  # three shared the GPU, so it is three times as fast as each of them
    ],
)
def test_this_machine_is_as_fast_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, threads: int, together: int, side_by_side: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    how = {"device": device, "threads": threads, "together": together}
    work = trained(tmp_path, 4000.0, 5000.0, 0, 6000.0, 0, 0, **how)  # 0: checkpoints that were measured as they are
    found = forecast("laptop", work=work)
    assert f"5,000 tokens/s a training (median of 3), {side_by_side} side by side" in found.throughput
    assert found.price is None
    per_token = 6 * 1_000_000 + 12 * 4 * 128 * 256
    assert found.flops / found.device_hours / 3600 / (5000 * per_token) == pytest.approx(side_by_side)


def test_untouched_checkpoints_alone_tell_no_speed(tmp_path: Path) -> None:
    work = trained(tmp_path, 0, device="cpu", threads=1, together=1)
    with pytest.raises(UserError, match="holds no training whose speed could be used"):
        forecast("laptop", work=work)


def test_the_command_prints_and_tells() -> None:
    done = kringle("forecast", "santacoder-1b", "--gpu", "h200", "--count", "8", "--price", "3.5", "--json").succeeded()
    assert "1,124,886,528" in done.out
    assert done.result["count"] == 8
    assert done.result["arms"][0]["parameters"] == 1_124_886_528
    assert "speed was measured" in kringle("forecast", "laptop").refused()
