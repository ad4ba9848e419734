from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_fixtures as shared
from training_fixtures import CONTEXT, Settings, batches, model_config

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.transformer import Transformer, document_mask, loss_sum
from kringle.training.checkpoint import restore, save
from kringle.training.log import StepRecord
from kringle.training.loss import Objective, rows_of
from kringle.training.optimizer import Optimizers, make_optimizer
from kringle.training.run import Diverged, TrainingResult
from kringle.training.schedule import learning_rate
from kringle.training.trainer import train

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 24


def run(folder: Path, settings: Settings | None = None, **changes: Any) -> TrainingResult:
    settings = settings or Settings(steps=STEPS)
    given: dict[str, Any] = {"seed": 0, "checkpoint_every": 3, "checkpoints": folder / "checkpoints", **changes}
    config = given.pop("config", model_config())
    made = given.pop("batches", None) or batches(settings=settings)
    return train(config, settings, made, given.pop("out", folder / "out"), **given)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(exchange.load(folder / "out" / "model")[0].named_parameters())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    run(folder)
    return folder


def _child(folder: Path) -> None:
    """Trains slowly enough to be killed anywhere, within a step or while a checkpoint is written."""
    torch.set_num_threads(1)
    run(folder)


def test_killed_at_random_moments_and_resumed_the_weights_are_the_same_to_the_bit(
    tmp_path: Path, uninterrupted: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "training_fixtures", "kringle.training.trainer"])
    chance = random.Random(20)
    checkpoints = tmp_path / "checkpoints"
    deaths: list[int] = []
    while len(deaths) < 6:
        process = context.Process(target=_child, args=(tmp_path,))
        process.start()
        newest = max((int(p.name[5:]) for p in checkpoints.glob("step-*")), default=0)
        goal = chance.randint(newest + 1, newest + 5)  # die after this line of the log, and a moment later
        path = checkpoints / "log.jsonl"
        while process.is_alive() and not (path.exists() and path.read_bytes().count(b"\n") >= goal):
            time.sleep(0.0005)
        time.sleep(chance.random() * 0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break  # it came to its end before the signal
        deaths.append(goal)
    result = run(tmp_path)
    assert len(deaths) >= 3, deaths
    assert result.resumed_from > 0
    assert same(weights(tmp_path), weights(uninterrupted))
    ours, theirs = log(tmp_path / "out" / "log.jsonl"), log(uninterrupted / "out" / "log.jsonl")
    assert [line["step"] for line in ours] == list(range(1, STEPS + 1))
    timeless = [
        [{**line, "tokens_per_second": 0, "seconds": 0, "memory_bytes": 0} for line in lines]
        for lines in (ours, theirs)
    ]
    assert timeless[0] == timeless[1]


def test_a_finished_run_is_not_trained_again(uninterrupted: Path, tmp_path: Path) -> None:
    calls: list[StepRecord] = []
    result = run(uninterrupted, out=tmp_path / "out", on_step=lambda record, _: calls.append(record))
    assert calls == []
    assert (result.finished, result.steps, result.resumed_from) == (True, STEPS, STEPS)
    assert same(weights(tmp_path), weights(uninterrupted))


def test_a_lost_log_is_said_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, on_step=lambda *_: None, should_stop=lambda: True)
    (tmp_path / "checkpoints" / "log.jsonl").unlink()
    run(tmp_path)
    assert "lacks 1 of the first 1 steps" in caplog.text
    assert [line["step"] for line in log(tmp_path / "out" / "log.jsonl")] == list(range(2, STEPS + 1))


def test_the_trainer_needs_none_of_the_data_rooms_libraries() -> None:
    code = (
        "import sys; blocked = ('pyarrow', 'numba', 'rich', 'yaml', 'typer', 'pygments', 'transformers')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "import kringle.training.trainer, kringle.model.exchange, kringle.training.batches"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_result_and_the_log_tell_what_happened(tmp_path: Path) -> None:
    settings = Settings(steps=8, warmup=0.25)
    made = batches(settings=settings)
    records: list[StepRecord] = []
    result = run(tmp_path, settings, batches=made, on_step=lambda record, model: records.append(record))
    lines = log(tmp_path / "out" / "log.jsonl")
    assert [StepRecord(**line) for line in lines] == records
    expected = [made.batch(step) for step in range(8)]
    assert [r.tokens for r in records] == np.cumsum([b.valid for b in expected]).tolist()
    rates = [learning_rate(s, peak=3e-3, schedule="cosine", warmup=2, steps=8) for s in range(8)]
    assert [r.learning_rate for r in records] == rates
    assert records[0].loss == pytest.approx(math.log(model_config().vocab_size), rel=0.25)
    assert result.tokens == records[-1].tokens == made.tokens_seen(8)
    assert result.positions == 8 * settings.batch_tokens
    assert result.utilisation == result.tokens / result.positions
    assert result.rearranged == sum(b.rearranged for b in expected)
    assert result.epochs == made.epochs(8)
    assert result.loss == records[-1].loss
    assert result.parameters == model_config().parameters
    assert (result.finished, result.resumed_from) == (True, 0)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "log.jsonl",
        "step-00000006",
        "step-00000008",
    ]


