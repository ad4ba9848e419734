"""Which files are held out: whole repositories where a language has enough of them, else directories inside them.

Repositories are taken in an order drawn from the seed and their name until, per language, the wanted share of bytes is
reached: first from those that are a small part of it, so that what is held out is many hands' work; then from all
others; one so large that it would overshoot is passed over. A repository is held out in all its languages. The choice
depends on names and sizes alone, not on the order of the files.

Files are read as tables, several times over, and not held. What is held are arrays over the repositories (some 60 bytes
each and their names) and, where a language is divided inside repositories, over the directories of one depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.languages import TITLES
from kringle.randomness import uniform

PURPOSE = "held-out"  # names the random draws
ENOUGH = 0.5  # of the wanted bytes: with less, a language is split by directory too
SMALL_PART = (
    0.125  # of the wanted bytes: files of one repository are alike, so eight or more of them tell more than one
)
OVERSHOOT = 2.0  # times the wanted bytes: what would hold out more than that is passed over


# What the division needs to know of a document: the columns of its tables.
FILE = pa.schema(
    [
        pa.field("repo", pa.string()),
        pa.field("path", pa.string()),
        pa.field("language", pa.string()),
        pa.field("size", pa.int64()),
    ]
)
Files = Callable[[], Iterable[pa.Table]]  # the documents from the first on, each time

_GROUPS = 1 << 18  # rows of partial sums that are added up at once


@dataclass
class Division:
    """Which places are held out: whole repositories, and (repository, directory or file) pairs for one language."""

    repos: set[str] = field(default_factory=set)
    places: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    notes: list[str] = field(default_factory=list)

    def holds_out(self, repo: str, path: str, language: str) -> bool:
        """Whether a file at this place is held out."""
        if repo in self.repos:
            return True
        places = self.places.get(language)
        return places is not None and any((repo, prefix) in places for prefix in _prefixes(path))

    def held(self, files: pa.Table) -> NDArray[np.bool_]:
        """Which of some files (N,), a table with the columns of `FILE`, are held out."""
        held = _is_in(files["repo"], self.repos)
        for language in sorted(language for language, places in self.places.items() if places):
            rest = np.flatnonzero(~held & _is_in(files["language"], {language}))
            repos, paths = (files[name].take(rest).to_pylist() for name in ("repo", "path"))
            inside = [self.holds_out(repo, path, language) for repo, path in zip(repos, paths, strict=True)]
            held[rest] = np.array(inside, dtype=np.bool_)
        return held


def _is_in(column: pa.ChunkedArray, names: set[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(column, value_set=pa.array(sorted(names), pa.string())).to_numpy()
    return found


def _prefixes(path: str) -> Iterator[str]:
    """`a/b/c.py` -> `a`, `a/b`, `a/b/c.py`."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
    yield path


def divide(files: Files, share: float, seed: int) -> Division:
    """Choose what is held out: `share` of each language's bytes, drawn by `seed`; independent of the files' order."""
    division = Division()
    repos = _Repos(files, seed)
    totals = repos.sizes.sum(axis=0)
    wanted = share * totals
    # Never more than twice what is wanted, nor more than half of what would be left.
    limits = np.minimum(OVERSHOOT * wanted, (wanted + totals) / 2)
    held = np.zeros(len(totals))

    small = (repos.sizes <= SMALL_PART * wanted).all(axis=1)
    taken = np.zeros(len(small), dtype=np.bool_)
    for number, language in enumerate(repos.languages):
        # A repository that is too large by itself never fits.
        own = np.flatnonzero(repos.has[:, number] & (repos.sizes <= limits).all(axis=1))
        for repo in np.concatenate([own[small[own]], own]):
            if held[number] >= wanted[number]:
                break
            if not taken[repo] and (held + repos.sizes[repo] <= limits)[repos.has[repo]].all():
                taken[repo] = True
                held += repos.sizes[repo]
        division.repos = set(repos.names.filter(pa.array(taken)).to_pylist())
        if held[number] < ENOUGH * wanted[number]:
            held[number] = _divide_inside(
                files, language, float(wanted[number]), float(limits[number]), float(held[number]), division, seed
            )
    return division


