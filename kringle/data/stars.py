"""Stars of repositories from a table that the user brings: CSV, TSV, JSONL or Parquet with a name and a count.

A repository that the table does not name has no count (null), and an empty or unreadable count is none either: numbers
are joined, never made up.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kringle.errors import UserError

NAMES = ("repository", "repo", "repo_name", "full_name", "name", "max_stars_repo_name", "name_with_owner")
COUNTS = ("stars", "stargazers_count", "stargazers", "star_count", "max_stars_count", "star_events_count", "count")


class Stars:
    """Counts by repository, its name compared without regard to case."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = {name.casefold(): count for name, count in counts.items()}

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, repo: str) -> int | None:
        """The repository's count; None when the table does not tell."""
        return self._counts.get(repo.casefold())


def digest(path: Path) -> str:
    """SHA-256 of the table, for fingerprints. Raises `UserError` when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"--stars {path}") from None


@functools.lru_cache(maxsize=4)
def load(path: Path, checksum: str) -> Stars:
    """The table at `path`, whose checksum keeps one that has changed apart. Raises `UserError`."""
    try:
        rows = _rows(path)
        return Stars(dict(_counts(rows, path)))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read: {reason}", where=f"--stars {path}") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise OSError(0, str(error).splitlines()[0]) from None
        return rows
    text = path.read_text(encoding="utf-8-sig")
    if suffix in (".jsonl", ".ndjson", ".json"):
        loaded = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
        return [row for row in loaded if isinstance(row, dict)]
    return list(csv.DictReader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ","))


def _counts(rows: list[dict[str, Any]], path: Path) -> Iterable[tuple[str, int]]:
    columns = {str(name).strip().lower(): name for name in (rows[0] if rows else ())}
    name = next((columns[c] for c in NAMES if c in columns), None)
    count = next((columns[c] for c in COUNTS if c in columns), None)
    if name is None or count is None:
        found = ", ".join(columns) or "nothing"
        raise UserError(
            f"needs a column with the repository and one with its stars; found {found}",
            where=f"--stars {path}",
            hint="name them repository and stars",
        )
    for row in rows:
        value = whole_count(row.get(count))
        if value is not None and isinstance(row.get(name), str):
            yield row[name].strip(), value


def whole_count(value: Any) -> int | None:
    """A count as a whole number that is not negative; None for anything else, such as the NaN that pandas writes."""
    if isinstance(value, str):
        try:
            value = float(value.strip().replace(",", ""))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value) if value == int(value) else None
