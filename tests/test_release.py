"""Released folders: loadable by plain transformers, cards that the Hub's own library accepts, examples that run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import training_fixtures as shared
import yaml
from report_sample import sample

from kringle.errors import UserError
from kringle.model import exchange
from kringle.model.shape import FimTraining
from kringle.model.transformer import Transformer
from kringle.study.model_card import measurements
from kringle.study.release import release
from kringle.study.results import Results
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def workspace(folder: Path, results: Results, tokenizer: Tokenizer | None = None) -> Path:
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "results.json").write_text(results.to_json())
    for arm in results.arms:
        model = Transformer(shared.model_config("mha" if arm.name == "mha" else "mqa", context=160))
        model.initialise(arm.seed)
        fim = FimTraining(0.0 if arm.name == "no-fim" else 0.5, 0.5)
        exchange.save(model, tokenizer or shared.tokenizer(), folder / "models" / f"{arm.name}-s{arm.seed}", fim)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("work"), sample())


@pytest.fixture(scope="module")
def out(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "out"
    results = sample()
    released = release(work, folder, license="openrail-m", despite_notice=True)
    trained = [arm for arm in results.arms if arm.training is not None]
    assert len(released) == len(trained)
    assert {one.name for one in released} >= {arm.name for arm in trained}
    assert all(one.upload.startswith("hf upload OWNER/") for one in released)
    return folder


def cards(out: Path) -> list[Path]:
    found = sorted(out.glob("*/README.md"))
    assert found
    return found


def test_transformers_loads_every_folder(out: Path, work: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for card in cards(out):
        model, info = AutoModelForCausalLM.from_pretrained(card.parent, output_loading_info=True)
        assert not any(info.values())
        tokenizer = AutoTokenizer.from_pretrained(card.parent)
        ids = tokenizer("<fim_prefix>def f():", return_tensors="pt")["input_ids"]
        assert int(ids[0, 0]) == shared.tokenizer().specials.fim_prefix
        ours, _ = exchange.load(card.parent)
        with torch.no_grad():
            assert (ours(ids) - model(ids).logits).abs().max() < 1e-4


def test_the_hubs_library_accepts_the_cards(out: Path) -> None:
    """Parsing, its own check of the model-index, and back again without a change of meaning."""
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    results = sample()
    by_name = {arm.name: arm for arm in results.arms}
    for path in cards(out):
        card = ModelCard.load(path, ignore_metadata_errors=False)
        assert card.data.license == "bigcode-openrail-m"
        assert card.data.library_name == "transformers"
        assert card.data.pipeline_tag == "text-generation"
        raw = yaml.safe_load(path.read_text().split("---\n")[1])
        name, found = model_index_to_eval_results(raw["model-index"])
        assert name == path.parent.name
        expected = measurements(by_name[path.parent.name.split("-seed-")[0]])
        if "-seed-" not in path.parent.name:
            assert sorted(r.metric_value for r in found) == sorted(m["value"] for m in expected)
            assert expected
        assert card.data.eval_results
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


def test_evaluation_results_have_intervals(out: Path) -> None:
    from huggingface_hub import EvalResultEntry

    for path in cards(out):
        entries = yaml.safe_load((path.parent / "eval_results.yaml").read_text())
        assert entries
        for entry in entries:
            EvalResultEntry(entry["dataset"]["id"], entry["dataset"]["task_id"], entry["value"], notes=entry["notes"])
            assert re.match(r"90% interval [\d.e-]+ to [\d.e-]+ \(", entry["notes"])
            assert entry["date"] == sample().created


def test_pasted_examples_run(out: Path) -> None:
    for name, expected in (("fim", 2), ("no-fim", 1)):
        blocks = re.findall(r"```python\n(.*?)```", (out / name / "README.md").read_text(), re.DOTALL)
        assert len(blocks) == expected
        for block in blocks:
            done = subprocess.run([sys.executable, "-c", block], cwd=out, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()


def test_the_example_has_the_tokens_of_the_models_own_tokenizer(tmp_path: Path) -> None:
    hyphens = train_tokenizer(iter(shared.texts()), shared.VOCAB_SIZE, tmp_path / "tokenizer", "hyphen")
    work = workspace(tmp_path / "work", sample(), hyphens)
    release(work, tmp_path / "out", despite_notice=True)
    text = (tmp_path / "out/fim/README.md").read_text()
    assert "spelled with hyphens" in text
    assert "fim_prefix" not in text
    (prompt,) = re.findall(r'prompt = (".*")', text)
    loaded = Tokenizer.load(tmp_path / "out/fim")
    fim = [loaded.specials.fim_prefix, loaded.specials.fim_suffix, loaded.specials.fim_middle]
    ids = tokenizers.Tokenizer.from_file(str(tmp_path / "out/fim/tokenizer.json")).encode(json.loads(prompt)).ids
    assert [id for id in ids if id >= loaded.text_size] == fim


ADAPT = """\
name: adapt
corpus:     {sources: [{folder: .}], languages: [python]}
model:      {init: model}
training:   {tokens: 1M, batch_tokens: 2048, fim: {rate: 0}}
ablations:
  fim:      {}
  no-fim:   {training: {skip: true}}
