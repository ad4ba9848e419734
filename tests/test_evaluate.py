"""One model evaluated: ours by our engine, the same folder by transformers, on suites of programs and of lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import training_fixtures as shared
from jail_support import needs_jail
from score_support import write_lines

from kringle.errors import UserError
from kringle.evaluation.samplers import KringleSampler, Prompt, TransformersSampler, open_sampler
from kringle.evaluation.suites import load_suite
from kringle.model.exchange import save
from kringle.model.transformer import Transformer
from kringle.study.evaluating import evaluate_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(shared.model_config("mqa"), context=512)
    model = Transformer(config)
    model.initialise(3)
    path: Path = tmp_path_factory.mktemp("model") / "tiny"
    save(model, shared.tokenizer(), path)
    return path


TASKS = [
    {
        "name": f"humaneval-add-L{line}",
        "language": "py",
        "prompt": "def add(a, b):\n    c = a",
        "suffix": "    return c",
        "canonical_solution": "    c += b",
        "tests": "def check(candidate):\n    assert candidate(1, 2) == 3\n\n\ncheck(add)\n",
    }
    for line in (2, 3)
]


@needs_jail
def test_everything_of_one_model(folder: Path, tmp_path: Path) -> None:
    tasks = write_lines(tmp_path / "lines.jsonl", TASKS)
    out = tmp_path / "out"
    run = {"samples": 2, "limit": 3, "quiet": True}
    record = evaluate_command(folder, ["starter", str(tasks)], out, **run).record  # type: ignore[arg-type]
    starter, lines = record["suites"]["starter"], record["suites"]["lines"]
    assert (starter["samples"], starter["problems"]) == (6, 3)
    assert sum(starter["verdicts"].values()) == 6
    assert starter["gold_bits_per_byte"] > 0
    assert lines["samples"] == 2
    assert lines["exact_match"] in (0.0, 0.5, 1.0)
    assert json.loads((out / "evaluation.json").read_text()) == record
    made = (out / "samples-starter.jsonl").read_bytes()
    again = evaluate_command(folder, ["starter", str(tasks)], out, **run).record  # type: ignore[arg-type]
    assert again["suites"]["starter"]["verdicts"] == starter["verdicts"]
    assert (out / "samples-starter.jsonl").read_bytes() == made


def test_docstrings_are_compared_and_not_run(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"code": 'def add(a, b):\n    """Add.\n\n    More."""\n    return a + b\n', "docstring_tokens": ["Add", "."]},
        {"code": "def sub(a, b):\n    return a - b\n", "docstring_tokens": ["Take", "b", "away"]},
    ]
    write_lines(tmp_path / "codexglue-code-to-text-python.jsonl", rows)
    suite = load_suite("codexglue-docstrings", tmp_path)
    assert [one.prompt for one in suite.problems] == ['def add(a, b):\n    """', 'def sub(a, b):\n    """']
    found = evaluate_command(folder, ["codexglue-docstrings"], tmp_path / "out", data=tmp_path, quiet=True).record
    assert 0 <= found["suites"]["codexglue-docstrings"]["bleu"] < 100
    write_lines(tmp_path / "codexglue-code-to-text-python.jsonl", [{"code": "def (", "docstring_tokens": []}])
    with pytest.raises(UserError, match="line 1: code is no Python function"):
        load_suite("codexglue-docstrings", tmp_path)


def test_transformers_measures_the_same_bits(folder: Path) -> None:
    pytest.importorskip("transformers")
    ours, theirs = open_sampler(folder), TransformersSampler(folder)
    assert isinstance(ours, KringleSampler)
    pairs = [("def add(a, b):\n", "    return a + b\n"), ("", "x = 1\n")]
    assert ours.bits(pairs) == pytest.approx(theirs.bits(pairs), rel=1e-4)
    assert theirs.fills_gaps()


def test_transformers_samples_alike(folder: Path) -> None:
    """Greedily, so that there is nothing to draw: the same text from both, cut at the same stop."""
    pytest.importorskip("transformers")
    prompts = [
        Prompt("a", "def add(a, b):\n", new_tokens=12, temperature=0.0, top_p=1.0, stops=("\n\n",)),
        Prompt("b", "def add(a, b):\n    c", "    return c", "psm", new_tokens=8, temperature=0.0, top_p=1.0),
    ]
    ours = sorted(KringleSampler(folder).sample(prompts[1:]), key=lambda one: one.prompt)
    theirs = sorted(TransformersSampler(folder).sample(prompts[1:]), key=lambda one: one.prompt)
    assert [one.text for one in ours] == [one.text for one in theirs]
    (first,) = TransformersSampler(folder).sample(prompts[:1])
    assert "\n\n" not in first.text


def test_long_prompts_are_cut_and_counted(folder: Path) -> None:
    long = Prompt("long", "x = 1\n" * 300, new_tokens=4, temperature=0.0, top_p=1.0)
    (one,) = KringleSampler(folder).sample([long])
    assert one.truncated


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model here"):
        evaluate_command(tmp_path, ["starter"], tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="no suite called 'x'"):
        evaluate_command(tmp_path, ["x"], tmp_path / "out", quiet=True)
