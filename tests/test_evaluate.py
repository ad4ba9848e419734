"""One model evaluated: ours by our engine, the same folder by transformers, on suites of programs and of lines."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_fixtures as shared
import yaml
from jail_support import needs_jail
from score_support import write_lines

from kringle.errors import UserError
from kringle.evaluation.bits_per_byte import token_bits
from kringle.evaluation.foreign import ForeignModel
from kringle.evaluation.measure import measure_solutions, sample_suite
from kringle.evaluation.samplers import ForeignSampler, KringleSampler, Prompt, open_sampler
from kringle.evaluation.suites import SHIPPED, Suite, load_suite
from kringle.model import exchange
from kringle.model.exchange import save
from kringle.model.shape import FimTraining
from kringle.model.transformer import Transformer
from kringle.study import evaluating
from kringle.study.evaluating import evaluate_command
from kringle.study.pipeline import _suite_fingerprint

HALF = FimTraining(0.5, 0.5)


def tiny(path: Path, seed: int, trained: FimTraining | None = HALF) -> Path:
    model = Transformer(replace(shared.model_config("mqa"), context=512))
    model.initialise(seed)
    save(model, shared.tokenizer(), path, trained)
    return path


def ours_of(folder: Path) -> KringleSampler:
    opened = open_sampler(folder)
    assert isinstance(opened, KringleSampler)
    return opened


def theirs_of(folder: Path) -> ForeignSampler:
    pytest.importorskip("transformers")
    return ForeignSampler(folder, ForeignModel(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("model") / "tiny", 3)


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
    assert lines["exact"]["python"]["value"] in (0.0, 0.5, 1.0)
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


def docstrings(folder: Path, **changes: Any) -> str:
    """A suite of two docstrings that nothing is run for, with other rules than the shipped one; its path."""
    rows = [{"code": f'def {name}(a):\n    """{name}."""\n', "docstring_tokens": [name]} for name in ("add", "sub")]
    write_lines(folder / "codexglue-code-to-text-python.jsonl", rows)
    rules = yaml.safe_load((SHIPPED / "codexglue-docstrings.yaml").read_text())
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(rules | {"name": "short", "protocol": rules["protocol"] | changes}))
    return str(path)


def test_completions_are_kept_for_one_model_and_one_suite_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models of one name, as after a training into the same folder: each gets what it gets in an empty folder."""
    one, other = tiny(tmp_path / "a" / "tiny", 3), tiny(tmp_path / "b" / "tiny", 4)
    suite = docstrings(tmp_path, max_new_tokens=9)

    def drawn(model: Path, out: str) -> bytes:
        evaluate_command(model, [suite], tmp_path / out, quiet=True)
        return (tmp_path / out / "samples-short.jsonl").read_bytes()

    first, fresh = drawn(one, "out"), drawn(other, "fresh")
    assert first != fresh
    assert drawn(other, "out") == fresh
    (tmp_path / "out" / "samples-short.json").write_text('{"settings": ')
    assert drawn(other, "out") == fresh
    write = evaluating.write_atomically

    def die(path: Path, text: str) -> None:
        if path.name == "samples-short.json":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            drawn(one, "out")
    assert drawn(other, "out") == fresh
    docstrings(tmp_path, max_new_tokens=3)
    assert drawn(other, "out") == drawn(other, "fresher") != fresh


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "--limit: needs at least one problem, got 0"),
        ({"limit": -5}, "--limit: needs at least one problem, got -5"),
        ({"workers": 0}, "--workers: needs at least one worker, got 0"),
        ({"temperature": -1.0}, "--temperature: temperature must be 0 .greedy. or a positive number, got -1.0"),
        ({"top_p": 5.0}, "--top-p: top_p must be above 0 and at most 1, got 5.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_command(folder, ["starter"], tmp_path / "out", quiet=True, **options)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_to_write_into(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out: is a file, not a folder"):
        evaluate_command(folder, ["starter"], tmp_path / "out", quiet=True)


