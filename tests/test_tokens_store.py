from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.errors import UserError
from kringle.tokens.join import join_stores
from kringle.tokens.store import FILES, TokenStore, width_for

Rows = list[tuple[str, str, int, np.ndarray]]


def rows(lists: list[list[int]]) -> Rows:
    return [(f"{i:040x}", ("python", "java")[i % 2], 3 * len(x), np.array(x)) for i, x in enumerate(lists)]


@settings(max_examples=30, deadline=None)
@given(lists=st.lists(st.lists(st.integers(0, 70_000), max_size=20), max_size=12))
def test_a_store_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]]) -> None:
    written = rows(lists)
    store = TokenStore.write(tmp_path_factory.mktemp("s") / "store", iter(written))
    assert len(store) == len(written)
    assert store.ids == [r[0] for r in written]
    assert store.languages == [r[1] for r in written]
    assert store.sizes.tolist() == [r[2] for r in written]
    assert [store.document(i).tolist() for i in range(len(store))] == lists
    largest = max((t for x in lists for t in x), default=0)
    assert store.tokens.dtype == width_for(largest)
    store.verify()


def test_the_type_is_the_smallest_that_holds_the_vocabulary(tmp_path: Path) -> None:
    for vocab_size, name in ((256, "uint8"), (257, "uint16"), (1 << 16, "uint16"), ((1 << 16) + 1, "uint32")):
        store = TokenStore.write(tmp_path / str(vocab_size), rows([[1, 2]]), vocab_size=vocab_size)
        assert store.tokens.dtype.name == name
        assert store.vocab_size == vocab_size


def test_what_was_written_before_a_large_token_is_widened(tmp_path: Path) -> None:
    lists = [[255] * 1000, [256], [1 << 16], [3]]
    store = TokenStore.write(tmp_path / "store", rows(lists))
    assert [store.document(i).tolist() for i in range(4)] == lists


def test_equal_documents_give_an_equal_checksum_and_others_another(tmp_path: Path) -> None:
    a, b = (TokenStore.write(tmp_path / name, rows([[1, 2], [3]])) for name in "ab")
    c = TokenStore.write(tmp_path / "c", rows([[1, 2], [4]]))
    assert a.checksum == b.checksum != c.checksum


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, str, int, np.ndarray]]:
        yield rows([[1]])[0]
        raise RuntimeError("shard lost")

    with pytest.raises(RuntimeError, match="shard lost"):
        TokenStore.write(tmp_path / "store", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tokens", "message"), [([5, -1], "negative"), ([5, 300], "token 300")])
def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path, tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenStore.write(tmp_path / "store", rows([tokens]), vocab_size=300)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "hashes.npy", "sizes.npy", "languages.npy", "ids.bin"])
def test_a_truncated_or_missing_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    TokenStore.write(tmp_path / "store", rows([[1, 2, 3], [4]]))
    file = tmp_path / "store" / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"damaged: {name} has \d+ bytes instead of \d+; delete it"):
        TokenStore.open(tmp_path / "store")
    file.unlink()
    with pytest.raises(UserError, match=f"damaged: {name} has 0 bytes"):
        TokenStore.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["offsets.npy", "hashes.npy", "sizes.npy", "languages.npy", "ids.bin"])
def test_a_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    TokenStore.write(tmp_path / "store", rows([[1, 2, 3], [4]]))
    _change(tmp_path / "store" / name, -1)
    with pytest.raises(UserError, match=f"{name} does not match its checksum"):
        TokenStore.open(tmp_path / "store").verify()


def test_a_changed_token_is_found_and_its_document_named(tmp_path: Path) -> None:
    store = TokenStore.write(tmp_path / "store", rows([[1, 2, 3], [], [4], [5, 6]]))
    store.verify()
    _change(tmp_path / "store" / "tokens.bin", 3)
    with pytest.raises(UserError, match=f"the tokens of document {store.ids[2]} do not match their checksum;"):
        store.verify()
    _change(tmp_path / "store" / "tokens.bin", 0)
    with pytest.raises(UserError, match=f"document {store.ids[0]} do not match their checksum, nor those of 1 more"):
        store.verify()


def _change(file: Path, place: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)


def test_no_store_and_a_damaged_manifest_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token store here"):
        TokenStore.open(tmp_path / "nowhere")
    TokenStore.write(tmp_path / "store", rows([[1]]))
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(UserError, match=r"damaged: manifest\.json"):
        TokenStore.open(tmp_path / "store")


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 299), max_size=9)), max_size=5), min_size=1
    )
)
def test_parts_joined_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[str, list[int]]]]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    number = count()
    written = [
        [(f"id{next(number)}", language, len(tokens), np.array(tokens, dtype=np.int64)) for language, tokens in part]
        for part in parts
    ]
    for i, part in enumerate(written):
        TokenStore.write(folder / str(i), part, vocab_size=300, tokenizer="t")
    joined = join_stores(folder / "joined", [folder / str(i) for i in range(len(parts))])
    whole = TokenStore.write(folder / "whole", [d for part in written for d in part], vocab_size=300, tokenizer="t")
    for name in (*FILES, "manifest.json"):
        assert (joined.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    joined.verify()


def test_stores_of_different_tokenizers_are_not_joined(tmp_path: Path) -> None:
    TokenStore.write(tmp_path / "a", rows([[1]]), vocab_size=300, tokenizer="x")
    TokenStore.write(tmp_path / "b", rows([[1]]), vocab_size=301, tokenizer="y")
    with pytest.raises(ValueError, match=r"b differs from .*a in vocab_size, tokenizer"):
        join_stores(tmp_path / "c", [tmp_path / "a", tmp_path / "b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_damaged_part_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    for name in "ab":
        TokenStore.write(tmp_path / name, rows([[1, 2], [3]]), vocab_size=300)
    (tmp_path / "b" / "ids.bin").write_bytes((tmp_path / "b" / "ids.bin").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"b: token store is damaged: ids.bin has"):
        join_stores(tmp_path / "c", [tmp_path / "a", tmp_path / "b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
