from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_fixtures as shared

from kringle.data.table import write_documents
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.tokens import slices as stage
from kringle.tokens.encode import encode
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.workspace import ShardStore


def document(number: int, text: str) -> dict[str, Any]:
    return {
        "id": shared.document_id(text),
        "content": text,
        "path": f"f{number}.py",
        "repo": "r",
        "language": ("python", "java")[number % 2],
        "size": len(text.encode()),
        "licenses": ["MIT"],
        "stars": None,
        "source": "folder",
        "revision": "",
        "copies": [],
    }


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Two parts, the first with several row groups' worth of slices."""
    texts = [f"{text}# {i} \u00e9 <fim_prefix>\n" for i, text in enumerate(shared.texts() * 2)]
    documents = [document(i, text) for i, text in enumerate(texts)]
    folder = tmp_path / "documents"
    folder.mkdir()
    write_documents(folder / "part-00000.parquet", documents[:30])
    write_documents(folder / "part-00001.parquet", documents[30:])
    shared.tokenizer().save(tmp_path / "tokenizer", 32)
    return folder, documents


def run(tmp_path: Path, folder: Path, ids: list[str], out: str, workers: int = 1) -> tuple[TokenStore, dict[str, Any]]:
    shards = ShardStore(tmp_path / "shards", "salt")
    engine = Engine(workers)
    summary = encode(folder, ids, tmp_path / "tokenizer", tmp_path / out, shards, engine, Reporter(quiet=True))
    return TokenStore.open(tmp_path / out / "store"), summary


def test_the_store_holds_the_chosen_documents_in_their_order(
    tmp_path: Path, corpus: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_BYTES", 3000)
    folder, documents = corpus
    chosen = [d for i, d in enumerate(documents) if i % 5]
    store, summary = run(tmp_path, folder, [d["id"] for d in chosen], "out", workers=2)
    assert store.ids == [d["id"] for d in chosen]
    assert store.languages == [d["language"] for d in chosen]
    assert store.sizes.tolist() == [d["size"] for d in chosen]
    assert [shared.tokenizer().decode(store.document(i)) for i in range(len(store))] == [d["content"] for d in chosen]
    assert summary["documents"] == len(chosen)
    assert summary["tokens"] == len(store.tokens)
    assert summary["bytes"] == sum(d["size"] for d in chosen)
    assert summary["shards"] > 3
    assert store.tokens.dtype.name == summary["dtype"] == "uint16"
    store.verify()


def test_slicing_changes_nothing_and_a_rerun_encodes_nothing(
    tmp_path: Path, corpus: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, documents = corpus
    ids = [d["id"] for d in documents]
    whole, _ = run(tmp_path, folder, ids, "whole")
    made = {path.name for path in (tmp_path / "shards").iterdir()}
    again, _ = run(tmp_path, folder, ids, "again")
    assert {path.name for path in (tmp_path / "shards").iterdir()} == made
    monkeypatch.setattr(stage, "SHARD_BYTES", 1)
    sliced, summary = run(tmp_path, folder, ids[:6], "sliced")
    assert summary["shards"] == 6
    assert whole.checksum == again.checksum != sliced.checksum
    assert [sliced.document(i).tolist() for i in range(6)] == [whole.document(i).tolist() for i in range(6)]


def test_nothing_to_encode_is_one_line(tmp_path: Path, corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    with pytest.raises(UserError, match="no documents to encode"):
        run(tmp_path, corpus[0], [], "out")
    assert not (tmp_path / "out").exists()


def test_the_joined_store_is_the_one_written_from_all_documents(
    tmp_path: Path, corpus: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_BYTES", 3000)
    folder, documents = corpus
    joined, _ = run(tmp_path, folder, [d["id"] for d in documents], "out")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    rows = [(d["id"], d["language"], d["size"], np.array(tokenizer.encode(d["content"]))) for d in documents]
    TokenStore.write(tmp_path / "whole", iter(rows), vocab_size=tokenizer.text_size, tokenizer=tokenizer.checksum)
    names = sorted(path.name for path in joined.folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir())
    for name in names:
        assert (joined.folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("chosen", [[1, 0], [0, 0], [0, None], [None]])
def test_a_choice_that_is_no_subsequence_is_refused(
    tmp_path: Path, corpus: tuple[Path, list[dict[str, Any]]], chosen: list[int | None]
) -> None:
    folder, documents = corpus
    ids = ["0" * 40 if i is None else documents[i]["id"] for i in chosen]
    with pytest.raises(ValueError, match="is not among the documents, or not chosen in their order"):
        run(tmp_path, folder, ids, "out")