def test_stop_strings_of_a_problem_replace_the_suites_in_a_study(folder: Path) -> None:
    own = ours_of(folder)._own
    starter = load_suite("starter")
    stops = tuple("abcdefghijklmnopqrstuvwxyz \n")
    shared_stops = replace(starter, problems=starter.problems[:2], stop=stops)
    own_stops = replace(starter, problems=tuple(replace(one, stop=stops) for one in starter.problems[:2]))

    def drawn(suite: Suite) -> list[dict[str, Any]]:
        return sample_suite(own.model, own.tokenizer, suite, samples=2, temperature=1.0, top_p=1.0)

    assert drawn(own_stops) == drawn(shared_stops)
    assert {row["finish"] for row in drawn(own_stops)} == {"stop"}
    other_stops = replace(own_stops, problems=tuple(replace(one, stop=stops[1:]) for one in own_stops.problems))
    assert _suite_fingerprint(own_stops) != _suite_fingerprint(other_stops)


def test_transformers_measures_the_same_bits(folder: Path) -> None:
    ours, theirs = ours_of(folder), theirs_of(folder)
    pairs = [("def add(a, b):\n", "    return a + b\n"), ("", "x = 1\n"), ("# wörld \u4e16", "\u754c\n")]
    assert ours.bits(pairs) == pytest.approx(theirs.bits(pairs), rel=1e-4)
    assert theirs.fills_gaps()


def test_a_studys_solutions_have_the_bits_that_an_evaluation_gives_them(folder: Path) -> None:
    """Prompt and solution encoded together: apart, the line break that ends a prompt is a token of its own."""
    ours, starter = ours_of(folder), load_suite("starter")
    encode = ours._own.tokenizer.encode
    fits = [one for one in starter.problems if len(encode(one.prompt + one.canonical_solution)) < 500]
    pairs = [(one.prompt, one.canonical_solution) for one in fits]
    rows = measure_solutions(ours._own.model, ours._own.tokenizer, replace(starter, problems=tuple(fits)))
    assert ours.bits(pairs) == pytest.approx([row["model"] for row in rows], rel=1e-5)
    assert theirs_of(folder).bits(pairs) == pytest.approx([row["model"] for row in rows], rel=1e-4)
    assert any(encode(one + other) != [*encode(one), *encode(other)] for one, other in pairs)


def test_transformers_scores_every_token_of_a_long_text(folder: Path) -> None:
    ours, theirs = ours_of(folder), theirs_of(folder)
    head, tail = "x = 1\n" * 200, "def add(a, b):\n    return a + b\n" * 60
    encode = ours._own.tokenizer.encode
    before, after = encode(head), encode(tail)
    assert min(len(before), len(after)) > 512
    assert encode(head + tail) == [*before, *after]
    (bits,) = token_bits(ours._own.model, [np.array([ours._own.tokenizer.specials.end_of_text, *before, *after])], 512)
    assert theirs.bits([(head, tail), (head, "")]) == pytest.approx([bits[len(before) :].sum(), 0.0], rel=1e-4)


