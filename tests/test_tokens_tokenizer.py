from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import training_fixtures as shared
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.errors import UserError
from kringle.tokens.tokenizer import SPECIAL_TOKENS, Specials, Tokenizer, train_tokenizer

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def test_specials_follow_the_vocabulary_in_the_papers_order() -> None:
    assert SPECIAL_TOKENS == ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
    assert Specials.after(49_152) == Specials(49_152, 49_153, 49_154, 49_155, 49_156)
    assert shared.tokenizer().specials == Specials.after(shared.VOCAB_SIZE)
    assert shared.tokenizer().vocab_size == shared.VOCAB_SIZE + 5


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_decoding_gives_back_any_text(text: str) -> None:
    tokenizer = shared.tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert [tokenizer.token_bytes[i] for i in ids] == [tokenizer.decode_bytes([i]) for i in ids]


@settings(max_examples=50, deadline=None)
@given(st.lists(any_text, max_size=5))
def test_a_batch_encodes_like_its_texts(texts: list[str]) -> None:
    tokenizer = shared.tokenizer()
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(t) for t in texts]


def test_every_byte_is_a_token() -> None:
    assert {bytes([b]) for b in range(256)} <= set(shared.tokenizer().token_bytes)


@pytest.mark.parametrize("text", [*SPECIAL_TOKENS, "a <fim_middle>\n<|endoftext|><fim_prefix>"])
def test_special_token_text_is_plain_text(text: str) -> None:
    tokenizer = shared.tokenizer()
    ids = tokenizer.encode(text)
    assert max(ids) < tokenizer.specials.end_of_text
    assert tokenizer.encode_batch([text])[0].tolist() == ids
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone_and_a_space_leads_a_word() -> None:
    tokenizer = shared.tokenizer()
    pieces = [tokenizer.token_bytes[i] for i in tokenizer.encode("    return 2024")]
    assert pieces[-4:] == [b"2", b"0", b"2", b"4"]
    assert b" return" in pieces


def test_specials_and_padded_rows_have_no_bytes() -> None:
    tokenizer = shared.tokenizer()
    ids = tokenizer.encode("ab")
    assert tokenizer.decode_bytes([tokenizer.specials.fim_prefix, *ids, tokenizer.specials.end_of_text, 383]) == b"ab"


def test_training_ignores_order_and_process(tmp_path: Path) -> None:
    first = train_tokenizer(iter(shared.texts()), 300, tmp_path / "a")
    shuffled = list(shared.texts())
    random.Random(1).shuffle(shuffled)
    train_tokenizer(shuffled, 300, tmp_path / "b")
    code = (
        "import sys, pathlib, training_fixtures as s; from kringle.tokens.tokenizer import train_tokenizer as t;"
        "t(s.texts(), 300, pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True, cwd=Path(__file__).parent)
    files = {(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"}
    assert len(files) == 1
    assert first.checksum == Tokenizer.load(tmp_path / "c").checksum


def test_a_corpus_too_small_for_the_vocabulary_is_refused_with_what_it_fills(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"only \d+ tokens, 5000 were asked for; use at most \d+"):
        train_tokenizer(["abc abd abc\n"], 5000, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_vocabulary_without_merges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size.*must exceed 256"):
        train_tokenizer(["abc"], 256, tmp_path)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_other_specials_is_refused(tmp_path: Path) -> None:
    shared.tokenizer().save(tmp_path, 32)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<fim_middle>", "<fim_centre>"))
    with pytest.raises(UserError, match="special tokens"):
        Tokenizer.load(tmp_path)


def test_transformers_loads_the_saved_files(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = shared.tokenizer()
    tokenizer.save(tmp_path, context=32)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == theirs.bos_token_id == theirs.unk_token_id == tokenizer.specials.end_of_text
    assert theirs.pad_token_id == tokenizer.specials.fim_pad
    assert theirs.model_max_length == 32
    assert len(theirs) == tokenizer.vocab_size
    text = shared.texts()[0]
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    prompt = theirs("<fim_prefix>a<fim_suffix>b<fim_middle>")["input_ids"]
    s = tokenizer.specials
    assert prompt == [s.fim_prefix, *tokenizer.encode("a"), s.fim_suffix, *tokenizer.encode("b"), s.fim_middle]
    assert theirs.decode(prompt, skip_special_tokens=True) == "ab"
    assert Tokenizer.load(tmp_path).encode(text) == tokenizer.encode(text)
