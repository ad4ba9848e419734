"""The attribution index finds every copy, against a search by definition; and says where it comes from."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_fixtures import _Author

from kringle.attribution.building import build
from kringle.attribution.index import AttributionIndex, Copy
from kringle.attribution.opened import described, public_url
from kringle.attribution.sources import Source
from kringle.attribution.streaming import EVERY, TextFollower
from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer, train_tokenizer


def corpus() -> list[str]:
    author = _Author("attribution")
    texts = [author.python(author.random.randrange(1, 8)) for _ in range(40)]
    texts += [author.javascript(author.random.randrange(1, 8)) for _ in range(20)]
    texts += [
        "",
        "x = 1\n",
        "π = 3.14159  # häufig gebraucht, nicht geändert – wie überall sonst auch in dieser Datei\n" * 3,
    ]
    texts += [texts[0] * 2]  # a document that holds another twice
    return texts


TEXTS = corpus()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(TEXTS, 600, tmp_path_factory.mktemp("tokenizer"))


def indexed(folder: Path, texts: list[str], tokenizer: Tokenizer, only: list[int] | None = None) -> AttributionIndex:
    documents = (
        (f"{i:040x}", "python", len(text.encode()), np.array(tokenizer.encode(text), dtype=np.int64))
        for i, text in enumerate(texts)
    )
    store = TokenStore.write(
        folder / "store", documents, vocab_size=tokenizer.specials.end_of_text, tokenizer=tokenizer.checksum
    )
    rows: list[dict[str, Any]] = [
        {
            "number": i,
            "id": f"{i:040x}",
            "repo": f"owner{i % 3}/repo{i % 7}",
            "path": f"src/file{i}.py",
            "language": "python",
            "licenses": ["MIT"],
            "revision": "abc",
        }
        for i in (range(len(texts)) if only is None else only)
    ]
    build(store, tokenizer, rows, folder / "index")
    return AttributionIndex(folder / "index", store, tokenizer)


@pytest.fixture(scope="module")
def index(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> AttributionIndex:
    return indexed(tmp_path_factory.mktemp("attribution"), TEXTS, tokenizer)


def covered(copies: list[Copy]) -> set[int]:
    return {i for copy in copies for i in range(copy.start, copy.end)}


def by_definition(text: str, texts: list[str], length: int = 50) -> set[int]:
    """Characters of `text` that lie in a stretch of `length` or more that occurs in one of `texts`."""
    inside: set[int] = set()
    for start in range(len(text) - length + 1):
        if any(text[start : start + length] in other for other in texts):
            inside.update(range(start, start + length))
    return inside


def test_every_planted_copy_is_found_and_leads_to_its_bytes(index: AttributionIndex) -> None:
    draw = random.Random(0)
    for _ in range(1000):
        text = draw.choice([text for text in TEXTS if len(text) >= 50])
        start = draw.randrange(len(text) - 49)
        piece = text[start : start + draw.randrange(50, 200)]
        before, after = draw.choice(["", "qqq ", "\n\n###"]), draw.choice(["", "zzz", " \t!"])
        copies = [copy for copy in index.find(before + piece + after) if copy.kind == "exact"]
        assert set(range(len(before), len(before) + len(piece))) <= covered(copies), piece
        for copy in copies:
            for place in copy.places:
                found = TEXTS[place.document].encode()[place.start : place.end].decode(errors="ignore")
                assert (before + piece + after)[copy.start : copy.end] in found


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_exact_copies_are_those_of_the_definition(index: AttributionIndex, data: st.DataObject) -> None:
    pieces = []
    for _ in range(data.draw(st.integers(0, 4))):
        text = data.draw(st.sampled_from(TEXTS))
        start = data.draw(st.integers(0, max(0, len(text) - 1)))
        pieces.append(text[start : start + data.draw(st.integers(0, 120))])
        pieces.append(data.draw(st.text(max_size=12)))
    text = "".join(pieces)
    copies = [copy for copy in index.find(text) if copy.kind == "exact"]
    assert covered(copies) == by_definition(text, TEXTS)
    assert all(copy.end - copy.start >= 50 for copy in copies)
    assert not any(a != b and a.start <= b.start and b.end <= a.end for a in copies for b in copies)


def longest_by_definition(text: str, texts: list[str], length: int = 50) -> set[tuple[int, int]]:
    """Stretches of `length` or more that occur in one of `texts` and are part of no longer one."""
    whole = "\0".join(texts)
    found, reach = set(), 0
    for start in range(len(text) - length + 1):
        if text[start : start + length] not in whole:
            continue
        end = max(start + length, reach)
        while end < len(text) and text[start : end + 1] in whole:
            end += 1
        if end > reach and text[start:end] in whole:
            found.add((start, end))
            reach = end
    return found


def repetitive(draw: random.Random) -> list[str]:
    """Texts out of few pieces: rules of dashes, tables of numbers, headers; every seed in them is a frequent one."""
    pieces = ["-" * 78 + "\n", "#" + "-" * 40 + "\n", "0, 0, 0, 0, 0, 0, 0, 0,\n" * 6, "1, 0, 2, 0, 0,\n" * 3, "=" * 25]
    pieces += [f"# Section {n}: what the {draw.choice(['first', 'second'])} of them does\n" for n in range(4)]
    return ["".join(draw.choice(pieces) for _ in range(draw.randrange(4, 40))) for _ in range(400)]


def test_the_longest_copies_are_found_where_every_seed_is_frequent(tokenizer: Tokenizer, tmp_path: Path) -> None:
    draw = random.Random(5)
    texts = repetitive(draw)
    index = indexed(tmp_path, texts, tokenizer)
    assert len(np.load(tmp_path / "index/exact/heavy.npy")) >= 2
    for _ in range(60):
        pieces = []
        for _ in range(draw.randrange(1, 4)):
            text = draw.choice(texts)
            start = draw.randrange(len(text))
            pieces.append(text[start : start + draw.randrange(20, 500)] + draw.choice(["", "-", "x", "0, "]))
        text = "".join(pieces)
        copies = [copy for copy in index.find(text) if copy.kind == "exact"]
        assert covered(copies) == by_definition(text, texts)
        assert {(copy.start, copy.end) for copy in copies} == longest_by_definition(text, texts), text
        for copy in copies:
            for place in copy.places:
                assert texts[place.document][place.start : place.end] == text[copy.start : copy.end]


def test_a_text_in_the_making_is_followed(index: AttributionIndex) -> None:
    draw = random.Random(2)
    for _ in range(40):
        text = "".join(
            draw.choice(TEXTS)[draw.randrange(200) :][: draw.randrange(300)] + draw.choice(["", "???", "\n\n  "])
            for _ in range(4)
        )
        follower, told, at = TextFollower(index), {}, 0
        while at < len(text):
            size = draw.randrange(1, 12)
            for copy in follower.feed(text[at : at + size]):
                assert text[copy.start : copy.end] in text[: at + size]
                told[copy.start, copy.kind] = copy
            at += size
        final = follower.finish()
        assert [(c.start, c.end, c.kind) for c in final] == [(c.start, c.end, c.kind) for c in index.find(text)]
        late = {(c.start, c.kind) for c in final if c.end > len(text) - EVERY}
        assert {(c.start, c.kind) for c in final} - late <= told.keys()


def test_a_source_tells_line_and_address(index: AttributionIndex) -> None:
    text = TEXTS[4]
    for start in (0, text.index("\n") + 1, len(text) // 2):
        (copy,) = [copy for copy in index.find(text[start : start + 120]) if copy.kind == "exact"]
        told = described(index, copy)
        (source,) = told["sources"]
        assert source["line"] == text.count("\n", 0, start) + 1
        assert (source["repository"], source["path"], source["licence"]) == ("owner1/repo4", "src/file4.py", "MIT")
        assert "url" not in source  # nobody knows where it is from
    known = Source("0" * 40, "own er/repo", "a dir/x.py", "python", ("MIT",), "abc", "stack")
    assert public_url(known, 3) == "https://github.com/own%20er/repo/blob/abc/a%20dir/x.py#L3"
    assert public_url(replace(known, repo="repo")) is None


def test_a_copy_with_other_white_space_is_found_apart_from_exact_ones(index: AttributionIndex) -> None:
    lines = [line for line in TEXTS[3].splitlines() if line.strip()][5:12]
    text = "\n\n".join("\t\t" + line.strip().replace(" = ", "=") for line in lines)
    copies = index.find(text)
    assert any(copy.kind == "white space" and copy.end - copy.start > 200 for copy in copies)
    for copy in copies:
        here = "".join(text[copy.start : copy.end].split())
        for place in copy.places:
            assert "".join(TEXTS[place.document].encode()[place.start : place.end].decode().split()) == here
    same = index.find(TEXTS[3])
    assert [(copy.start, copy.end, copy.kind) for copy in same] == [(0, len(TEXTS[3]), "exact")]


def test_nothing_is_found_in_text_that_is_nowhere(index: AttributionIndex) -> None:
    assert index.find("") == []
    assert index.find("import os\n") == []
    assert index.find("".join(random.Random(1).choices("abcdefgh ", k=5000))) == []
    assert index.find("\udcff" * 100) == []


def test_what_was_not_trained_on_is_not_in_the_index(tokenizer: Tokenizer, tmp_path: Path) -> None:
    index = indexed(tmp_path, TEXTS, tokenizer, only=[1, 5])
    assert len(index) == 2
    assert index.find(TEXTS[2]) == []
    (copy,) = index.find(TEXTS[5])
    assert [index.source(place.document).path for place in copy.places] == ["src/file5.py"]
    assert index.source(0).licenses == ("MIT",)


def test_a_stretch_that_stands_everywhere_is_found_and_costs_little(tokenizer: Tokenizer, tmp_path: Path) -> None:
    header = "# Licensed to everybody under terms that everybody knows, without any warranty at all.\n"
    index = indexed(tmp_path, [header + f"value = {i}\n" for i in range(3000)], tokenizer)
    (copy,) = index.find("x\n" + header + "y")
    assert copy.start in (1, 2)
    assert len(copy.places) == 8
    assert copy.more >= 8  # of 2,992


def test_repositories_are_found_by_name(index: AttributionIndex) -> None:
    assert {source.repo for source in index.sources.named("repository", "OWNER1/repo4")} == {"owner1/repo4"}
    assert len({source.repo for source in index.sources.named("owner", "owner0")}) >= 3
    assert list(index.sources.named("repository", "owner0")) == []
    assert [source.path for source in index.sources.named("path", "src/file5.py")] == ["src/file5.py"]
    assert len(list(index.sources.named("path", "src"))) == len(TEXTS)


def test_another_store_is_refused(index: AttributionIndex, tokenizer: Tokenizer, tmp_path: Path) -> None:
    indexed(tmp_path, TEXTS[:5], tokenizer)
    with pytest.raises(UserError, match="another store"):
        AttributionIndex(index.folder, TokenStore.open(tmp_path / "store"), tokenizer)
    with pytest.raises(UserError, match="no attribution index"):
        AttributionIndex(tmp_path / "nothing", TokenStore.open(tmp_path / "store"), tokenizer)


def test_an_index_of_nothing_finds_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    index = indexed(tmp_path, TEXTS, tokenizer, only=[])
    assert index.find(TEXTS[0]) == []
