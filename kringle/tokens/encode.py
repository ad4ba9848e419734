"""The encode stage: documents to a token store, in parallel, in the order of the documents.

A shard's result is kept under the hash of its document ids and the tokenizer, so a killed run loses only the shards in
flight, and a changed selection encodes only the shards it touches.
Does not cover: choosing documents (the caller names the ids) and training the tokenizer.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.tokens.join import join_stores
from kringle.tokens.slices import Slice, plan_slices, utf8
from kringle.tokens.store import Document, TokenStore
from kringle.tokens.tokenizer import Tokenizer, tokenizer_checksum
from kringle.workspace import ShardStore, Task


class _Work(NamedTuple):
    """A slice of the documents, and the tokenizer to encode it with."""

    slice: Slice
    tokenizer: Path
    checksum: str


@functools.lru_cache(maxsize=1)
def _loaded(tokenizer: Path, checksum: str) -> Tokenizer:
    """The tokenizer of a worker process, which keeps the pre-tokens that it has met from shard to shard."""
    return Tokenizer.load(tokenizer)


def encode(
    documents: Path,
    ids: Iterable[str],
    tokenizer: Path,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> dict[str, Any]:
    """Encode the documents named by `ids`, in their order, into the store `out/store`; counts come back.

    `documents` is a folder of `part-*.parquet` with the columns id, content, language and size, and `content_id` where
    the content was redacted; both ids are hashes of contents. UserError when there is nothing to encode.
    """
    checksum = tokenizer_checksum(tokenizer)
    slices = plan_slices(documents, ids)
    tasks = [Task(s.name, _fingerprint(checksum, s), _Work(s, tokenizer, checksum)) for s in slices]
    sizes = [s.size for s in slices]
    if not tasks:
        raise UserError("no documents to encode", where=str(documents), hint="loosen the filters or add sources")
    with progress.task("encode", sum(sizes) / 1e6, unit="MB") as counter:
        folders = shards.map(engine, encode_slice, tasks, on_done=lambda i: counter.advance(sizes[i] / 1e6))
    store = join_stores(out / "store", [folder / "store" for folder in folders])
    size = int(store.sizes.sum())
    return {
        "documents": len(store),
        "bytes": size,
        "tokens": len(store.tokens),
        "bytes_per_token": round(size / max(1, len(store.tokens)), 4),
        "dtype": store.tokens.dtype.name,
        "shards": len(tasks),
    }


def _fingerprint(checksum: str, slice: Slice) -> str:
    return hashlib.sha256(f"{checksum}\n{slice.fingerprint}".encode()).hexdigest()


def encode_slice(work: _Work, folder: Path) -> dict[str, Any]:
    """One shard's work, in a worker process: read the rows, encode, write `folder/store`."""
    trained = _loaded(work.tokenizer, work.checksum)
    store = TokenStore.write(
        folder / "store",
        _encoded(work.slice, trained),
        vocab_size=trained.text_size,
        tokenizer=trained.checksum,
    )
    return {"documents": len(store), "tokens": len(store.tokens)}


def _encoded(slice: Slice, tokenizer: Tokenizer) -> Iterator[Document]:
    for rows in slice.read(["id", "language", "size", "content"]):
        ids, languages, sizes = (rows[name].to_pylist() for name in ("id", "language", "size"))
        tokens, ends = tokenizer.encode_utf8(*utf8(rows["content"]))
        yield from zip(ids, languages, sizes, np.split(tokens, ends[1:-1]), strict=True)
