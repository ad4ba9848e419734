"""The documents of an attribution index as people know them: repository, path, licence; and finding them by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

By = Literal["repository", "owner", "path"]


@dataclass(frozen=True)
class Source:
    """A document of the training data. `size` is in bytes, `tokens` as it was trained on. `origin` is the kind of
    source that it was collected from. `stands_as`: where the same bytes were read that this place also holds."""

    id: str
    repo: str
    path: str
    language: str
    licenses: tuple[str, ...]
    revision: str
    origin: str = ""
    size: int = 0
    tokens: int = 0
    stands_as: str | None = None


class Sources:
    """The table `documents.parquet` of an index; `sizes` and `tokens` (D,) are those of its documents."""

    def __init__(self, table: pa.Table, sizes: NDArray[np.int64], tokens: NDArray[np.int64]) -> None:
        self.table, self._sizes, self._tokens = table, sizes, tokens

    def __getitem__(self, document: int) -> Source:
        (row,) = self.table.slice(document, 1).to_pylist()
        return self._source(document, row)

    def _source(self, document: int, row: dict[str, Any]) -> Source:
        return Source(
            id=row["id"],
            repo=row["repo"],
            path=row["path"],
            language=row["language"],
            licenses=tuple(row["licenses"] or ()),
            revision=row["revision"] or "",
            origin=row["source"] or "",
            size=int(self._sizes[document]),
            tokens=int(self._tokens[document]),
        )

    @cached_property
    def _places(self) -> tuple[pa.Array, pa.Array, NDArray[np.int64]]:
        """(repositories, paths, documents) of every place: first the documents' own, then those of their copies."""
        copies = self.table["copies"].combine_chunks()
        parents = pc.list_parent_indices(copies).to_numpy()
        flat = pc.list_flatten(copies)
        repo, path = (self.table[name].combine_chunks() for name in ("repo", "path"))
        own = np.arange(len(self.table), dtype=np.int64)
        return (
            pa.concat_arrays([repo, pc.struct_field(flat, "repo")]),
            pa.concat_arrays([path, pc.struct_field(flat, "path")]),
            np.concatenate([own, parents]),
        )

    def named(self, by: By, name: str) -> Iterator[Source]:
        """Every place of a repository, an owner, or at or below a path; documents' own places first."""
        repos, paths, documents = self._places
        for place in np.flatnonzero(is_named(repos, paths, by, name).to_numpy(zero_copy_only=False)).tolist():
            source = self[int(documents[place])]
            if place < len(self.table):
                yield source
                continue
            copies = self.table["copies"][int(documents[place])].as_py()
            copy = next(c for c in copies if (c["repo"], c["path"]) == (repos[place].as_py(), paths[place].as_py()))
            yield replace(
                source,
                repo=copy["repo"],
                path=copy["path"],
                licenses=tuple(copy["licenses"] or ()),
                revision=copy["revision"] or "",
                origin=copy["source"] or "",
                stands_as=f"{source.repo}/{source.path}",
            )


def is_named(repos: pa.Array, paths: pa.Array, by: By, name: str) -> pa.Array:
    """Which places are of this repository, of this owner, or at or below this path (alone, or after its repository).

    Names of repositories and owners are compared without regard to case, as opt-outs do (`kringle.data.optout`).
    """
    if by == "path":
        whole = pc.binary_join_element_wise(repos, paths, "/")
        return pc.or_(*(pc.or_(pc.equal(x, name), pc.starts_with(x, f"{name}/")) for x in (paths, whole)))
    lower, wanted = pc.utf8_lower(repos), name.lower()
    if by == "owner":
        return pc.or_(pc.equal(lower, wanted), pc.starts_with(lower, f"{wanted}/"))
    return pc.equal(lower, wanted)