class _Repos:
    """The repositories in the order of their draws: `names` (R,), the `languages` (L,) sorted, how many bytes of each
    (R, L) and which are there at all (R, L)."""

    def __init__(self, files: Files, seed: int) -> None:
        table = _summed((group.select(["repo", "language", "size"]) for group in files()), ["repo", "language"])
        self.languages: list[str] = sorted(pc.unique(table["language"]).to_pylist())
        names = pc.unique(table["repo"])
        self.names = names.take(_drawn(pa.table({"repo": names}), seed))
        repo = pc.index_in(table["repo"], value_set=self.names).to_numpy()
        language = pc.index_in(table["language"], value_set=pa.array(self.languages, pa.string())).to_numpy()
        self.sizes = np.zeros((len(self.names), len(self.languages)), dtype=np.int64)
        self.sizes[repo, language] = table["size"].to_numpy()
        self.has = np.zeros(self.sizes.shape, dtype=np.bool_)
        self.has[repo, language] = True


def _divide_inside(
    files: Files, language: str, wanted: float, limit: float, held: float, division: Division, seed: int
) -> float:
    """Hold out directories of one language inside repositories, from the top down, files as the last resort. Returns
    how many bytes of it are `held` out then."""
    places = division.places[language]

    def rest() -> Iterator[pa.Table]:
        for group in files():
            own = group.filter(pc.equal(group["language"], language))
            own = own.filter(pa.array(~_is_in(own["repo"], division.repos)))
            if own.num_rows:
                yield own

    count, repos, deepest = 0, pa.array([], pa.string()), 0
    for group in rest():
        count += group.num_rows
        repos = pc.unique(pa.concat_arrays([repos, *group["repo"].chunks]))
        deepest = max(deepest, pc.max(pc.count_substring(group["path"], "/")).as_py() + 1)
    for depth in range(1, deepest + 1):
        units = _summed((_units(group, division, depth) for group in rest()), ["repo", "top"])
        units = units.take(_drawn(units.select(["repo", "top"]), seed))
        for repo, top, size in _rows(units):
            if held >= wanted:
                break
            if held + size <= limit:
                places.add((repo, top))
                held += size
        if held >= ENOUGH * wanted:
            break
    if not held and count > 1:
        smallest = min(pc.min(group["size"]).as_py() for group in rest())
        repo, path, size = min(
            _rows(pa.concat_tables(_of_size(group, smallest) for group in rest())),
            key=lambda row: (uniform(seed, PURPOSE, *row[:2]), *row[:2]),
        )
        places.add((repo, path))
        held += size
    title = TITLES.get(language, language)
    if places:
        division.notes.append(
            f"{title} is in too few repositories ({len(repos):,} to choose from) to hold whole ones out, so "
            "directories or files inside them are held out: held-out code may resemble its neighbours in training"
        )
    elif not held:
        division.notes.append(f"no {title} is held out: there is one file of it")
    return held


def _units(files: pa.Table, division: Division, depth: int) -> pa.Table:
    """Of the files that are not held out: repository, the first `depth` components of the path (the whole path if it
    has no more), size."""
    files = files.filter(pa.array(~division.held(files)))
    parts = pc.list_slice(pc.split_pattern(files["path"], "/"), 0, depth)
    return pa.table({"repo": files["repo"], "top": pc.binary_join(parts, "/"), "size": files["size"]})


def _of_size(files: pa.Table, size: int) -> pa.Table:
    return files.filter(pc.equal(files["size"], size)).select(["repo", "path", "size"])


def _rows(table: pa.Table) -> Iterator[tuple[str, str, int]]:
    """Rows of a table of three columns, a batch at a time."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _drawn(units: pa.Table, seed: int) -> pa.Array:
    """The places (N,) of distinct units (tables of strings) in the order of their draws, and of their names in case of
    equal ones."""
    draws = np.empty(units.num_rows)
    for i, row in enumerate(zip(*(_strings(column) for column in units.columns), strict=True)):
        draws[i] = uniform(seed, PURPOSE, *row)
    table = units.append_column("draw", pa.array(draws))
    return pc.sort_indices(table, [(name, "ascending") for name in ("draw", *units.column_names)])


def _strings(column: pa.ChunkedArray) -> Iterator[str]:
    return (value.as_py() for value in column)


def _summed(tables: Iterable[pa.Table], keys: list[str]) -> pa.Table:
    """Sums of the column `size` by some other columns, of many tables; partial sums are added up as they come."""
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        pending.append(_sum(table, keys))
        rows += pending[-1].num_rows
        if rows >= _GROUPS:
            pending = [_sum(pa.concat_tables(pending), keys)]
            rows = 0
    if not pending:
        return FILE.empty_table().append_column("top", pa.array([], pa.string())).select([*keys, "size"])
    return _sum(pa.concat_tables(pending), keys)


def _sum(table: pa.Table, keys: list[str]) -> pa.Table:
    summed = table.group_by(keys, use_threads=False).aggregate([("size", "sum")])
    return summed.rename_columns({"size_sum": "size"}).select([*keys, "size"])
