"""Learning merges beside the library's trainer, and the tokenizer stage over shards."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import training_fixtures as shared
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from kringle.data.table import write_documents
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.tokens import slices
from kringle.tokens.tokenizer import SPECIAL_TOKENS, train_tokenizer
from kringle.tokens.vocabulary import train_on_documents
from kringle.workspace import ShardStore


def library(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """The `tokenizers` library's own training, told what the tokenizer is: the oracle."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def same_file(texts: list[str], vocab_size: int, tmp_path: Path) -> None:
    """Ours and the library's, byte for byte."""
    theirs = library(texts, vocab_size)
    theirs.save(str(tmp_path / "theirs.json"))
    train_tokenizer(texts, theirs.get_vocab_size(with_added_tokens=False), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()


@pytest.mark.parametrize("vocab_size", [257, 300, 1000, 3000])
def test_real_code(tmp_path: Path, vocab_size: int) -> None:
    texts = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (random, pytest, tokenizers)]
    same_file([*texts, *shared.texts(), "漢字 🙂 naïve <fim_prefix> 2024 \u2003x"], vocab_size, tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab ='1\n", max_size=60), min_size=1, max_size=12), st.integers(257, 330))
def test_ties_and_repetitions(tmp_path_factory: pytest.TempPathFactory, texts: list[str], vocab_size: int) -> None:
    """Few letters, short words, everything equally often: what breaks ties decides every merge."""
    theirs = library(texts, vocab_size)
    if theirs.get_vocab_size(with_added_tokens=False) > 256:
        same_file(texts, vocab_size, tmp_path_factory.mktemp("ties"))


def documents(texts: list[str]) -> list[dict[str, Any]]:
    fixed = {"language": "python", "licenses": [], "stars": None, "source": "s", "revision": "", "copies": []}
    return [
        {"id": shared.document_id(t), "content": t, "path": f"{i}", "repo": "r", "size": len(t.encode()), **fixed}
        for i, t in enumerate(texts)
    ]


def test_the_stage_depends_on_the_documents_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(dict.fromkeys(shared.texts()))
    rows = documents([*texts, "held out, never counted: zzzzqqqq zzzzqqqq zzzzqqqq"])
    ids = [row["id"] for row in rows[:-1]]
    train_tokenizer(texts, 300, tmp_path / "whole")
    for name, cut, size in (("a", 7, slices.SHARD_BYTES), ("b", 13, 1)):
        monkeypatch.setattr(slices, "SHARD_BYTES", size)
        (tmp_path / name / "documents").mkdir(parents=True)
        for number, part in enumerate((rows[:cut], rows[cut:])):
            write_documents(tmp_path / name / "documents" / f"part-0000{number}.parquet", part)
        store = ShardStore(tmp_path / name / "shards", "salt")
        summary = train_on_documents(
            tmp_path / name / "documents", ids, 300, tmp_path / name, store, Engine(2), Reporter(quiet=True)
        )
        assert summary["vocab_size"] == 305
        assert summary["bytes"] == sum(len(text.encode()) for text in texts)
        expected = (tmp_path / "whole" / "tokenizer.json").read_bytes()
        assert (tmp_path / name / "tokenizer.json").read_bytes() == expected


def test_no_documents_is_one_line(tmp_path: Path) -> None:
    write_documents(tmp_path / "part-00000.parquet", documents(["x"]))
    with pytest.raises(UserError, match="no documents to train a tokenizer on"):
        train_on_documents(tmp_path, [], 300, tmp_path, ShardStore(tmp_path / "s", ""), Engine(1), Reporter(quiet=True))
