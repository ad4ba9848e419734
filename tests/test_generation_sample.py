"""`kringle sample`: formats, resuming, and models of other families through the same command."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import training_fixtures as shared
from jail_support import needs_jail
from score_support import PYTHON, RIGHT, write_lines

from kringle.errors import UserError
from kringle.evaluation import sampling
from kringle.evaluation.sampling import Settings, open_model, requests_of, sample_suite
from kringle.evaluation.suites import SHIPPED, load_suite
from kringle.evaluation.verdict_file import score_file
from kringle.generation.fim_formats import formats, infilling_ids, recognise
from kringle.model import exchange
from kringle.model.transformer import Transformer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SETTINGS = Settings(3, 0.8, 0.95, None, 5, 12, "fp32", False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ours = Transformer(shared.model_config("mqa", context=96, width=32))
    ours.initialise(1)
    exchange.save(ours, shared.tokenizer(), folder)
    return folder


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_formats_say_the_same(model: Path, tmp_path: Path) -> None:
    suite = load_suite("starter")
    record = sample_suite(model, "starter", tmp_path / "a.jsonl", SETTINGS)
    assert record["samples"] == record["drawn"] == 3 * len(suite.problems)
    lines = rows(tmp_path / "a.jsonl")
    assert [line["task_id"] for line in lines] == [p.task_id for p in suite.problems for _ in range(3)]
    assert [line["sample"] for line in lines] == [0, 1, 2] * len(suite.problems)
    assert not (tmp_path / "a.jsonl.partial").exists()
    sample_suite(model, "starter", tmp_path / "b.json", SETTINGS, format="bigcode")
    whole = json.loads((tmp_path / "b.json").read_text())
    assert [t for texts in whole for t in texts] == [
        p.prompt + str(line["completion"])
        for p, line in zip([p for p in suite.problems for _ in range(3)], lines, strict=True)
    ]
    sample_suite(model, "starter", tmp_path / "c", SETTINGS, format="multipl-e")
    for number, problem in enumerate(suite.problems):
        file = tmp_path / "c" / f"{problem.task_id.replace('/', '_')}.json.gz"
        entry = json.loads(gzip.decompress(file.read_bytes()))
        assert entry["completions"] == [line["completion"] for line in lines[3 * number : 3 * number + 3]]
        assert (entry["language"], entry["temperature"], entry["top_p"]) == ("py", 0.8, 0.95)
    with pytest.raises(UserError, match="is a folder"):
        sample_suite(model, "starter", tmp_path / "c", SETTINGS)
    with pytest.raises(UserError, match="unknown format 'x'"):
        sample_suite(model, "starter", tmp_path / "d", SETTINGS, format="x")  # type: ignore[arg-type]


GAP = PYTHON | {"suffix": "    return c\n", "canonical_solution": "    c = a + b\n"}
GAPS = [
    GAP,
    GAP | {"task_id": "own/1", "suffix": "", "canonical_solution": "    return a + b\n"},
    GAP | {"task_id": "own/2", "prompt": PYTHON["prompt"] + "    # a comment about nothing\n" * 40},
]


def test_every_gap_of_a_suite_is_asked_for_as_one(model: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "gaps.jsonl", GAPS)
    opened = open_model(model, "fp32")
    assert isinstance(opened, sampling.OwnModel)
    requests, cut = requests_of(load_suite(path), opened, SETTINGS)
    special = opened.tokenizer.specials
    assert all(special.fim_middle == request.prompt[-1] for request in requests)
    assert cut == [False, False, True]
    record = sample_suite(model, str(path), tmp_path / "out.jsonl", SETTINGS)
    assert record["truncated_prompts"] == 1
    assert [row["truncated"] for row in rows(tmp_path / "out.jsonl")] == [False] * 6 + [True] * 3


@pytest.mark.parametrize("format", ["bigcode", "multipl-e"])
def test_formats_without_a_suffix_refuse_gaps(model: Path, tmp_path: Path, format: sampling.Format) -> None:
    path = write_lines(tmp_path / "gaps.jsonl", GAPS)
    with pytest.raises(UserError, match="no place for what follows the gaps of gaps; write them as human-eval"):
        sample_suite(model, str(path), tmp_path / "out", SETTINGS, format=format)
    assert not list(tmp_path.glob("out*"))


@needs_jail
def test_wrong_programs_fail_after_a_trip_through_multipl_e_s_files(tmp_path: Path) -> None:
    suite = load_suite(write_lines(tmp_path / "own.jsonl", [PYTHON]))
    texts = [RIGHT["python"], "    return a - b\n"]
    done = {(0, number): {"completion": text} for number, text in enumerate(texts)}
    sampling._write(tmp_path / "made", "multipl-e", suite, replace(SETTINGS, samples=2), done)
    score_file(tmp_path / "made", suite, tmp_path / "out.jsonl", workers=1)
    assert [row["verdict"] for row in rows(tmp_path / "out.jsonl")] == ["pass", "fail"]


def test_a_broken_run_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole.jsonl"
    sample_suite(model, "starter", whole, SETTINGS)
    out = tmp_path / "out.jsonl"
    append = sampling._Partial.append
    written = []

    def die(self: sampling._Partial, row: dict[str, object]) -> None:
        if len(written) == 50:
            self.file.write('{"problem": 3, "sam')  # a kill in the middle of a line
            self.file.flush()
            raise KeyboardInterrupt
        written.append(row)
        append(self, row)

    monkeypatch.setattr(sampling._Partial, "append", die)
    with pytest.raises(KeyboardInterrupt):
        sample_suite(model, "starter", out, SETTINGS)
    assert not out.exists()
    monkeypatch.setattr(sampling._Partial, "append", append)
    with pytest.raises(UserError, match="another seed, temperature"):
        sample_suite(model, "starter", out, replace(SETTINGS, seed=6, temperature=0.2))
    record = sample_suite(model, "starter", out, SETTINGS, rows=16)
    assert record["drawn"] == record["samples"] - 50
    assert out.read_bytes() == whole.read_bytes()


def test_a_partial_file_of_another_suite_or_of_somebody_else_is_left_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (SHIPPED / "starter.yaml").read_text()
    suite = tmp_path / "rules.yaml"
    suite.write_text(rules)
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with monkeypatch.context() as patched:
        patched.setattr(sampling.OwnModel, "sample", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sample_suite(model, str(suite), out, SETTINGS, data_dir=SHIPPED)
    header = partial.read_bytes()
    suite.write_text(
        rules.replace("max_new_tokens: 160", "max_new_tokens: 5").replace('stop: ["\\nclass", ', "stop: [")
    )
    with pytest.raises(UserError, match="was begun with another protocol, stop_strings"):
        sample_suite(model, str(suite), out, SETTINGS, data_dir=SHIPPED)
    suite.write_text(rules)
    for strange in (b"my notes", b"my\nnotes\n", b"[]\n", header + b"{}\n", header + b"\0\n"):
        partial.write_bytes(strange)
        with pytest.raises(UserError, match=r"partial, line [12]: is nothing that kringle sample wrote"):
            sample_suite(model, str(suite), out, SETTINGS, data_dir=SHIPPED)
        assert partial.read_bytes() == strange
    partial.write_bytes(header[:40])  # torn by a kill
    assert sample_suite(model, str(suite), out, SETTINGS, data_dir=SHIPPED)["drawn"] > 0


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_the_command(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    command = [sys.executable, "-m", "kringle", "sample", str(model), "--suite", "starter", "--n", "2"]
    command += ["--temperature", "0", "--max-new-tokens", "5", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["samples"] == 2 * len(load_suite("starter").problems)
    lines = rows(out)
    assert all(a["completion"] == b["completion"] for a, b in zip(lines[::2], lines[1::2], strict=True))
    wrong = subprocess.run(
        [*command[:4], str(tmp_path), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("kringle: ")
    assert wrong.stderr.count("\n") == 1


def foreign(folder: Path) -> Path:
    """A Llama of another family's tokenizer, with StarCoder's fill-in-the-middle tokens."""
    import tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(shared.texts(), trainer)
    backend.add_special_tokens(["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    roles = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=backend.token_to_id("<|endoftext|>"),
        bos_token_id=backend.token_to_id("<|endoftext|>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_other_families_are_sampled_by_the_same_rule(tmp_path: Path) -> None:
    """Against the definition: uncached logits, nucleus by sorting, the sample's own uniforms."""
    from kringle.generation.selection import Truncation, select
    from kringle.randomness import stream

    folder = foreign(tmp_path / "llama")
    model = open_model(folder, "fp32")
    assert isinstance(model, sampling.OtherModel)
    suite = load_suite("starter")
    suite = replace(suite, problems=suite.problems[:2])
    requests, _ = requests_of(suite, model, replace(SETTINGS, samples=5))
    ends = set(model.foreign.ends.tolist())
    import numpy as np

    found = {(c.request, c.sample): c for c in model.sample(requests)}
    assert len(found) == 10
    for (number, sample), completion in found.items():
        request = requests[number]
        uniforms = stream(5, "sample", request.key, sample).random(request.max_new_tokens)
        tokens: list[int] = []
        while len(tokens) < len(completion.tokens):
            with torch.no_grad():
                logits = model.foreign.model(torch.tensor([[*request.prompt, *tokens]])).logits[:, -1]
            shape = Truncation(np.full(1, 0.8), np.full(1, 0.95), np.zeros(1, np.int64))
            tokens.append(int(select(logits, shape, uniforms[len(tokens) : len(tokens) + 1])[0][0]))
        assert completion.tokens == tokens
        assert completion.finish in ("end", "stop", "length")
        assert (completion.tokens[-1] in ends) == (completion.finish == "end")
    record = sample_suite(folder, "starter", tmp_path / "o.jsonl", replace(SETTINGS, samples=1, precision="auto"))
    assert record["precision"] == "fp32"
    prompt, shortened = model.infilling_prompt("def f():\n", "\n", 8)
    assert not shortened
    assert model.infilling_prompt("def f():\n" * 99, "\n", 8)[1]
    vocabulary = model.foreign.tokenizer.get_vocab()
    assert prompt[0] == vocabulary["<fim_prefix>"]
    assert prompt[-1] == vocabulary["<fim_middle>"]


def test_every_family_is_recognised_by_its_own_tokens() -> None:
    names = [entry.name for entry in formats()]
    assert {"santacoder", "starcoder", "incoder", "code-llama", "deepseek-coder", "qwen-coder"} == set(names)
    for entry in formats():
        known = entry.special
        assert recognise(known.__contains__) == entry
        ids = {token: 1000 + i for i, token in enumerate(sorted({*known, *entry.begin}))}
        made = infilling_ids(entry, ids.__getitem__, list(range(50)), list(range(100, 140)), room=30)
        assert len(made) == 30
        assert 49 in made  # next to the cursor
        assert 100 in made
        assert 0 not in made
        assert 139 not in made
    assert recognise(lambda token: False) is None


def test_what_is_no_model_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_bigcode"}')
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in model.iterdir():
        (torn / file.name).write_bytes(file.read_bytes())
    (torn / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match="weights do not fit"):
        open_model(torn)
