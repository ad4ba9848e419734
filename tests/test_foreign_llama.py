"""Models of Llama's family in an evaluation: a beginning token, a decoder that takes a space, a format of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kringle.errors import UserError
from kringle.evaluation.foreign import ForeignModel
from kringle.evaluation.samplers import ForeignSampler, Prompt, open_sampler
from kringle.evaluation.suites import load_suite
from kringle.progress import Reporter
from kringle.study.evaluating import _gold_bits

pytest.importorskip("transformers")
WORDS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
GAPS = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
MERGES = [("▁", "▁"), ("▁▁", "▁▁"), ("\n", "▁▁▁▁"), ("▁▁▁▁", "r"), ("▁", "d")]
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
CONTEXT = 64


def llama(folder: Path, gaps: tuple[str, ...] = GAPS) -> Path:
    """Code Llama's kind of tokenizer, where some line breaks share a token with the indentation that follows."""
    import tokenizers
    from tokenizers import decoders, normalizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM

    letters = [chr(i) for i in range(33, 127)] + ["\n", "▁"]
    vocabulary = [*WORDS, *letters, *("".join(pair) for pair in MERGES), *gaps]
    numbers = {word: place for place, word in enumerate(vocabulary)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, MERGES, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", numbers["<s>"])])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **roles}))
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def sampler(folder: Path) -> ForeignSampler:
    opened = open_sampler(folder)
    assert isinstance(opened, ForeignSampler)
    return opened


@pytest.fixture(scope="module")
def foreign(sampler: ForeignSampler) -> ForeignModel:
    return sampler._foreign


def ids_of(foreign: ForeignModel, *words: str) -> list[int]:
    found: list[int] = foreign.tokenizer.convert_tokens_to_ids(list(words))
    return found


def test_a_prompt_has_what_the_tokenizer_puts_in_front(sampler: ForeignSampler, foreign: ForeignModel) -> None:
    first = ids_of(foreign, "<s>")
    assert foreign.front == first
    prompt = Prompt("a", "def f():\n", new_tokens=4)
    assert sampler._encode(prompt).ids == [*first, *foreign.encode("def f():\n")]
    cut = sampler._encode(replace(prompt, prefix="x = 1\n" * 60))
    assert cut.truncated
    assert cut.ids == [*first, *foreign.encode("x = 1\n" * 60)[-(CONTEXT - 4 - 1) :]]
    assert sampler.begin("left-to-right") == "<s>"


def test_what_a_tokenizer_puts_behind_is_no_part_of_a_prompt(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "closing"
    shutil.copytree(folder, other)
    told = json.loads((other / "tokenizer.json").read_text())
    closing = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    told["post_processor"]["single"].append(closing)
    told["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    (other / "tokenizer.json").write_text(json.dumps(told))
    foreign = ForeignModel(other)
    assert foreign.tokenizer("a")["input_ids"][-1] == 2
    assert foreign.prompt("a") == [1, *foreign.encode("a")]


def test_a_completion_keeps_its_first_space(foreign: ForeignModel) -> None:
    tokens = ids_of(foreign, "▁▁▁▁", "r", "<0xE4>", "<0xB8>", "<0x96>", "</s>")
    assert foreign.tokenizer.decode(tokens[:2]) == "   r"  # what the library makes of them alone
    assert foreign._bytes(np.array(tokens)) == "    r世".encode()
    assert foreign._bytes(np.array([], np.int64)) == b""


def test_gaps_are_asked_for_in_the_familys_own_format(sampler: ForeignSampler, foreign: ForeignModel) -> None:
    assert sampler.fills_gaps()
    before, after = foreign.encode("def f():\n"), foreign.encode("    return x\n")
    prompt = Prompt("a", "def f():\n", "    return x\n", "psm", new_tokens=4)
    first, pre, suf, mid = ids_of(foreign, "<s>", *GAPS[:3])
    assert sampler._encode(prompt).ids == [first, pre, *before, suf, *after, mid]
    assert sampler._encode(replace(prompt, mode="spm")).ids == [first, pre, suf, *after, mid, *before]
    assert not sampler._encode(prompt).truncated
    assert sampler._encode(replace(prompt, prefix="x = 1\n" * 60)).truncated
    assert set(ids_of(foreign, "<s>", "</s>", *GAPS)) <= set(foreign.ends.tolist())


def test_a_family_that_leaves_the_beginning_to_its_tokenizer_gets_it_before_gaps_too(tmp_path: Path) -> None:
    sampler = open_sampler(llama(tmp_path / "deepseek", DEEPSEEK))
    assert isinstance(sampler, ForeignSampler)
    foreign = sampler._foreign
    first, begin, hole, end = ids_of(foreign, "<s>", *DEEPSEEK)
    prompt = Prompt("a", "x = ", "\n", "psm", new_tokens=4)
    assert sampler._encode(prompt).ids == [first, begin, *foreign.encode("x = "), hole, *foreign.encode("\n"), end]
    assert not sampler._encode(prompt).truncated
    assert sampler.begin("psm") == "<s>"
    with pytest.raises(UserError, match="deepseek-coder was not trained for the order 'spm'"):
        sampler._encode(replace(prompt, mode="spm"))


def test_bits_count_every_token_that_reaches_into_the_second_text(
    sampler: ForeignSampler, foreign: ForeignModel
) -> None:
    """Encoded together: the line break of the prompt and the indentation of the solution are one token."""
    first, second = "def f():\n", "    return 世\n"
    ids = foreign.encode(first + second)
    (joint,) = ids_of(foreign, "\n▁▁▁▁")
    place = ids.index(joint)
    assert foreign.split(first, second) == (ids[:place], ids[place:])
    assert foreign.split("", second) == ([], foreign.encode(second))
    assert foreign.split(first, "") == (foreign.encode(first), [])
    whole = torch.tensor([[1, *ids]])
    with torch.no_grad():
        log = torch.log_softmax(foreign.model(whole).logits[0, :-1].double(), -1)
    expected = -log[torch.arange(place, len(ids)), whole[0, place + 1 :]].sum().item() / np.log(2)
    assert sampler.bits([(first, second)]) == pytest.approx([expected], rel=1e-4)


def test_a_tokenizer_that_changes_a_solution_leaves_its_suite_without_bits(
    folder: Path, sampler: ForeignSampler, tmp_path: Path
) -> None:
    """The others alone would be another measure than other models'; the record counts what was changed."""
    problems = load_suite("starter").problems[:3]
    found, changed = _gold_bits(sampler, problems, Reporter(quiet=True))
    assert found is not None
    assert changed == 0
    lossy = shutil.copytree(folder, tmp_path / "lossy")
    described = json.loads((lossy / "tokenizer.json").read_text())
    shorter = {"type": "Replace", "pattern": {"String": problems[1].canonical_solution.strip()}, "content": "pass"}
    described["normalizer"]["normalizers"].insert(0, shorter)
    (lossy / "tokenizer.json").write_text(json.dumps(described))
    assert _gold_bits(open_sampler(lossy), problems, Reporter(quiet=True)) == (None, 1)


def test_missing_weights_are_not_drawn_at_random(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "holed"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no weights for model.layers.1.mlp.up_proj.weight \(1 tensors"):
        open_sampler(other)