def test_stopping_on_request_keeps_a_checkpoint_to_go_on_from(tmp_path: Path, uninterrupted: Path) -> None:
    seen: list[int] = []
    stopped = run(tmp_path, on_step=lambda record, _: seen.append(record.step), should_stop=lambda: seen[-1] == 7)
    assert (stopped.finished, stopped.steps, stopped.model) == (False, 7, None)
    assert not (tmp_path / "out").exists()
    result = run(tmp_path)
    assert (result.finished, result.resumed_from) == (True, 7)
    assert same(weights(tmp_path), weights(uninterrupted))


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "missing", "format"])
def test_a_damaged_checkpoint_is_passed_over_loudly(
    tmp_path: Path, uninterrupted: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    seen: list[int] = []
    run(tmp_path, on_step=lambda record, _: seen.append(record.step), should_stop=lambda: seen[-1] == 13)
    newest = tmp_path / "checkpoints" / "step-00000013"
    file, manifest = newest / "weights.safetensors", newest / "manifest.json"
    raw = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        raw[-5] ^= 1
        file.write_bytes(raw)
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-20])
    elif damage == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    else:
        (newest / "optimizer.safetensors").unlink()
    result = run(tmp_path)
    assert result.resumed_from == 12
    assert "step-00000013 is damaged" in caplog.text
    assert same(weights(tmp_path), weights(uninterrupted))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"settings": Settings(steps=STEPS, learning_rate=1e-3)}, "training.learning_rate was 0.003, is now 0.001"),
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"config": model_config("mha")}, "model.attention was mqa, is now mha"),
        ({"batches": batches([0, 1, 2, 3, 4, 5], Settings(steps=STEPS))}, "data.documents was"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(
    uninterrupted: Path, tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    with pytest.raises(UserError, match="is of another run") as caught:
        run(uninterrupted, out=tmp_path / "out", **change)
    assert difference in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_new_checkpoint_is_kept_beside_damaged_ones_of_later_steps(tmp_path: Path) -> None:
    model, optimizer = _small()
    folders = [save(tmp_path, step, model, optimizer, {}, {}) for step in (200, 300)]
    for folder in folders:
        (folder / "manifest.json").write_text("{")
    assert restore(tmp_path, model, optimizer, {}) is None
    kept = save(tmp_path, 100, model, optimizer, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == [kept.name] == ["step-00000100"]
    restored = restore(tmp_path, model, optimizer, {})
    assert restored is not None
    assert restored.step == 100


def _small() -> tuple[Transformer, Optimizers]:
    model = Transformer(model_config())
    return model, make_optimizer(model, Settings())


def _limited(folder: Path, limit: int, answer: Any) -> None:
    """A run whose files may not exceed `limit` bytes from step 5 on: what a full disk does to a write."""

    def fill_up(record: StepRecord, _: Transformer) -> None:
        if record.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    torch.set_num_threads(1)
    try:
        run(folder, on_step=fill_up)
    except UserError as error:
        answer.send(str(error))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, uninterrupted: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_limited, args=(tmp_path, 20_000, send))
    process.start()
    message = receive.recv()
    process.join()
    assert "the checkpoint of step 6 could not be written" in message
    assert "the last good checkpoint is step-00000003" in message
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["log.jsonl", "step-00000003"]
    assert run(tmp_path).resumed_from == 3
    assert same(weights(tmp_path), weights(uninterrupted))


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_a_loss_or_gradient_that_is_no_number_stops_the_run(tmp_path: Path, what: str) -> None:
    def poison(record: StepRecord, model: Transformer) -> None:
        weight = model.transformer.ln_f.weight
        if record.step == 4 and what == "loss":
            weight.data[0] = math.inf
        elif record.step == 4:
            weight.register_hook(lambda gradient: gradient * math.inf)

    made = batches(settings=Settings(steps=STEPS))
    with pytest.raises(Diverged, match=f"the {what} is (nan|inf)") as caught:
        run(tmp_path, batches=made, on_step=poison)
    assert caught.value.step == 5
    assert caught.value.documents == made.batch(4).documents
    assert caught.value.last == tmp_path / "checkpoints" / "step-00000003"
    message = str(caught.value)
    assert "at step 5" in message
    assert made.batch(4).documents[0] in message
    assert "step-00000003" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_micro_batches_change_nothing_but_memory(attention: Any) -> None:
    """Gradients in float64: one batch at once, in uneven parts, row by row, and through document masks."""
    made = batches(settings=Settings(batch_tokens=8 * CONTEXT))
    batch = made.batch(0)
    results = []
    for rows in (8, 3, 1, 0):
        model = Transformer(model_config(attention))
        model.initialise(0)
        model.double()
        loss = 0.0
        if rows:
            for first in range(0, 8, rows):
                inputs = rows_of(batch, slice(first, first + rows), torch.device("cpu"), packed=True)
                part = Objective(model, "fp64")(inputs) / batch.valid
                part.backward()
                loss += part.item()
        else:
            tokens, targets, positions, segments = (
                torch.from_numpy(getattr(batch, name)) for name in ("tokens", "targets", "positions", "segments")
            )
            hidden = model.hidden(tokens, positions, document_mask(segments))
            logits = model.logits(hidden)
            mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
            mean.backward()  # type: ignore[no-untyped-call]
            loss = mean.item()
            assert loss_sum(logits, targets).item() / batch.valid == pytest.approx(loss, rel=1e-5)
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    for loss, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-8, atol=1e-12)


def test_training_in_micro_batches_gives_the_same_losses(tmp_path: Path) -> None:
    """Losses, not weights: AdamW blows rounding errors up where a gradient is 0 in theory, as for the keys' biases."""
    losses = []
    for name, size in (("whole", 4 * CONTEXT), ("uneven", 3 * CONTEXT), ("rows", CONTEXT)):
        run(tmp_path / name, Settings(steps=8), micro_batch_tokens=size)
        losses.append([line["loss"] for line in log(tmp_path / name / "out" / "log.jsonl")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_a_small_corpus_is_learnt_by_heart(tmp_path: Path) -> None:
    settings = Settings(steps=120, learning_rate=1e-2)
    run(
        tmp_path, settings, batches=batches(range(3, 16), settings), config=model_config(width=32), checkpoint_every=200
    )
    losses = [line["loss"] for line in log(tmp_path / "out" / "log.jsonl")]
    assert losses[0] > 5
    assert np.mean(losses[-10:]) < 1.5


def test_bf16_trains_through_document_masks(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        run(tmp_path / precision, Settings(steps=6, precision=precision))  # type: ignore[arg-type]
    a, b = (log(tmp_path / p / "out" / "log.jsonl") for p in ("fp32", "bf16"))
    losses = [[line["loss"] for line in lines] for lines in (a, b)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert all(p.dtype == torch.float32 for p in weights(tmp_path / "bf16").values())


GOOD = Settings()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (replace(GOOD, steps=0), {}, r"training\.tokens: nothing to train on: 0 tokens"),
        (replace(GOOD, batch_tokens=8 * CONTEXT), {"batches": batches()}, r"is 256, the batches were made for 128"),
        (GOOD, {"batches": batches(fim=shared.Fim(0.0))}, r"training\.fim: is not what the batches were made with"),
        (GOOD, {"config": model_config(context=16)}, r"rows of 32 tokens, the model's position table has 16"),
        (GOOD, {"config": model_config(vocab_size=320)}, r"320 embedding rows, the tokenizer 325 ids"),
        (GOOD, {"micro_batch_tokens": 31}, r"must hold a row of 32 tokens"),
        (GOOD, {"checkpoint_every": 0}, r"training\.checkpoint_every: must be above 0"),
        (replace(GOOD, clip=0.0), {}, r"training\.clip: must be above 0"),
        (replace(GOOD, learning_rate=math.nan), {}, r"training\.learning_rate: must be a positive number"),
        (replace(GOOD, warmup=1.0), {}, r"training\.warmup"),
        (replace(GOOD, schedule="linear"), {}, r"training\.schedule: is one of cosine, constant, wsd, not 'linear'"),  # type: ignore[arg-type]
        (replace(GOOD, precision="fp8"), {}, r"training\.precision"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    tmp_path: Path, settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, settings, **changes)
    assert list(tmp_path.iterdir()) == []


def test_recipes_settings_are_training_settings(tmp_path: Path) -> None:
    from kringle.settings import FimSettings, TrainingSettings

    settings = TrainingSettings(tokens=512, batch_tokens=4 * CONTEXT, fim=FimSettings(rate=0.5, spm=0.5))
    made = batches(fim=settings.fim)
    result = train(
        model_config(), settings, made, tmp_path / "out", seed=0, checkpoints=tmp_path / "c", checkpoint_every=9
    )
    assert result.steps == 4
