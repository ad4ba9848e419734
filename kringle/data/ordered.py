"""Documents chosen by id, found beside the document table as both stream by.

Every table of a study is in the order of the documents: survivors are some of them in that order, the split is in the
order of the survivors. So a choice of documents is a subsequence, and finding its rows is a merge of two streams, for
which memory holds a row group of each. Does not cover: choices in another order, which are a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.table import iter_row_groups

_AT_ONCE = 10_000  # ids as Python's strings, a megabyte of them


def split_ids(split: Path, name: str | None = None) -> Iterator[str]:
    """Ids of `split/split.parquet` in their order: those under this name ("train", "held-out"), or all."""
    for group in iter_row_groups(split / "split.parquet", ["id", "split"]):
        ids = (group if name is None else group.filter(pc.equal(group["split"], name)))["id"]
        for start in range(0, len(ids), _AT_ONCE):
            yield from ids.slice(start, _AT_ONCE).to_pylist()


class Subsequence:
    """A choice of documents, in their order, that is matched while they pass by."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = iter(ids)
        self._wanted = next(self._ids, None)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """Which of the next documents, whose ids these are, are chosen: their numbers (N,), rising from 0 on."""
        wanted, rows = self._wanted, []
        for row, id in enumerate(ids):
            if id == wanted:
                rows.append(row)
                wanted = next(self._ids, None)
        self._wanted = wanted
        return np.array(rows, dtype=np.int32)

    def close(self) -> None:
        """To be called after the last document. ValueError where one that was chosen has not passed by in its turn."""
        if self._wanted is not None:
            raise ValueError(f"document {self._wanted} is not among the documents, or not chosen in their order")
