"""The encode stage: documents to a token store, in parallel, in the order of the documents.

Rows are cut into shards of a few megabytes of text. A shard's result is kept under the hash of its document ids and the
tokenizer, so a killed run loses only the shards in flight, and a changed selection encodes only the shards it touches.
Does not cover: choosing documents (the caller names the ids) and training the tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.tokens.store import Document, TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.workspace import ShardStore, Task

SHARD_BYTES = 4 << 20  # of text: about two seconds of one core; small enough to share out, large enough to be worth it
TEXTS_AT_ONCE = 256


class _Slice(NamedTuple):
    """Rows of one row group of one part, and the tokenizer to encode them with."""

    part: Path
    row_group: int
    rows: list[int]
    tokenizer: Path


def encode(
    documents: Path,
    ids: Collection[str],
    tokenizer: Path,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> dict[str, Any]:
    """Encode the documents named by `ids` into the store `out/store`; a summary with counts comes back.

    `documents` is a folder of `part-*.parquet` with the columns id, content, language and size, and `content_id` where
    the content was redacted; both ids are hashes of contents. UserError when there is nothing to encode.
    """
    trained = Tokenizer.load(tokenizer)
    tasks, sizes = _plan(documents, set(ids), tokenizer, trained.checksum)
    if not tasks:
        raise UserError("no documents to encode", where=str(documents), hint="loosen the filters or add sources")
    with progress.task("encode", sum(sizes) / 1e6, unit="MB") as counter:
        folders = shards.map(engine, encode_slice, tasks, on_done=lambda i: counter.advance(sizes[i] / 1e6))
    store = TokenStore.write(
        out / "store", _joined(folders), vocab_size=trained.specials.end_of_text, tokenizer=trained.checksum
    )
    size = int(store.sizes.sum())
    return {
        "documents": len(store),
        "bytes": size,
        "tokens": len(store.tokens),
        "bytes_per_token": round(size / max(1, len(store.tokens)), 4),
        "dtype": store.tokens.dtype.name,
        "shards": len(tasks),
    }


def encode_slice(task: _Slice, folder: Path) -> dict[str, Any]:
    """One shard's work, in a worker process: read the rows, encode, write `folder/store`."""
    trained = Tokenizer.load(task.tokenizer)
    store = TokenStore.write(
        folder / "store",
        _encoded(task, trained),
        vocab_size=trained.specials.end_of_text,
        tokenizer=trained.checksum,
    )
    return {"documents": len(store), "tokens": len(store.tokens)}


def _plan(documents: Path, ids: set[str], tokenizer: Path, checksum: str) -> tuple[list[Task], list[int]]:
    """Tasks in document order with the bytes of text of each; reads ids and sizes only."""
    from kringle.data.table import document_shards, identity, iter_row_groups

    tasks: list[Task] = []
    sizes: list[int] = []
    for part in document_shards(documents):
        names = identity(part)  # what the content is called; a document is chosen by its id
        for number, group in enumerate(iter_row_groups(part, list(dict.fromkeys(["id", names, "size"])))):
            rows_of_group = zip(*(group[name].to_pylist() for name in ("id", names, "size")), strict=True)
            chosen = [(row, content, size) for row, (id, content, size) in enumerate(rows_of_group) if id in ids]
            for rows in _slices(chosen):
                digest = hashlib.sha256("\n".join([checksum, *(id for _, id, _ in rows)]).encode()).hexdigest()
                name = f"{part.name} row group {number}, rows {rows[0][0]} to {rows[-1][0]}"
                tasks.append(Task(name, digest, _Slice(part, number, [row for row, _, _ in rows], tokenizer)))
                sizes.append(sum(size for _, _, size in rows))
    return tasks, sizes


def _slices(rows: Sequence[tuple[int, str, int]]) -> Iterator[list[tuple[int, str, int]]]:
    """Consecutive rows (number, id of the content, bytes) in slices that end once they hold `SHARD_BYTES`."""
    part: list[tuple[int, str, int]] = []
    total = 0
    for row in rows:
        part.append(row)
        total += row[2]
        if total >= SHARD_BYTES:
            yield part
            part, total = [], 0
    if part:
        yield part


def _encoded(task: _Slice, tokenizer: Tokenizer) -> Iterator[Document]:
    import pyarrow.parquet as pq  # here alone: whoever only reads stores needs no pyarrow

    columns = ["id", "language", "size", "content"]
    with pq.ParquetFile(task.part, page_checksum_verification=True) as file:
        table = file.read_row_group(task.row_group, columns=columns, use_threads=False).take(task.rows)
    for start in range(0, table.num_rows, TEXTS_AT_ONCE):
        ids, languages, sizes, contents = (
            c.to_pylist() for c in table.slice(start, TEXTS_AT_ONCE).select(columns).columns
        )
        yield from zip(ids, languages, sizes, tokenizer.encode_batch(contents), strict=True)


def _joined(folders: Sequence[Path]) -> Iterator[Document]:
    for folder in folders:
        yield from TokenStore.open(folder / "store").documents()
