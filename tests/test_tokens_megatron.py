from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import training_fixtures as shared

from kringle.tokens.megatron import write_megatron
from kringle.tokens.store import TokenStore


def read(prefix: Path) -> list[list[int]]:
    """The documents of an indexed data set, number by number, from the format's description."""
    index, data = (
        prefix.with_name(prefix.name + ".idx").read_bytes(),
        prefix.with_name(prefix.name + ".bin").read_bytes(),
    )
    assert index[:9] == b"MMIDIDX\0\0"
    version, code, sequences, boundaries = struct.unpack("<QBQQ", index[9:34])
    assert version == 1
    letter, size = {8: ("H", 2), 4: ("i", 4)}[code]
    at = 34
    lengths = struct.unpack(f"<{sequences}i", index[at : at + 4 * sequences])
    at += 4 * sequences
    starts = struct.unpack(f"<{sequences}q", index[at : at + 8 * sequences])
    at += 8 * sequences
    firsts = struct.unpack(f"<{boundaries}q", index[at : at + 8 * boundaries])
    assert at + 8 * boundaries == len(index)
    assert sum(lengths) * size == len(data)
    documents = []
    for a, b in itertools.pairwise(firsts):
        documents.append(
            [t for s in range(a, b) for t in struct.unpack_from(f"<{lengths[s]}{letter}", data, starts[s])]
        )
    return documents


@pytest.mark.parametrize(("vocabulary", "size"), [(325, 2), (65_499, 2), (65_500, 4)])
def test_what_megatron_would_read_is_every_document_and_its_end(tmp_path: Path, vocabulary: int, size: int) -> None:
    end = vocabulary - 5
    rng = np.random.Generator(np.random.Philox(key=3))
    lists = [rng.integers(0, min(end, 65_000), n) for n in (5, 0, 1, 700, 0, 33)]
    store = TokenStore.write(
        tmp_path / "store", ((f"id{i}", "python", 9, tokens) for i, tokens in enumerate(lists)), vocab_size=65_000
    )
    write_megatron(store, np.arange(len(store)), end, vocabulary, tmp_path / "out" / "code_document")
    assert read(tmp_path / "out" / "code_document") == [[*tokens.tolist(), end] for tokens in lists if len(tokens)]
    assert (tmp_path / "out" / "code_document.bin").stat().st_size == size * sum(len(t) + 1 for t in lists if len(t))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["code_document.bin", "code_document.idx"]


def test_an_empty_store_and_the_shared_corpus(tmp_path: Path) -> None:
    end = shared.tokenizer().specials.end_of_text
    write_megatron(shared.store(), np.arange(len(shared.store())), end, shared.tokenizer().vocab_size, tmp_path / "a")
    assert read(tmp_path / "a") == [[*ids, end] for ids in map(shared.tokenizer().encode, shared.texts())]
    empty = TokenStore.write(tmp_path / "empty", [])
    write_megatron(empty, np.arange(0), end, 325, tmp_path / "b")
    assert read(tmp_path / "b") == []
