"""What a study would cost: the paper's own numbers, closed forms, and what it refuses to guess."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import kringle
from training_fixtures import model_config
from training_fixtures import tokenizer as small_tokenizer

from kringle.errors import UserError
from kringle.evaluation.suites import load_suite
from kringle.model import exchange
from kringle.model.transformer import Transformer
from kringle.recipe import load_recipe
from kringle.settings import Margins
from kringle.study import seeds
from kringle.study.detectable import ASSUMED, Detectable, sampling_variance
from kringle.study.forecast import GPUS, Forecast, forecast, told
from kringle.study.judgements import Measurements, compare_arms
from kringle.study.plan import Options, resolve
from kringle.study.power import smallest_found, widened
from kringle.study.verdicts import SeedVariance
from kringle.training.run import TrainingResult

RECIPE = """\
name: small
corpus:     {sources: [{installed: {}}]}
tokenizer:  {vocab_size: 512}
model:      {layers: 2, width: 64, heads: 2, context: 128}
training:   {tokens: 1M, batch_tokens: 1024, seeds: [0]}
evaluation: {suites: [starter], samples: 20}
ablations:
  fim:      {}
  no-fim:   {training: {fim: {rate: 0}}}
"""


def written(folder: Path, *changes: tuple[str, str]) -> str:
    """The path of the small recipe, changed."""
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def by_measure(seen: tuple[Detectable, ...]) -> dict[str, Detectable]:
    return {d.measure: d for d in seen}


def option(found: Forecast, change: str) -> dict[str, Detectable]:
    return by_measure(next(o for o in found.options if o.change.startswith(change)).detectable)


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
    for more in found.options:
        for d in more.detectable:
            before = now[d.measure]
            assert d.value is not None
            assert before is not None
            assert d.value <= before * (1 + 1e-9)
    ten = next(o for o in found.options if o.change == "10 seeds")
    assert ten.cost_factor == pytest.approx(10 / 3)
    assert ten.detectable[0].value != now["bits per byte"]


# -- what could be seen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["laptop", "corpus-100mb", "santacoder-1b"])
def test_one_seed_sees_nothing_and_more_seeds_never_look_like_a_loss(recipe: str) -> None:
    assert len(load_recipe(recipe).base.training.seeds) == 1
    found = forecast(recipe, gpu="h100")
    assert [d.value for d in found.detectable] == [None] * len(found.detectable)
    lines = told(found)
    assert "  bits per byte: none: one seed gives no verdict" in lines
    assert "  infilling: none: one seed gives no verdict" in lines
    three = next(line for line in lines if line.startswith("  3 seeds (cost x 3): "))
    assert "bits per byte 0." in three or "bits per byte 1." in three
    assert "(assumed spread between seeds, judged with " in three
    more_files = next(line for line in lines if line.startswith("  three times the held-out files"))
    assert more_files.endswith("(cost x 1): none: one seed gives no verdict")
    assert json.loads(json.dumps(found.detectable[0].value)) is None


def test_the_margin_is_part_of_it(tmp_path: Path) -> None:
    """Five seeds see half a per cent; a difference further inside a margin of 2% comes out as none."""
    five, margins = (
        ("seeds: [0]", "seeds: [0, 1, 2, 3, 4]"),
        "samples: 20, held_out_bytes: 50MB, margins: {bits_per_byte: ",
    )
    narrow, wide = (
        by_measure(forecast(written(tmp_path, five, ("samples: 20", f"{margins}{m}}}")), gpu="h100").detectable)[
            "bits per byte"
        ]
        for m in ("0.0001", "0.02")
    )
    assert narrow.value is not None
    assert wide.value is not None
    assert narrow.value < 0.01 < wide.value < 0.02 == wide.margin
    assert (narrow.by_margin, wide.by_margin) == (False, True)
    found = forecast(written(tmp_path, five, ("samples: 20", f"{margins}0.02}}")), gpu="h100")
    assert any("by the margin (assumed" in line and "margin 2.00% of the base's)" in line for line in told(found))
    assert any(note.startswith("By the margin") for note in found.notes)


def test_one_arm_is_compared_with_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, ("  no-fim:   {training: {fim: {rate: 0}}}\n", ""))
    found = forecast(path, gpu="h100")
    assert (found.detectable, found.options) == ((), ())
    assert found.device_hours > 0
    assert any("nothing is compared" in line for line in told(found))
    assert not any("Smallest difference" in line for line in told(found))
    assert forecast(path, gpu="h100", controls=True).detectable


def stored(folder: Path, recipe: str, run: float, items: float = 0.0) -> tuple[str, str]:
    """The line of a recipe that names a stored variance of its bits per byte."""
    path = folder / seeds.FILE
    seeds.write(load_recipe(recipe), {"bits per byte": SeedVariance(run, items, 6)}, path)
    return "ablations:", f"seed_variance: {path}\nablations:"


def test_a_stored_variance_is_always_used(tmp_path: Path) -> None:
    """With one seed it is what the verdicts use; with more it says how far seeds lie apart, and the verdicts have the
    degrees of freedom of the study itself."""
    line = stored(tmp_path, written(tmp_path), run=0.05**2, items=0.02**2)
    found = forecast(written(tmp_path, line), gpu="h100")
    now, three = by_measure(found.detectable), option(found, "3 seeds")
    assert now["bits per byte"].basis == "a stored between-seed variance, judged with 6 degrees of freedom"
    assert three["bits per byte"].basis == "a stored between-seed variance, judged with 2 degrees of freedom"
    assert now["infilling"].value is None  # nothing is stored of it
    assert three["infilling"].basis == "assumed spread between seeds, judged with 2 degrees of freedom"
    files, margin, family = 125, 0.01, 5
    items = ASSUMED["bits_file"] ** 2 / files - 2 * (0.02 / 2.5) ** 2
    for seen, count, freedom in ((now, 1, 6), (three, 3, 2)):
        expected = smallest_found(
            math.sqrt(max(0.0, items)) * widened(files),
            math.sqrt(2 / count) * 0.05 / 2.5,
            freedom=freedom,
            estimated=count > 1,
            family=family,
            margin=margin,
        )
        assert seen["bits per byte"].value == pytest.approx(expected)
    also = written(tmp_path, line, ("seeds: [0]", "seeds: [0, 1, 2]"))
    assert by_measure(forecast(also, gpu="h100").detectable) == three
    more = option(found, "three times")["bits per byte"].value  # a part of the spread is of single items
    before = now["bits per byte"].value
    assert more is not None
    assert before is not None
    assert more < before


def test_the_measures_and_their_number_are_those_that_are_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def measured(samples: int) -> Measurements:
        def rows(count: int) -> list[dict[str, object]]:
            return [{"language": "python", "bytes": 200, "model": float(300 + rng.normal())} for _ in range(count)]

        problems = [problem.task_id for problem in load_suite("starter").problems]
        verdicts = [
            {"task_id": name, "passed": bool(rng.random() < 0.3), "verdict": "passed"}
            for name in problems
            for _ in range(samples)
        ]
        lines = [{"task": f"f{i}:1", "exact": i % 3 == 0} for i in range(90)]
        return Measurements(rows(60), lines, {"starter": verdicts}, {}, "psm", {"starter": rows(len(problems))})

    for samples in (9, 10):
        runs = {arm: {seed: measured(samples) for seed in (0, 1)} for arm in ("fim", "no-fim")}
        judged = compare_arms(runs, [("no-fim", "fim")], Margins(), ["starter"])
        path = written(tmp_path, ("seeds: [0]", "seeds: [0, 1]"), ("samples: 20", f"samples: {samples}"))
        found = forecast(path, gpu="h100").detectable
        assert [d.measure for d in found] == [c.measure for c in judged]
        for told_of, judged_of in zip(found, judged, strict=True):
            assert (told_of.margin is None) == (judged_of.margin is None)
            assert "1 degree of freedom" in told_of.basis
            assert judged_of.remark.endswith("1 degree of freedom")
        at_1 = by_measure(found)["pass@1 on starter"]
        item = math.sqrt(ASSUMED["problem_at_1"] ** 2 + 2 * sampling_variance(samples, 1))
        number = len(load_suite("starter").problems)
        run, family = ASSUMED["rate_run"], len(judged)
        assert at_1.value == pytest.approx(
            smallest_found(item / math.sqrt(number) * widened(number), run, freedom=1, family=family, margin=0.02)
        )


def test_arms_with_seeds_of_their_own_number_are_counted_as_they_will_be(tmp_path: Path) -> None:
    """Pairs share one seed at least; the one that shares the fewest is told of, and the pool is all of them."""
    more = "  mha:      {model: {attention: mha}, training: {seeds: [0, 1, 2, 3]}}\n"
    path = written(tmp_path, ("seeds: [0]", "seeds: [0, 1, 2]"), ("  no-fim:", f"{more}  no-fim:"))
    found = forecast(path, gpu="h100")
    assert found.detectable[0].basis.endswith("judged with 4 degrees of freedom")
    five = next(o for o in found.options if o.change == "5 seeds")
    assert five.cost_factor == pytest.approx(15 / 10, rel=0.05)  # heads weigh little
    assert five.detectable[0].basis.endswith("judged with 8 degrees of freedom")


# -- what it refuses, and what was measured ----------------------------------------------------------------------------


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown GPU 'tpu'"):
        forecast("laptop", gpu="tpu")
    with pytest.raises(UserError, match="speed was measured"):
        forecast("laptop", work=tmp_path)
    for wrong in ({"count": 0, "gpu": "h100"}, {"count": 2}, {"price": -1.0, "gpu": "h100"}):
        with pytest.raises(UserError):
            forecast("laptop", work=tmp_path, **wrong)  # type: ignore[arg-type]


FLOPS = 7_000_000  # of a position of what was trained


def trained(work: Path, *speeds: float, **summary: object) -> Path:
    """A workspace in which models were trained so fast (positions/s), a fifth of them padding."""
    for number, speed in enumerate(speeds):
        folder = work / f"stages/train@a-s{number}-x"
        folder.mkdir(parents=True)
        done = {"steps": 10, "positions": 10_000, "tokens": 8_000}
        done |= {"seconds": 10_000 / speed} if speed else {"steps": 0, "positions": 0, "tokens": 0, "seconds": 0}
        said = {**done, "flops_per_token": FLOPS, "processes": 1, **summary}
        (folder / "manifest.json").write_text(json.dumps({"settings": {}, "summary": said}))
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
    assert found.flops / found.device_hours / 3600 / (5000 * FLOPS) == pytest.approx(side_by_side)


def test_a_study_that_was_measured_is_forecast_as_long_as_it_took(tmp_path: Path) -> None:
    """One formula for both sides: the same model at the measured speed takes tokens over tokens/s."""
    base = forecast("laptop", gpu="h100").arms[0]
    per_token = round(base.flops / base.tokens)
    work = trained(tmp_path, 4000.0, device="cuda", threads=1, together=1, flops_per_token=per_token)
    assert forecast("laptop", work=work).arms[0].hours * 3600 == pytest.approx(base.tokens / 4000)


def test_a_training_keeps_what_its_speed_is_worked_out_from() -> None:
    assert {"flops_per_token", "positions", "seconds", "processes"} <= {field.name for field in fields(TrainingResult)}


def test_trainings_of_an_older_version_are_said_to_be_so(tmp_path: Path) -> None:
    work = trained(tmp_path, 4000.0, 5000.0, device="cpu", threads=1, together=1)
    for path in work.glob("stages/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["summary"]["flops_per_token"]
        path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="speed could be used: 2 of an older version, which did not keep its FLOPs"):
        forecast("laptop", work=work)


def test_untouched_checkpoints_alone_tell_no_speed(tmp_path: Path) -> None:
    work = trained(tmp_path, 0, device="cpu", threads=1, together=1)
    with pytest.raises(UserError, match="speed could be used; name one with --work"):
        forecast("laptop", work=work)


def test_the_command_prints_and_tells() -> None:
    done = kringle("forecast", "santacoder-1b", "--gpu", "h200", "--count", "8", "--price", "3.5", "--json").succeeded()
    assert "1,124,886,528" in done.out
    assert done.result["count"] == 8
    assert done.result["arms"][0]["parameters"] == 1_124_886_528
    assert "speed was measured" in kringle("forecast", "laptop").refused()


# -- as `kringle run` would do it --------------------------------------------------------------------------------------


def test_equal_epochs_are_an_upper_bound(tmp_path: Path) -> None:
    chosen = "{filter: {comments: {above: 0.01, below: 0.80}}"
    arms = f"  no-fim:   {chosen}, training: {{budget: epochs}}}}\n  same:     {chosen}}}\n"
    path = written(tmp_path, ("  no-fim:   {training: {fim: {rate: 0}}}\n", arms))
    found = forecast(path, gpu="h100", price=1.0, controls=True)
    assert [arm.name for arm in found.arms if arm.at_most] == ["no-fim", "control-size-no-fim"]
    lines = told(found)
    (row,) = [line for line in lines if line.startswith("no-fim ")]
    assert "<= 1,000,448" in row
    assert any(line.startswith("Together: at most ") for line in lines)
    assert any(line.startswith("Price: at most ") for line in lines)
    assert any(line.startswith("Upper bounds (<=), of no-fim, control-size-no-fim and of the whole") for line in lines)
    assert not any("at most" in line or "Upper bound" in line for line in told(forecast("laptop", gpu="h100")))


def test_controls_are_forecast_as_they_are_run() -> None:
    found = forecast("laptop", gpu="h100", controls=True)
    assert [arm.name for arm in found.arms] == [arm.name for arm in resolve(Options(controls=True)).arms]
    assert found.flops > 1.5 * forecast("laptop", gpu="h100").flops
    done = kringle("forecast", "laptop", "--controls", "--gpu", "h100", "--json").succeeded()
    assert "control-harm" in [arm["name"] for arm in done.result["arms"]]
    assert done.result["detectable"][0]["value"] is None


def test_a_checkpoint_is_forecast_by_its_own_shape(tmp_path: Path) -> None:
    config = model_config("mha", context=64, layers=3)
    model = Transformer(config)
    model.initialise(0)
    exchange.save(model, small_tokenizer(), tmp_path / "model")
    found = forecast("adapt", gpu="h100", init=tmp_path / "model")
    adapted, before = found.arms
    assert adapted.parameters == config.parameters
    assert adapted.flops == config.flops_per_token(64) * adapted.tokens
    assert (before.flops, before.tokens) == (0.0, 0)
    assert found.detectable[0].value is None
    five = next(o for o in found.options if o.change == "5 seeds")
    assert five.cost_factor == pytest.approx(5)
    seen = five.detectable[0]  # the checkpoint as it is has no spread: one of the two arms counts, with its own seeds
    assert seen.basis.endswith("judged with 4 degrees of freedom")
    items, family = ASSUMED["bits_file"] / math.sqrt(125) * widened(125), len(five.detectable)
    run = ASSUMED["bits_run"] / math.sqrt(5)
    assert seen.value == pytest.approx(smallest_found(items, run, freedom=4, family=family, margin=0.01))
    done = kringle("forecast", "adapt", "--gpu", "h100", "--init", str(tmp_path / "model"), "--json").succeeded()
    assert done.result["arms"][0]["parameters"] == config.parameters
