"""Which files are held out: whole repositories where a language has enough of them, else directories inside them.

Repositories are taken in an order drawn from the seed and their name until, per language, the wanted share of bytes is
reached: first from those that are a small part of it, so that what is held out is many hands' work; then from all
others; one so large that it would overshoot is passed over. A repository is held out in all its languages. The choice
depends on names and sizes alone, not on the order of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from kringle.data.languages import TITLES
from kringle.randomness import uniform

_Key = TypeVar("_Key")

PURPOSE = "held-out"  # names the random draws
ENOUGH = 0.5  # of the wanted bytes: with less, a language is split by directory too
SMALL_PART = (
    0.125  # of the wanted bytes: files of one repository are alike, so eight or more of them tell more than one
)
OVERSHOOT = 2.0  # times the wanted bytes: what would hold out more than that is passed over


class File(NamedTuple):
    """What the split needs to know of a document."""

    id: str
    repo: str
    path: str
    language: str
    size: int


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


def _prefixes(path: str) -> Iterator[str]:
    """`a/b/c.py` -> `a`, `a/b`, `a/b/c.py`."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
    yield path


def divide(files: Sequence[File], share: float, seed: int) -> Division:
    """Choose what is held out: `share` of each language's bytes, drawn by `seed`; independent of the files' order."""
    division = Division()
    totals = _sum((f.language, f.size) for f in files)
    wanted = {language: share * total for language, total in totals.items()}
    # Never more than twice what is wanted, nor more than half of what would be left.
    limits = {language: min(OVERSHOOT * w, (w + totals[language]) / 2) for language, w in wanted.items()}
    held: dict[str, float] = defaultdict(float)

    by_repo: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for f in files:
        by_repo[f.repo][f.language] += f.size
    order = sorted(by_repo, key=lambda repo: (uniform(seed, PURPOSE, repo), repo))
    small = [repo for repo in order if all(size <= SMALL_PART * wanted[x] for x, size in by_repo[repo].items())]
    for language in sorted(totals):
        for repo in (*small, *order):
            if held[language] >= wanted[language]:
                break
            sizes = by_repo[repo]
            fits = all(held[x] + size <= limits[x] for x, size in sizes.items())
            if language in sizes and repo not in division.repos and fits:
                division.repos.add(repo)
                for x, size in sizes.items():
                    held[x] += size
        if held[language] < ENOUGH * wanted[language]:
            rest = [f for f in files if f.language == language and f.repo not in division.repos]
            _divide_inside(rest, language, wanted[language], limits[language], held, division, seed)
    return division


def _divide_inside(
    files: Sequence[File],
    language: str,
    wanted: float,
    limit: float,
    held: dict[str, float],
    division: Division,
    seed: int,
) -> None:
    """Hold out directories of one language inside repositories, from the top down, files as the last resort."""
    places = division.places[language]
    repos = len({f.repo for f in files})
    deepest = max((f.path.count("/") + 1 for f in files), default=0)
    for depth in range(1, deepest + 1):
        units = _sum(((f.repo, _top(f.path, depth)), f.size) for f in files if not division.holds_out(*f[1:4]))
        for unit in sorted(units, key=lambda u: (uniform(seed, PURPOSE, *u), u)):
            if held[language] >= wanted:
                break
            if held[language] + units[unit] <= limit:
                places.add(unit)
                held[language] += units[unit]
        if held[language] >= ENOUGH * wanted:
            break
    if not held[language] and len(files) > 1:
        smallest = min(files, key=lambda f: (f.size, uniform(seed, PURPOSE, f.repo, f.path), f.repo, f.path))
        places.add((smallest.repo, smallest.path))
        held[language] += smallest.size
    title = TITLES.get(language, language)
    if places:
        division.notes.append(
            f"{title} is in too few repositories ({repos:,} to choose from) to hold whole ones out, so directories or "
            "files inside them are held out: held-out code may resemble its neighbours in training"
        )
    elif not held[language]:
        division.notes.append(f"no {title} is held out: there is one file of it")


def _top(path: str, depth: int) -> str:
    """The first `depth` components of a path; the whole path if it has no more."""
    return "/".join(path.split("/")[:depth])


def _sum(pairs: Iterable[tuple[_Key, int]]) -> dict[_Key, int]:
    totals: dict[_Key, int] = defaultdict(int)
    for key, size in pairs:
        totals[key] += size
    return totals
