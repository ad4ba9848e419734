"""One step's decisions on many files, held as columns and made into rows of the decision table piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kringle.data.sources.candidates import Candidate, Skipped
from kringle.data.table import DECISION, ROW_GROUP_ROWS


class Judged(NamedTuple):
    """What one step decided on files (N,) that are held elsewhere: some 25 bytes a file.

    `kept` (N,) says for which it goes on, `values` (N,) what was measured, `witnesses` (N,) is the evidence; columns as
    in `DECISION`, where all ids are null.
    """

    step: str
    threshold: str
    files: Sequence[Candidate] | Sequence[Skipped]
    kept: NDArray[np.bool_]
    values: NDArray[np.float64] | None = None
    witnesses: Sequence[str | None] | None = None

    def tables(self) -> Iterator[pa.Table]:
        """The rows of the decision table, in the order of the files, up to `ROW_GROUP_ROWS` at a time."""
        for start in range(0, len(self.files), ROW_GROUP_ROWS):
            piece = slice(start, start + ROW_GROUP_ROWS)
            files = self.files[piece]
            rows = len(files)
            columns = {
                "id": pa.nulls(rows, pa.string()),
                "repo": pa.array([file.repo for file in files], pa.string()),
                "path": pa.array([file.path for file in files], pa.string()),
                "step": pa.repeat(pa.scalar(self.step), rows),
                "value": pa.nulls(rows, pa.float64()) if self.values is None else pa.array(self.values[piece]),
                "threshold": pa.repeat(pa.scalar(self.threshold), rows),
                "kept": pa.array(self.kept[piece]),
                "witness": pa.array([None] * rows if self.witnesses is None else self.witnesses[piece], pa.string()),
            }
            yield pa.table(columns, schema=DECISION)
