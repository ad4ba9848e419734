"""Building the attribution index: seeds and checkpoints of both spellings, and the table of documents.

The two halves, exact and without white space, are built side by side where there are two workers. Each appears whole or
not at all, so a killed build goes on with the half that is missing. A half takes about 60% of its text in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kringle.attribution import following, kernels
from kringle.attribution.index import FORMAT, HALVES, Spelling, mark_starts_of
from kringle.attribution.kernels import STEP, Bytes
from kringle.attribution.seeds import MOST_SAMPLES, SeedTable
from kringle.data.table import DOCUMENT, document_shards, iter_row_groups
from kringle.engine import Engine, tick
from kringle.progress import Reporter
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer

PASSES = 3  # over the documents that building a half takes, one of them over some
_TICK = 1_000_000  # bytes
COLUMNS = ("id", "repo", "path", "language", "licenses", "source", "revision", "copies")
TABLE = pa.schema([pa.field("number", pa.int64()), *(DOCUMENT.field(name) for name in COLUMNS)])


@dataclass(frozen=True)
class Half:
    """The work of building one half of an index; picklable. `numbers` are those of the documents in the store."""

    store: Path
    tokenizer: Path
    numbers: NDArray[np.int64]
    out: Path
    name: str


def index_documents(
    documents: Path,
    training: Collection[str],
    tokenizer: Path,
    store: Path,
    out: Path,
    engine: Engine,
    progress: Reporter,
) -> dict[str, Any]:
    """Index the documents named by `training` in the folder `out/index`; what `kringle run` does after encoding.

    `documents` is a folder of `part-*.parquet` with the columns of `kringle.data.table.DOCUMENT`, `store` what they
    were encoded to. Returns a summary with counts; for a corpus too large for one index, the reason why there is none.
    """
    opened = TokenStore.open(store)
    wanted = set(training)
    numbers = {id: number for number, id in enumerate(opened.ids) if id in wanted}
    size = int(opened.sizes[list(numbers.values())].sum())
    if size // STEP >= MOST_SAMPLES:
        limit = MOST_SAMPLES * STEP
        return {"not_built": f"{size:,} bytes of training documents are more than an index holds ({limit:,})"}
    index = out / "index"
    index.mkdir(exist_ok=True)
    chosen = _write_table(documents, numbers, index / "documents.parquet")
    halves = [Half(store, tokenizer, chosen, index / name, name) for name in HALVES]
    missing = [half for half in halves if not half.out.is_dir()]
    with progress.task("index", size * PASSES * len(missing) / 1e6, unit="MB") as counter:

        def advance(_: int, amount: float) -> None:
            counter.advance(amount)

        for _ in engine.map(build_half, missing, names=[half.name for half in missing], on_tick=advance):
            pass
    return _finish(index, opened, Tokenizer.load(tokenizer).checksum, len(chosen), size)


def build(
    store: TokenStore,
    tokenizer: Tokenizer,
    rows: Sequence[Mapping[str, Any]],
    out: Path,
) -> dict[str, Any]:
    """Write the index of documents of `store` to the folder `out`, which appears whole or not at all.

    `rows`, one a document: number (in the store) and `COLUMNS`, of which what is not known may be left out. Returns
    counts and sizes in bytes.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=TABLE), partial / "documents.parquet")
    numbers = np.array([row["number"] for row in rows], dtype=np.int64)
    for name in HALVES:
        _build(store, tokenizer, numbers, partial / name, name)
    summary = _finish(partial, store, tokenizer.checksum, len(rows), int(store.sizes[numbers].sum()))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return summary


def build_half(half: Half) -> None:
    """Build one half, in a worker process; ticks in megabytes."""
    store, tokenizer = TokenStore.open(half.store), Tokenizer.load(half.tokenizer)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if done >= _TICK:
            tick(done / 1e6)
            done = 0

    _build(store, tokenizer, half.numbers, half.out, half.name, count)
    tick(done / 1e6)


def _build(
    store: TokenStore,
    tokenizer: Tokenizer,
    numbers: NDArray[np.int64],
    out: Path,
    name: str,
    on_document: Callable[[int], None] = lambda size: None,
) -> None:
    partial = out.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    spelling = Spelling(tokenizer, plain=name == "plain")
    mark_starts = mark_starts_of(np.diff(store.offsets)[numbers])

    tokens = np.asarray(store.tokens)  # a view that is sliced faster than a memory-mapped array
    firsts, lasts = store.offsets[numbers], store.offsets[numbers + 1]

    def document(i: int) -> NDArray[Any]:
        on_document(int(store.sizes[numbers[i]]))
        return tokens[firsts[i] : lasts[i]]

    marks = np.zeros(int(mark_starts[-1]), dtype=np.uint32)
    sizes = np.array(
        [following.checkpoints(document(i), spelling.starts, marks[mark_starts[i] :]) for i in range(len(numbers))],
        dtype=np.int64,
    )
    buffer = np.empty(int(sizes.max(initial=0)), dtype=np.uint8)

    def text(i: int) -> Bytes:
        out = buffer[: sizes[i]]
        kernels.decode(document(i), spelling.starts, spelling.blob, out)
        return out

    SeedTable.build(partial, sizes, text)
    np.save(partial / "checkpoints.npy", marks)
    np.save(partial / "sizes.npy", sizes)
    partial.rename(out)


def _write_table(documents: Path, numbers: Mapping[str, int], path: Path) -> NDArray[np.int64]:
    """Write the rows of the documents in `numbers` (by id); returns their numbers in the store, in the same order."""
    found: list[int] = []
    with pq.ParquetWriter(path, TABLE, compression="zstd") as writer:
        for shard in document_shards(documents):
            for group in iter_row_groups(shard, COLUMNS):
                here = [numbers.get(id, -1) for id in group["id"].to_pylist()]
                rows = group.add_column(0, "number", pa.array(here, pa.int64()))
                writer.write_table(rows.filter(pa.array([number >= 0 for number in here])).cast(TABLE))
                found += [number for number in here if number >= 0]
    return np.array(found, dtype=np.int64)


def _finish(index: Path, store: TokenStore, tokenizer: str, documents: int, size: int) -> dict[str, Any]:
    """Write the manifest, without which a folder is no index."""
    counts = {"documents": documents, "bytes": size}
    manifest = {"format": FORMAT, "store": store.checksum, "tokenizer": tokenizer, **counts}
    (index / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return {**counts, "index_bytes": sum(file.stat().st_size for file in index.rglob("*") if file.is_file())}
