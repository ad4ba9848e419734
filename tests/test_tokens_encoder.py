"""The encoder beside the `tokenizers` library: the same ids for everything that both can read."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import sysconfig
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import training_fixtures as shared
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from kringle.tokens import encoder as module
from kringle.tokens.character_classes import class_table
from kringle.tokens.encoder import Encoder
from kringle.tokens.pretokens import next_border
from kringle.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, byte_of_character, train_tokenizer


@functools.cache
def library_files() -> tuple[str, ...]:
    """Python's own library, a few megabytes of real code."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return tuple(file.read_text(encoding="utf-8") for file in files if file.stat().st_size)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[tokenizers.Tokenizer, Encoder]:
    """The library's tokenizer and our encoder of the same file, with a vocabulary learnt from real code."""
    folder = tmp_path_factory.mktemp("tokenizer")
    odd = ["naïve Straße x²³ ½ Ⅷ 漢字 🙂🙂 \u00a0\u2003\u3000 '\u2019s I'll we've " * 9]
    train_tokenizer([*library_files()[:60], *odd], 4096, folder)
    return load(folder / "tokenizer.json")


def load(file: Path) -> tuple[tokenizers.Tokenizer, Encoder]:
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.encode_special_tokens = True
    ours = Encoder.read(file.read_text(encoding="utf-8"), byte_of_character())
    assert ours is not None
    return backend, ours


def expected(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)


def test_every_file_of_the_library(pair: tuple[tokenizers.Tokenizer, Encoder]) -> None:
    backend, ours = pair
    for text in library_files()[60:120]:  # all of them, and everything else here, in benchmarks/evidence/encoder.py
        assert ours.encode(text.encode()).tolist() == expected(backend, text)


pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.text(" \t\n\r\x0b\u00a0\u2028\u3000", max_size=6),
    st.text("'stremvldSTREx 1٣²Ⅷ", max_size=8),
    st.sampled_from([*SPECIAL_TOKENS, "<fim", "|>", "\ufeff", "\ufffd", "\U0010ffff", "\u0558"]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces, max_size=8).map("".join))
@example("  1")
@example(" \n 'll")
@example("x  'S's'sss  12  ")
def test_any_text(pair: tuple[tokenizers.Tokenizer, Encoder], text: str) -> None:
    backend, ours = pair
    assert ours.encode(text.encode()).tolist() == expected(backend, text)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(pair: tuple[tokenizers.Tokenizer, Encoder], data: bytes) -> None:
    """What is no UTF-8 keeps its bytes, and is cut where the text with U+FFFD in its place is cut."""
    backend, ours = pair
    ids = ours.encode(data)
    table = {id: token for token, id in backend.get_vocab(with_added_tokens=False).items()}
    byte_of = byte_of_character()
    assert bytes(byte_of[c] for id in ids.tolist() for c in table[id]) == data
    replaced = data.decode("utf-8", "replace")
    assert ours.encode(replaced.encode()).tolist() == expected(backend, replaced)
    kinds = cut(data)
    assert [piece.decode("utf-8", "replace") for piece in kinds] == [p.decode() for p in cut(replaced.encode())]


def cut(data: bytes) -> list[bytes]:
    array, classes = np.frombuffer(data, dtype=np.uint8), class_table()
    borders = [0]
    while borders[-1] < len(data):
        borders.append(next_border(array, borders[-1], len(data), classes))
    return [data[a:b] for a, b in pairwise(borders)]


def test_the_class_of_every_character_is_the_librarys() -> None:
    """Texts with every code point after a letter and after a symbol, cut by both."""
    theirs = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    # Characters are assigned in planes 0 to 3 and 14; of what is empty or private, a sample.
    points = [c for c in [*range(1, 0x34000), *range(0x34000, 0x110000, 61)] if not 0xD800 <= c < 0xE000]
    for start in range(0, len(points), 1 << 11):
        text = "".join(f"a{chr(c)}!{chr(c)} " for c in points[start : start + (1 << 11)])
        ends = [end for _, (_, end) in theirs.pre_tokenize_str(text)]
        lengths = np.cumsum([len(piece.decode()) for piece in cut(text.encode())])
        wrong = sorted(set(ends) ^ set(lengths.tolist()))
        assert not wrong, f"another Unicode version, first seen at {text[max(0, wrong[0] - 3) : wrong[0] + 3]!r}"


