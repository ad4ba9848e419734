"""Near-copies of held-out texts in training data, looked for anew only where something is new.

Of each training shard a sketch is kept (`kringle.data.containment`), and which held-out texts the shard was compared
with. The results of a shard and a text do not change; so when held-out texts come, an unchanged shard's sketch is asked
for those alone, and its text is read again, in part, only where one of them may be in it. What comes out is what a
comparison of every file with every file would give. Texts of fewer than `FEWEST_GRAMS` distinct grams are not compared
where they are few: the caller is told which, and should not hold them out.

The store has an entry of its own for each shard (its documents in training) and the first set of texts that it was
compared with; those of further sets have the results of `TOGETHER` shards, because asking a sketch takes a few
milliseconds. The first one keeps the sketch: `sketch.npy` (words, parts), `begins.npy` (row groups + 1,) where the
words of each row group begin, `parts.npy` (row groups, parts + 1) which of its documents each part has, and
`sample.npy` (s,), its distinct grams among the one in `SAMPLE` that are kept exactly. The record `compared-SALT.json`
says which sets each shard of the last run was compared with and in which entries the results are, and `texts-DIGEST`
which texts a set has. The record is written when all entries are there, and an entry that is gone is made again:
nothing is lost or stale after a kill.

Memory: the main process holds some 80 bytes for each held-out text; grams lie in mapped files. Work: a shard's text is
hashed once; then every text that is new to it costs little more than half of its grams, each one look into a filter.
For all texts and all shards that grows with the square of the corpus, at 5 ns a gram and row group
(docs/decisions.md).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.data.containment import SKETCH_PARTS, Grams, Matcher, may_hold, sketch, sketched
from kringle.data.subsequence import mark_of
from kringle.data.table import identity, iter_row_groups, read_table, row_group_starts, text_bytes
from kringle.engine import Engine
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint, shard_summary, write_atomically

# One gram in so many, those with the smallest hashes, is kept exactly: 62,000 grams of a shard of 16 MB, which is half
# a megabyte. A share over 700 grams of a file, for 100 files, is then known to a percentage point or two.
SAMPLE = 32
# Sets of texts that a shard was compared with one after the other; with more, it is compared with all texts at once, so
# that reading results never costs more than a thirtieth of making them.
SETS = 32
# Distinct grams of a text: half of fewer is no more than a licence's line or a few imports, found in nearly every
# shard, and a sketch does not tell them apart (`containment.SKETCH_BITS`). Of 95 new texts in a corpus of 1 GB, 15 were
# shorter, and for their sake 200 of 206 shards were read; for the others' 18. Where they have a larger share of all
# grams than this, a corpus of snippets, they are compared as all others.
FEWEST_GRAMS = 20
NEGLIGIBLE = 0.01
TOGETHER = 16  # shards that are compared with a further set in one task
MATCH_GRAMS = 1 << 22  # of texts that are matched at once: an index of about 200 MB


SKETCH = ("sketch", "begins", "parts")  # files of a shard's sketch


class Place(NamedTuple):
    """Some documents of a shard of the document table, by their `rows` (M,) in it."""

    part: Path
    rows: NDArray[np.int64]


class Copy(NamedTuple):
    """Where a held-out file was found in training data, and the share of its 5-grams that is there."""

    contained: float
    witness: str


class Compared(NamedTuple):
    """What became of the held-out documents (N,), in the order in which they were given: the near-copies by number; how
    many distinct 5-grams those have that were too short and too few to be compared, by number; and the share of the
    other's sampled 5-grams that occur anywhere in training, None where none is in the sample."""

    copies: dict[int, Copy]
    short: dict[int, int]
    seen: float | None


class Entry(NamedTuple):
    """Where it is recorded how a shard compares with the set `texts`: in the outcome of the task with this fingerprint.
    JSON-able."""

    texts: str
    task: str


