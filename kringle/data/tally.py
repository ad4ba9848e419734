"""Counts of the documents that are kept, added up while they stream by: what the collect stage tells of them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kringle.data.licenses import is_permissive, license_label
from kringle.data.spill import Spill, partitions_for

COLUMNS = ("repo", "source", "language", "licenses", "size", "stars")
_BETWEEN = "\x1f"  # joins a document's licences into a key; no SPDX expression holds it
_REPO = pa.schema([pa.field("repo", pa.string())])


class _Kind(NamedTuple):
    """What documents are counted by."""

    source: str
    language: str
    licenses: tuple[str, ...]


class Tally:
    """Files and bytes by source, language and licences, and how many repositories there are.

    Memory holds the combinations of these; the names of repositories go to files in the folder `scratch`, by partition.
    `rows` is the most that may be added.
    """

    def __init__(self, rows: int, scratch: Path) -> None:
        self._counts: dict[_Kind, list[int]] = {}  # files, bytes, known stars
        self._repos = Spill(scratch, "repositories", _REPO, partitions_for(rows))

    def add(self, table: pa.Table) -> None:
        """Count documents with the columns `COLUMNS`."""
        keyed = table.select(["source", "language", "size", "stars"])
        keyed = keyed.append_column("licenses", pc.binary_join(table["licenses"], _BETWEEN))
        keys = ["source", "language", "licenses"]
        grouped = keyed.group_by(keys, use_threads=False).aggregate(
            [("size", "count"), ("size", "sum"), ("stars", "count")]
        )
        for row in grouped.to_pylist():
            licenses = tuple(row["licenses"].split(_BETWEEN)) if row["licenses"] else ()
            counts = self._counts.setdefault(_Kind(row["source"], row["language"], licenses), [0, 0, 0])
            for i, name in enumerate(("size_count", "size_sum", "stars_count")):
                counts[i] += row[name]
        repos = table["repo"].unique()
        hashes = np.array([zlib.crc32(repo.encode()) for repo in repos.to_pylist()], dtype=np.int64)
        self._repos.write(pa.table([repos], schema=_REPO), hashes % self._repos.count)

    def repositories(self) -> int:
        """How many there are; to be called once, when all documents are added."""
        self._repos.close()
        return sum(len(self._repos.read(number)["repo"].unique()) for number in range(self._repos.count))

    @property
    def files(self) -> int:
        """How many documents were added."""
        return sum(files for files, _, _ in self._counts.values())

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(size for _, size, _ in self._counts.values())

    @property
    def stars_known(self) -> int:
        """How many of them have a number of stars."""
        return sum(known for _, _, known in self._counts.values())

    def beyond_permissive(self) -> Counter[str]:
        """Files by the label of their licences, where those are not permissive."""
        beyond = Counter[str]()
        for kind, (files, _, _) in self._counts.items():
            if not is_permissive(kind.licenses):
                beyond[license_label(kind.licenses)] += files
        return beyond

    def sources(self) -> list[dict[str, Any]]:
        """Files and bytes by source, the largest first, as JSON-able values."""
        return self._shares(lambda kind: kind.source)

    def languages(self) -> list[dict[str, Any]]:
        """The same by language."""
        return self._shares(lambda kind: kind.language)

    def licenses(self) -> list[dict[str, Any]]:
        """The same by the label of the licences."""
        return self._shares(lambda kind: license_label(kind.licenses))

    def _shares(self, name_of: Callable[[_Kind], str]) -> list[dict[str, Any]]:
        files, total = Counter[str](), Counter[str]()
        for kind, (count, size, _) in self._counts.items():
            files[name_of(kind)] += count
            total[name_of(kind)] += size
        return [
            {"name": name, "files": files[name], "bytes": size}
            for name, size in sorted(total.items(), key=lambda item: (-item[1], item[0]))
        ]