@pytest.mark.parametrize("text", ["a", " ", "🙂", "ab", "\n", "=", "ä\u00a0", "'", "\x00", "a1", "x\ufffd"])
def test_a_megabyte_of_one_thing(pair: tuple[tokenizers.Tokenizer, Encoder], text: str) -> None:
    backend, ours = pair
    long = text * (200_000 // len(text.encode()))
    assert ours.encode(long.encode()).tolist() == expected(backend, long)


def test_long_words_of_random_letters(pair: tuple[tokenizers.Tokenizer, Encoder]) -> None:
    backend, ours = pair
    chance = random.Random(5)
    for length in (47, 48, 49, 63, 64, 65, 66, 500, 30_000):
        for alphabet in ("ab", "etaoinshr", "_-=+/*", "日本語中文字"):
            text = "".join(chance.choices(alphabet, k=length))
            assert ours.encode(text.encode()).tolist() == expected(backend, text)


def test_merges_that_make_a_token_twice_and_merges_of_lower_rank_made_late(tmp_path: Path) -> None:
    """Training never writes such files, but they may be loaded: `abc` from a + bc and from ab + c, rank turned over."""
    shared.tokenizer().save(tmp_path, 32)
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    letters = ["a", "b", "c", "d"]
    made = ["ab", "bc", "abc", "cd", "abcd", "aa", "aaaa"]
    vocab = {t: i for t, i in described["model"]["vocab"].items() if len(t) == 1}
    vocab |= {t: 256 + i for i, t in enumerate(made)}
    merges = ["a b", "abc d", "a bc", "ab c", "aa aa", "b c", "a a", "c d", "a b", "ab cd"]  # one of them twice
    described["model"] |= {"vocab": vocab, "merges": [m.split() for m in merges]}
    for i, token in enumerate(described["added_tokens"]):
        token["id"] = 256 + len(made) + i
    file.write_text(json.dumps(described), encoding="utf-8")
    backend, ours = load(file)
    chance = random.Random(2)
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.choice([3, 7, 20, 90, 200])))
        assert ours.encode(text.encode()).tolist() == expected(backend, text)


def test_the_table_of_known_pretokens_fills_up_and_starts_afresh(pair: tuple[tokenizers.Tokenizer, Encoder]) -> None:
    backend, ours = pair
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnop", k=9)) for _ in range(200_000)]
    assert len(words) > module.SLOTS // 2
    for start in range(0, len(words), 20_000):
        text = " ".join(words[start : start + 20_000] + words[:1000])
        assert ours.encode(text.encode()).tolist() == expected(backend, text)


def test_offsets_may_begin_anywhere_and_must_rise(pair: tuple[tokenizers.Tokenizer, Encoder]) -> None:
    _, ours = pair
    data = np.frombuffer(b"skip one  two", dtype=np.uint8)
    ids, ends = ours.encode_many(data, np.array([4, 8, 8, 13], dtype=np.int64))
    assert ids.tolist() == [*ours.encode(b" one").tolist(), *ours.encode(b"  two").tolist()]
    assert ends.tolist() == [0, len(ours.encode(b" one")), len(ours.encode(b" one")), len(ids)]
    for bad in ([], [0, 14], [5, 3], [-1, 3]):
        with pytest.raises(ValueError, match="offsets"):
            ours.encode_many(data, np.array(bad, dtype=np.int64))


CHANGES = [
    {"normalizer": {"type": "NFC"}},
    {"pre_tokenizer": None},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}},
    {"added_tokens": [{"id": 9, "content": "x", "special": False}]},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_tokenizer_of_another_form_is_left_to_the_library(tmp_path: Path, change: dict[str, object]) -> None:
    shared.tokenizer().save(tmp_path, 32)
    described = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert Encoder.read(json.dumps(described), byte_of_character()) is not None
    assert Encoder.read(json.dumps(described | change), byte_of_character()) is None


def test_a_foreign_tokenizer_encodes_with_the_library(tmp_path: Path) -> None:
    shared.tokenizer().save(tmp_path, 32)
    file = tmp_path / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described["pre_tokenizer"] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
    }  # fmt: skip  # digits are not apart: GPT-2's form
    file.write_text(json.dumps(described), encoding="utf-8")
    foreign = Tokenizer.load(tmp_path)
    assert foreign.encoder is None
    texts = ["return 2024", "", "é"]
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.encode_special_tokens = True
    assert [ids.tolist() for ids in foreign.encode_batch(texts)] == [expected(backend, t) for t in texts]
    assert foreign.encode("return 2024") == expected(backend, "return 2024")


FUZZ = """
import random, numpy as np, training_fixtures as shared
from kringle.tokens.encoder import Encoder
ours = shared.tokenizer().encoder
chance = random.Random(11)
for n in list(range(0, 9)) * 40 + [47, 48, 49, 63, 64, 65, 200, 3000]:
    for alphabet in (range(256), b" 'sell\\n1a", b"\\xe2\\x82\\xac\\xf0\\x9f\\x99\\x82", b"ab"):
        data = bytes(chance.choices(alphabet, k=n))
        ids = ours.encode(data)
        assert shared.tokenizer().decode_bytes(ids.tolist()) == data
print("ok")
"""


def test_no_access_out_of_bounds(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FUZZ], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "ok\n", done.stderr