def near_copies(
    held: Sequence[Place],
    training: Sequence[Place],
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> Compared:
    """For each document of `held` of which half or more of the 5-grams are in one document of `training`, the one that
    contains most of it, the first by repository and path of several. Works in a folder inside `out`."""
    work = out / "comparison"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed here
    work.mkdir()
    tasks = [Task(place.part.name, fingerprint("held-out grams", mark_of(*place)), place) for place in held]
    with progress.task("held-out texts", len(tasks), unit="shards") as counter:
        groups = shards.map(engine, hash_texts, tasks, on_done=lambda _: counter.advance())
    texts = _Texts(groups)

    record = _Record(shards, engine)
    marks = [mark_of(*place) for place in training]
    known = [record.entries_of(mark) for mark in marks]
    sets = [tuple(entry.texts for entry in entries) for entries in known]
    missing = {own: texts.without(record.texts(own)) for own in dict.fromkeys(sets)}
    first: list[Task] = []
    further: dict[str, list[Known]] = {}  # by the set of texts
    for place, mark, entries, own in zip(training, marks, known, sets, strict=True):
        if not len(new := missing[own]):
            continue
        name = record.add(texts.ids[new])
        if not (work / name).exists():
            texts.write(new, work / name)
        if entries:
            further.setdefault(name, []).append(Known(place, mark, shards.folder(entries[0].task)))
        else:
            first.append(Task(place.part.name, record.note(name, mark), First(place, mark, work / name)))
    batches = [
        (name, places[start : start + TOGETHER])
        for name, places in further.items()
        for start in range(0, len(places), TOGETHER)
    ]
    again = [
        Task(
            f"{some[0].place.part.name} to {some[-1].place.part.name}",
            record.note(name, *(known.mark for known in some)),
            Further(some, work / name),
        )
        for name, some in batches
    ]
    with progress.task("compare with training", len(training), unit="shards") as counter:
        counter.advance(len(training) - len(first) - sum(len(some) for _, some in batches))
        compared = [1] * len(first) + [len(some) for _, some in batches]
        shards.map(engine, compare, [*first, *again], on_done=lambda i: counter.advance(compared[i]))
    now = record.write(marks)
    shutil.rmtree(work)

    best: dict[int, tuple[float, str, str]] = {}  # (minus the share, repo, path): the smallest is the best
    for task in dict.fromkeys(entry.task for entries in now for entry in entries):
        for mark, found in shard_summary(shards.folder(task))["near_copies"].items():
            if mark not in record.now:  # a shard that was looked at with others, and is gone
                continue
            for id, grams, repo, path in found:
                if (number := texts.number(id)) is not None:
                    candidate = (-grams / int(texts.sizes[number]), repo, path)
                    best[number] = min(best.get(number, candidate), candidate)
    copied = np.isin(texts.of_document, np.array(sorted(best), dtype=np.int64))
    copies = {}
    for document in np.flatnonzero(copied).tolist():
        share, repo, path = best[int(texts.of_document[document])]
        copies[document] = Copy(-share, f"{-share:.0%} of its 5-grams are in {repo}/{path}")
    samples = [shards.folder(entries[0].task) / "sample.npy" for entries in now if entries]
    return Compared(copies, texts.short, texts.seen(samples, ~copied))


def sampled(grams: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which grams (n,) are those of `SAMPLE`."""
    return grams <= np.uint64(((1 << 64) - 1) // SAMPLE)


class _Texts:
    """The held-out texts that are compared, each distinct one once: `ids` (n,) sorted, `sizes` (n,) the number of their
    distinct grams; `of_document` (N,) is the number of each document's text, -1 for those of `short`, which have fewer
    grams than `FEWEST_GRAMS`: document -> how many."""

    def __init__(self, groups: Sequence[Path]) -> None:
        starts = [np.load(group / "starts.npy") for group in groups]
        sizes = np.concatenate([np.diff(own) for own in starts])
        enough = sizes >= FEWEST_GRAMS
        if sizes[~enough].sum() > NEGLIGIBLE * sizes.sum():
            enough[:] = True
        self.short = {number: int(sizes[number]) for number in np.flatnonzero(~enough).tolist()}
        ids = np.concatenate([np.load(group / "ids.npy") for group in groups])[enough]
        self.ids, first, numbers = np.unique(ids, return_index=True, return_inverse=True)
        self.of_document = np.full(len(sizes), -1, dtype=np.int64)
        self.of_document[enough] = numbers
        self._grams = [_mapped(group / "grams.npy") for group in groups]
        self._group = np.repeat(np.arange(len(groups)), [len(own) - 1 for own in starts])[enough][first]
        self._begin = np.concatenate([own[:-1] for own in starts])[enough][first]
        self.sizes = sizes[enough][first]

    def without(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Numbers of the texts that are not among these."""
        return np.flatnonzero(~np.isin(self.ids, ids))

    def number(self, id: str) -> int | None:
        """The number of a text; None for one that is not held out now."""
        place = int(np.searchsorted(self.ids, id.encode()))
        return place if place < len(self.ids) and self.ids[place] == id.encode() else None

    def write(self, numbers: NDArray[np.int64], folder: Path) -> None:
        """Put ids and sorted distinct grams of some texts into a folder, for `compare`."""
        folder.mkdir()
        starts = np.concatenate([[0], np.cumsum(self.sizes[numbers])]).astype(np.int64)
        np.save(folder / "ids.npy", self.ids[numbers])
        np.save(folder / "starts.npy", starts)
        out = np.lib.format.open_memmap(folder / "grams.npy", mode="w+", dtype=np.uint64, shape=(int(starts[-1]),))
        for i, number in enumerate(numbers):
            begin = self._begin[number]
            out[starts[i] : starts[i + 1]] = self._grams[self._group[number]][begin : begin + self.sizes[number]]

    def seen(self, samples: Sequence[Path], documents: NDArray[np.bool_]) -> float | None:
        """The share of the sampled grams of some of the documents (N,) that are in one of the files of grams."""
        numbers = self.of_document[documents & (self.of_document >= 0)]
        weight = np.bincount(numbers, minlength=len(self.ids))  # texts may stand for several
        order = np.lexsort((self._begin, self._group))
        order = order[weight[order] > 0]
        cuts = np.searchsorted(self._group[order], np.arange(len(self._grams) + 1))
        grams, weights = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for group, every in enumerate(self._grams):
            own = order[cuts[group] : cuts[group + 1]]
            places = np.flatnonzero(sampled(every))
            text = np.searchsorted(self._begin[own], places, side="right") - 1
            inside = (text >= 0) & (places < (self._begin[own] + self.sizes[own])[text]) if len(own) else text >= 0
            grams.append(every[places[inside]])
            weights.append(weight[own[text[inside]]])
        sample, weighted = np.concatenate(grams), np.concatenate(weights)
        if not len(sample):
            return None
        keys = np.unique(sample)
        seen = np.zeros(len(keys), dtype=np.bool_)
        for file in samples:
            trained = np.load(file)
            places = np.minimum(np.searchsorted(keys, trained), len(keys) - 1)
            seen[places[keys[places] == trained]] = True
        return float(weighted[seen[np.searchsorted(keys, sample)]].sum() / weighted.sum())


class _Record:
    """Which sets of texts the shards of the last run were compared with, and what is added to that in this run."""

    def __init__(self, store: ShardStore, engine: Engine) -> None:
        self._store = store
        self._alone = engine.part is None  # nobody else works on this workspace
        self._file = store.root / f"compared-{store.salt}.json"
        if self._alone:
            for leftover in (*store.root.glob(".compared-*"), *store.root.glob(".texts-*")):  # of a run that was killed
                leftover.unlink()
        self._before: dict[str, list[tuple[str, str]]] = {}  # the mark of a shard -> its entries
        if self._file.exists():
            self._before = json.loads(self._file.read_text(encoding="utf-8"))
        self.now: dict[str, list[Entry]] = {}
        self._added: dict[str, NDArray[np.bytes_]] = {}

    def _texts(self, name: str) -> Path:
        return self._store.root / f"texts-{name}"

    def entries_of(self, mark: str) -> list[Entry]:
        """What is known of a shard, the entry with its sketch first; nothing where it has to be compared with all texts
        anew."""
        entries = [Entry(*entry) for entry in self._before.get(mark, ())]
        there = [
            entry
            for entry in entries
            if self._texts(entry.texts).exists() and (self._store.folder(entry.task) / "summary.json").exists()
        ]
        self.now[mark] = there if there[:1] == entries[:1] and len(there) < SETS else []
        return list(self.now[mark])

    def texts(self, sets: Sequence[str]) -> NDArray[np.bytes_]:
        """Ids of the texts of some sets."""
        return np.frombuffer(b"".join(self._texts(name).read_bytes() for name in sets), dtype="S40")

    def add(self, ids: NDArray[np.bytes_]) -> str:
        """The name of a set of texts."""
        name = hashlib.sha256(ids.tobytes()).hexdigest()[:32]
        self._added[name] = ids
        return name

    def note(self, name: str, *marks: str) -> str:
        """The fingerprint of the task that compares shards with a set of texts; it is where they will be looked up."""
        what = "further" if self.now[marks[0]] else "first"  # the first keeps the sketch
        task = fingerprint("compare", marks, name, what)
        for mark in marks:
            self.now[mark].append(Entry(name, task))
        return task

    def write(self, marks: Sequence[str]) -> list[list[Entry]]:
        """Remember what the shards are compared with, now that all of it is in the store; the entries of each."""
        for name, ids in self._added.items():
            write_atomically(self._texts(name), ids.tobytes().decode("ascii"))
        write_atomically(self._file, json.dumps(self.now))
        if self._alone:
            used = {self._texts(entry.texts) for entries in self.now.values() for entry in entries} | {self._file}
            for file in (*self._store.root.glob("compared-*.json"), *self._store.root.glob("texts-*")):
                if file not in used:
                    file.unlink()
        return [self.now[mark] for mark in marks]


# -- in a worker -------------------------------------------------------------------------------------------------------


def hash_texts(place: Place, folder: Path) -> dict[str, Any]:
    """The held-out documents of one shard: `ids.npy` (M,) of their contents, and of their grams, sorted and distinct,
    `grams.npy` (g,) and `starts.npy` (M + 1,)."""
    column = identity(place.part)
    ids = read_table(place.part, [column])[column].take(place.rows).to_pylist()
    sets = [_hashed(place.part, group, rows).distinct() for group, _, rows in _by_group(place) if len(rows)]
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(own.starts) for own in sets]))]).astype(np.int64)
    np.save(folder / "ids.npy", np.array(ids, dtype="S40"))
    np.save(folder / "grams.npy", np.concatenate([own.grams for own in sets]))
    np.save(folder / "starts.npy", starts)
    return {"texts": len(ids)}