def test_transformers_scores_whole_where_the_context_is_unknown(folder: Path, tmp_path: Path) -> None:
    """BLOOM: no embeddings of positions, and nothing in its configuration that limits them."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(folder, tmp_path / "bloom", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=512, hidden_size=16, n_layer=1, n_head=2)
    bloom = transformers.BloomForCausalLM(config).train(False)
    bloom.save_pretrained(tmp_path / "bloom")
    theirs = open_sampler(tmp_path / "bloom")
    assert isinstance(theirs, ForeignSampler)
    text = "x = 1\n" * 450
    ids = torch.tensor([[theirs._foreign.tokenizer.eos_token_id, *theirs._foreign.encode(text)]])
    assert ids.shape[1] > 2048
    with torch.no_grad():
        nats = float(bloom(ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert theirs.bits([("", text)]) == pytest.approx([nats / math.log(2)], rel=1e-4)


def test_transformers_samples_alike(folder: Path) -> None:
    """Greedily, so that there is nothing to draw: the same text from both, cut at the same stop."""
    prompts = [
        Prompt("a", "def add(a, b):\n", new_tokens=12, temperature=0.0, top_p=1.0, stops=("\n\n",)),
        Prompt("b", "def add(a, b):\n    c", "    return c", "psm", new_tokens=8, temperature=0.0, top_p=1.0),
    ]
    ours = sorted(ours_of(folder).sample(prompts[1:]), key=lambda one: one.prompt)
    theirs = sorted(theirs_of(folder).sample(prompts[1:]), key=lambda one: one.prompt)
    assert [one.text for one in ours] == [one.text for one in theirs]
    first, *others = theirs_of(folder).sample([replace(prompts[0], samples=3)])
    assert "\n\n" not in first.text
    assert [(one.number, one.text) for one in others] == [(1, first.text), (2, first.text)]


def test_long_prompts_are_cut_and_counted(folder: Path) -> None:
    long = Prompt("long", "x = 1\n" * 300, new_tokens=4, temperature=0.0, top_p=1.0)
    for sampler in (ours_of(folder), theirs_of(folder)):
        (one,) = sampler.sample([long])
        assert (one.truncated, one.spent) == (True, False)


def test_prompts_that_spend_the_whole_budget_are_told(folder: Path, tmp_path: Path) -> None:
    """A protocol that counts the prompt leaves one token after a prompt that is as long as it allows."""
    counted = Prompt("a", "x = 1\n", new_tokens=3, count_prompt=True, temperature=0.0, top_p=1.0)
    for sampler in (ours_of(folder), theirs_of(folder)):
        (one,) = sampler.sample([counted])
        assert (one.truncated, one.spent) == (False, True)
        (one,) = sampler.sample([replace(counted, new_tokens=30)])
        assert not one.spent
    suite = docstrings(tmp_path, max_new_tokens=5, count_prompt=True)
    first = evaluate_command(folder, [suite], tmp_path / "out", quiet=True).record["suites"]["short"]
    again = evaluate_command(folder, [suite], tmp_path / "out", quiet=True).record["suites"]["short"]
    assert (first["spent_prompts"], first["truncated_prompts"]) == (2, 0)
    assert again == first


def test_a_study_tells_of_prompts_that_spend_the_whole_budget(folder: Path) -> None:
    own, starter = ours_of(folder)._own, load_suite("starter")
    lengths = [len(own.tokenizer.encode(one.prompt)) for one in starter.problems[:3]]
    counted = replace(starter.protocol, max_new_tokens=max(lengths), count_prompt=True, strip_prompt=False)
    suite = replace(starter, problems=starter.problems[:3], protocol=counted)
    rows = sample_suite(own.model, own.tokenizer, suite, samples=1, temperature=0.0, top_p=1.0)
    assert [row["spent"] for row in rows] == [length == max(lengths) for length in lengths]
    assert not any(row["truncated"] for row in rows)


def test_an_imported_checkpoint_is_asked_as_the_published_harnesses_do(folder: Path, tmp_path: Path) -> None:
    """Nothing before the prompt, where a model that was trained here has an end-of-text; the record tells which."""
    other = tiny(tmp_path / "imported", 3, None)
    end = shared.tokenizer().specials.end_of_text
    prompt, ids = Prompt("a", "def f():\n"), shared.tokenizer().encode("def f():\n")
    assert ours_of(folder)._encode(prompt).ids == [end, *ids]
    assert ours_of(other)._encode(prompt).ids == ids
    assert ours_of(other)._encode(replace(prompt, prefix="")).ids == [end]
    suite = docstrings(tmp_path, max_new_tokens=3)
    for model, begin in ((folder, "<|endoftext|>"), (other, "")):
        record = evaluate_command(model, [suite], tmp_path / model.name, quiet=True).record
        settings = record["suites"]["short"]["sampler"]
        assert (settings["engine"], settings["prompts_begin_with"]) == ("kringle", begin)


def test_weights_in_pytorchs_format_are_ours_all_the_same(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "older"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(exchange.read_weights(folder), other / "pytorch_model.bin")
    pairs = [("def f():\n", "    return 1\n")]
    assert ours_of(other).bits(pairs) == ours_of(folder).bits(pairs)


def test_a_gpt_bigcode_that_cannot_fill_in_is_left_to_transformers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    other = tmp_path / "plain"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("special_tokens_map.json"))
    raw = (other / "tokenizer.json").read_text()
    for name in ("prefix", "middle", "suffix", "pad"):
        raw = raw.replace(f"<fim_{name}>", f"<other_{name}>")
    (other / "tokenizer.json").write_text(raw)
    (other / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )
    opened = open_sampler(other)
    assert isinstance(opened, ForeignSampler)
    assert not opened.fills_gaps()


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model here"):
        evaluate_command(tmp_path, ["starter"], tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="no suite called 'x'"):
        evaluate_command(tmp_path, ["x"], tmp_path / "out", quiet=True)
