"""Why a file is in the corpus or not: every decision taken on it, in the order of the steps.

A file is named by its path (as it is on disk, or any trailing part of it), or by its id (git blob SHA-1) or the first
digits of one. A copy's story goes on with the file that stands for its content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kringle.data.decisions import read_decisions
from kringle.data.sources.candidates import printable
from kringle.data.table import DECISION, Decision
from kringle.errors import UserError

SHORTEST_ID = 6  # digits; fewer would match by accident
_ID = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},40}}")


def why(stages: Sequence[Path], key: str) -> list[Decision]:
    """All decisions on the files that `key` names, from the decisions of these stages, in their order.

    Several files may match a short path; the story of each is there. Raises `UserError` when none does.
    """
    table = pa.concat_tables([DECISION.empty_table(), *(read_decisions(stage) for stage in stages)])
    chosen = _by_id(table, key) if _ID.fullmatch(key.lower()) else None
    if chosen is None or not pc.any(chosen).as_py():
        chosen = _by_path(table, key)
    if not pc.any(chosen).as_py():
        raise UserError(
            "no decision was taken on a file of this name or id",
            where=key,
            hint="give a path as in the repository, or the first digits of an id",
        )
    ids = pc.unique(table.filter(chosen)["id"]).drop_null()
    rows = table.filter(pc.or_(chosen, pc.fill_null(pc.is_in(table["id"], value_set=ids), False)))
    return [Decision(*row) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def _by_id(table: pa.Table, key: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.starts_with(table["id"], key.lower()), False)


def _by_path(table: pa.Table, key: str) -> pa.ChunkedArray:
    """Rows whose place ends with the key; failing that, the rows with the longest place that the key ends with."""
    full = pc.binary_join_element_wise("", table["repo"], table["path"], "/")
    spellings = [
        f"/{name.removeprefix('./').strip('/')}" for name in (printable(key), key)
    ]  # as on disk, as we print it
    for place in spellings:
        matches = pc.ends_with(full, place)
        if pc.any(matches).as_py():
            return matches
    for column in (full, pc.binary_join_element_wise("", table["path"], "/")):
        ends = [any(place.endswith(name) for place in spellings) for name in column.to_pylist()]
        inside = pa.chunked_array([pa.array(ends, pa.bool_())])
        lengths = pc.utf8_length(column)
        longest = pc.max(lengths.filter(inside)).as_py()
        if longest is not None:
            return pc.and_(inside, pc.equal(lengths, longest))
    return pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
