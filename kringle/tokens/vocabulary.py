"""The tokenizer stage: words counted in parallel, one shard of the training documents at a time, then merges learnt.

Each shard's counts are kept under the hash of its document ids, so a killed run counts only the shards in flight again.
Memory holds the distinct words of the corpus, never its text.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.tokens.slices import Slice, plan_slices, utf8
from kringle.tokens.tokenizer import TOKENIZER_FILE, Spelling, Tokenizer, write_tokenizer
from kringle.tokens.words import Counter, Words, added
from kringle.workspace import ShardStore, Task


def train_on_documents(
    documents: Path,
    ids: Iterable[str],
    vocab_size: int,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
    spelling: Spelling = "underscore",
) -> dict[str, Any]:
    """Train on the documents named by `ids`, in their order, write `out/tokenizer.json`; counts come back.

    UserError where there are none, and where they do not fill a vocabulary of `vocab_size`.
    """
    slices = plan_slices(documents, ids)
    tasks = [Task(s.name, s.fingerprint, s) for s in slices]
    sizes = [s.size for s in slices]
    if not tasks:
        raise UserError("no documents to train a tokenizer on", where=str(documents), hint="loosen the filters")
    with progress.task("tokenizer", sum(sizes) / 1e6, unit="MB") as counter:
        folders = shards.map(engine, count_slice, tasks, on_done=lambda i: counter.advance(sizes[i] / 1e6))
    words = added(_read(folder / "words.npz") for folder in folders)
    tokenizer = write_tokenizer(words, vocab_size, out, spelling)
    return {
        "vocab_size": tokenizer.vocab_size,
        "files": sum(len(s.rows) for s in slices),
        "bytes": sum(sizes),
        "words": len(words.counts),
    }


def take_tokenizer(folder: Path, out: Path) -> dict[str, Any]:
    """Write the tokenizer of a folder, such as a checkpoint's, to `out/tokenizer.json`; counts as of one trained on
    nothing here."""
    shutil.copyfile(folder / TOKENIZER_FILE, out / TOKENIZER_FILE)
    return {"vocab_size": Tokenizer.load(out).vocab_size, "files": 0, "bytes": 0}


def count_slice(slice: Slice, folder: Path) -> dict[str, Any]:
    """One shard's work, in a worker process: count the words of its documents into `folder/words.npz`."""
    counter = Counter()
    for rows in slice.read(["content"]):
        counter.add(*utf8(rows["content"]))
    words = counter.words()
    np.savez(folder / "words.npz", **words._asdict())
    return {"words": len(words.counts)}


def _read(path: Path) -> Words:
    with np.load(path) as arrays:
        return Words(**{name: arrays[name] for name in Words._fields})
