"""Token stores of a workspace for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kringle.errors import UserError
from kringle.study.arm import split_of
from kringle.study.last_run import recall
from kringle.tokens.megatron import write_megatron
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.workspace import Workspace


def export_megatron(work: Path, prefix: Path) -> dict[str, Any]:
    """Write the training documents of the last run as `prefix.bin` and `prefix.idx`, in the store's order."""
    workspace = Workspace.open(work, create=False)
    _, plan = recall(workspace)
    if plan.encode.manifest() is None:
        hint = "run kringle run --until encode first"
        raise UserError("the token store is not there yet", where=str(workspace.root), hint=hint)
    store, tokenizer = TokenStore.open(plan.encode.folder / "store"), Tokenizer.load(plan.tokenizer.folder)
    split = split_of(plan.split.folder)
    documents = np.array([i for i, name in enumerate(store.ids) if split.get(name) == "train"], dtype=np.int64)
    end = tokenizer.specials.end_of_text
    data, index, tokens = write_megatron(store, documents, end, tokenizer.vocab_size, prefix)
    return {"documents": len(documents), "tokens": tokens, "bin": str(data), "idx": str(index)}
