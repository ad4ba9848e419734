"""Arrow tables in partitions on disk, so that what needs all rows with equal keys has to hold those of one partition.

Rows are appended partition by partition, then each partition is read back whole. The files are of this process alone
and are removed by whoever made their folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS = 1 << 16  # in a partition: at 250 bytes of names and places a row, 16 MB in memory
MOST = 256  # partitions: each is an open file while it is written; beyond 17 million rows they grow


def partitions_for(rows: int) -> int:
    """How many partitions hold this many rows."""
    return max(1, min(MOST, -(-rows // ROWS)))


class Spill:
    """Tables of one schema in `count` files `folder/NAME-NUMBER`, written first and read afterwards."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, count: int) -> None:
        self.count = count
        self._folder, self._name, self._schema = folder, name, schema
        self._writers: dict[int, Any] = {}

    def write(self, table: pa.Table, partitions: NDArray[np.int64]) -> None:
        """Append rows (N,), each to its partition (N,); their order is kept."""
        numbers = np.unique(partitions).tolist()
        for number in numbers:
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_stream(self._path(number), self._schema)
            rows = table if len(numbers) == 1 else table.filter(pa.array(partitions == number))
            self._writers[number].write_table(rows)

    def close(self) -> None:
        """Finish writing."""
        for writer in self._writers.values():
            writer.close()

    def read(self, number: int) -> pa.Table:
        """All rows of a partition, in the order in which they were written."""
        if number not in self._writers:
            return self._schema.empty_table()
        with pa.OSFile(str(self._path(number))) as file:
            return pa.ipc.open_stream(file).read_all()

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:03d}"