class First(NamedTuple):
    """A shard's training documents, their mark, and the folder of the texts to compare them with."""

    place: Place
    mark: str
    texts: Path


class Known(NamedTuple):
    """A shard's training documents, their mark, and the entry that has their sketch."""

    place: Place
    mark: str
    sketch: Path


class Further(NamedTuple):
    """Shards that were compared before, and the folder of the texts that are new to them."""

    shards: Sequence[Known]
    texts: Path


def compare(payload: First | Further, folder: Path) -> dict[str, Any]:
    """Training documents with the texts that `_Texts.write` put into a folder: by mark, which of the texts have half of
    their grams in one of the documents, how many of them, and the place of the one that has most, the first of several.
    What is compared for the first time leaves its sketch in `folder`."""
    return {"near_copies": _compare_first(payload, folder) if isinstance(payload, First) else _compare_further(payload)}


def _compare_first(payload: First, folder: Path) -> dict[str, Any]:
    place, mark, texts = payload
    matches = _Matches(texts)
    none = np.zeros((0, SKETCH_PARTS), np.uint64), np.zeros(SKETCH_PARTS + 1, np.int64)
    made, sample = [none], [np.zeros(0, np.uint64)]
    for group, first, rows in _by_group(place):
        if not len(rows):
            made.append(none)
            continue
        hashed = _hashed(place.part, group, rows)
        words = sketch(hashed)
        made.append((words, sketched(hashed)))
        sample.append(np.unique(hashed.grams[sampled(hashed.grams)]))
        if len(numbers := np.flatnonzero(may_hold(matches.texts, words))):
            matches.add(numbers, hashed, first + rows)
    np.save(folder / "sketch.npy", np.concatenate([words for words, _ in made]))
    np.save(folder / "begins.npy", np.cumsum([len(words) for words, _ in made]))
    np.save(folder / "parts.npy", np.array([cuts for _, cuts in made[1:]]).reshape(-1, SKETCH_PARTS + 1))
    np.save(folder / "sample.npy", np.unique(np.concatenate(sample)))
    return {mark: matches.told(place)}