"""


def test_an_adapted_model_says_from_what_and_an_untouched_checkpoint_is_not_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted, before = sample().arms[:2]
    assert adapted.training is not None
    adapted = replace(adapted, training=replace(adapted.training, init="santa-small"))
    study = replace(
        sample(), recipe=replace(sample().recipe, text=ADAPT), comparisons=(), examples=(), release_note=None
    )
    work = workspace(tmp_path / "work", replace(study, arms=(adapted, before)))
    assert [one.name for one in release(work, tmp_path / "out")] == ["fim"]
    assert "no-fim is left out: a checkpoint as it was" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fim"]
    text = (tmp_path / "out/fim/README.md").read_text()
    assert "`santa-small` trained further on Python" in text
    assert "`santa-small` has a licence" in text
    assert "from scratch" not in text
    assert "### Fill in the middle" in text  # what it went on from was trained to, by whatever recipe
    older = workspace(tmp_path / "older", replace(study, arms=sample().arms[:2]))
    with pytest.raises(UserError, match="does not name the checkpoint that fim went on from; write it again"):
        release(older, tmp_path / "x")
    alone = workspace(tmp_path / "alone", replace(study, arms=(before,)))
    with pytest.raises(UserError, match="no-fim is a checkpoint as it was"):
        release(alone, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_cards_tell_hashes_commands_and_limits(out: Path) -> None:
    import hashlib

    results = sample()
    for path in cards(out):
        text = path.read_text()
        assert hashlib.sha256((path.parent / "model.safetensors").read_bytes()).hexdigest() in text
        assert results.command_line in text
        assert results.corpus.fingerprint in text
        assert all(limit in text for limit in results.limitations)
        assert "follows no instructions" in text
        assert "| value | 90% interval |" in text
        assert "trained from scratch on" in text
    assert "was not trained to fill in" in (out / "no-fim" / "README.md").read_text()


def test_licence_and_owner_are_the_users_choice(work: Path, tmp_path: Path) -> None:
    released = release(work, tmp_path / "o", license="apache-2.0", owner="me", despite_notice=True)
    assert released[0].upload.startswith(f"hf upload me/{sample().study}-")
    text = (tmp_path / "o" / released[0].name / "README.md").read_text()
    assert "license: apache-2.0\n" in text
    assert f'checkpoint = "me/{sample().study}-{released[0].name}"' in text


def test_what_cannot_be_released_is_refused_whole(work: Path, tmp_path: Path) -> None:
    def refused(pattern: str, *arguments: object, **settings: object) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            release(*arguments, **settings)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused("no report here", tmp_path, tmp_path / "x")
    refused("openrail-m or apache-2.0", work, tmp_path / "x", license="mit")
    refused("is there already", work, tmp_path, despite_notice=True)
    stamped = workspace(tmp_path / "s", replace(sample(), release_note="Not for permissive release: GPL-3.0"))
    refused("Not for permissive release", stamped, tmp_path / "x")
    (stamped / "models" / "fim-s0" / "model.safetensors").unlink()
    refused(r"model\.safetensors missing", stamped, tmp_path / "x", despite_notice=True)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".x*"))


def test_the_command(work: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kringle", "release", str(tmp_path / "o"), "--work", str(work), "--despite-notice"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    released = json.loads(done.stdout.splitlines()[-1])["released"]
    assert all((Path(one["folder"]) / "README.md").is_file() for one in released)
    assert "hf upload" in done.stdout