def _compare_further(payload: Further) -> dict[str, Any]:
    """Text is read only where, by the sketch, one of the texts may be in it."""
    shards, texts = payload
    told = {}
    for place, mark, base in shards:
        matches = _Matches(texts)
        words, begins, cuts = (np.load(base / f"{name}.npy", mmap_mode="c") for name in SKETCH)
        for group, first, rows in _by_group(place):
            if not len(rows):
                continue
            parts = may_hold(matches.texts, words[begins[group] : begins[group + 1]])
            if len(numbers := np.flatnonzero(parts)):
                inside = np.flatnonzero(np.bitwise_or.reduce(parts) >> np.arange(SKETCH_PARTS) & 1)
                rows = np.concatenate([rows[cuts[group][part] : cuts[group][part + 1]] for part in inside])
                matches.add(numbers, _hashed(place.part, group, rows), first + rows)
        told[mark] = matches.told(place)
    return told


class _Matches:
    """Which of the texts in a folder are half or more in one document: the best of those that are looked at."""

    def __init__(self, texts: Path) -> None:
        self._ids = np.load(texts / "ids.npy")
        self.texts = Grams(_mapped(texts / "grams.npy"), np.load(texts / "starts.npy"))
        self._best: dict[int, tuple[int, int]] = {}  # text -> how many grams, row

    def add(self, numbers: NDArray[np.int64], documents: Grams, rows: NDArray[np.int64]) -> None:
        """Look for the texts of these numbers (n,) in documents (N,), which are the shard's rows (N,)."""
        for some in _batches(numbers, self.texts):
            matcher = Matcher(self.texts.chosen(some))
            matcher.add(documents, 0)
            for i in np.flatnonzero(matcher.found).tolist():
                number, found = int(some[i]), int(matcher.found[i])
                if found > self._best.get(number, (0, 0))[0]:
                    self._best[number] = found, int(rows[matcher.probe[i]])

    def told(self, place: Place) -> list[list[Any]]:
        """What was found in the shard of this place, as JSON-able rows: id, how many grams, repository, path."""
        if not self._best:
            return []
        rows = np.array([row for _, row in self._best.values()], dtype=np.int64)
        names = read_table(place.part, ["repo", "path"]).take(rows)
        repos, paths = (names[name].to_pylist() for name in ("repo", "path"))
        return sorted(
            [self._ids[number].decode(), found, repo, path]
            for (number, (found, _)), repo, path in zip(self._best.items(), repos, paths, strict=True)
        )


def _by_group(place: Place) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """The number of each row group of a shard, its first row, and which of the rows from there on the place names."""
    starts = row_group_starts(place.part)
    cuts = np.searchsorted(place.rows, starts)
    for group in range(len(starts) - 1):
        yield group, int(starts[group]), place.rows[cuts[group] : cuts[group + 1]] - starts[group]


def _hashed(part: Path, group: int, rows: NDArray[np.int64]) -> Grams:
    """Grams of some rows of one row group."""
    (table,) = iter_row_groups(part, ["content"], [group])
    return Grams.of(*text_bytes(table["content"]), rows)


def _batches(numbers: NDArray[np.int64], texts: Grams) -> Iterator[NDArray[np.int64]]:
    """Cut numbers of texts where their grams together are more than `MATCH_GRAMS`."""
    total = np.cumsum(texts.starts[numbers + 1] - texts.starts[numbers])
    if len(numbers):
        yield from np.split(numbers, np.flatnonzero(np.diff(total // MATCH_GRAMS)) + 1)


def _mapped(file: Path) -> NDArray[np.uint64]:
    """An array in a file, read as it is needed."""
    array: NDArray[np.uint64] = np.asarray(np.load(file, mmap_mode="c"))
    return array
