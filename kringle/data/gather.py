"""Gathering: the work of collect's tasks. Candidates or a container in, a shard of documents and its decisions out.

A task knows nothing of other tasks: exact duplicates are told apart later (`kringle.data.merge`). Documents stream to
disk a row group at a time, so memory does not grow with a container. What was passed over is counted by step and reason
in the task's summary, and told file by file in its decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from kringle.data import optout, origin, stars
from kringle.data.languages import TITLES, contradiction
from kringle.data.licenses import Allowed, license_label
from kringle.data.optout import OptOuts
from kringle.data.reading import Reader, Unreadable, blob_id, decode
from kringle.data.sources.archives import read_archive
from kringle.data.sources.candidates import Candidate, printable
from kringle.data.sources.containers import Broken, Container, Found, Member, Passed, Uncounted, Wanted
from kringle.data.sources.table_rows import read_rows
from kringle.data.table import DECISION, Decision, DocumentWriter, TableWriter
from kringle.randomness import uniform

TEXT = "UTF-8 text"
SAMPLE_SEED = 0  # the corpus is the same for every training seed
LANGUAGE = "language"
DECISIONS_AT_ONCE = 50_000


class Terms(NamedTuple):
    """What every task holds documents to. JSON-able, opt-outs aside: they are asked for again at every run.

    `bound` is where the sample is cut, 1.0 for none; it concerns containers alone, candidates were drawn before.
    """

    languages: tuple[str, ...]
    max_file_bytes: int
    licenses: str
    allow_licenses: tuple[str, ...]
    leave_out: tuple[str, ...]
    stars: str | None
    stars_checksum: str | None
    bound: float
    opt_out: tuple[str, ...]

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """All but the opt-outs: a shard in the store is held against those when it is looked at."""
        return tuple(self._replace(opt_out=()))

    def of_repo(self, repo: str) -> int | None:
        """Stars by the user's table; None where there is none, or none of this repository."""
        if self.stars is None or self.stars_checksum is None:
            return None
        return stars.load(Path(self.stars), self.stars_checksum).of(repo)


def license_rule(licenses: str, allow: Iterable[str]) -> str:
    """The threshold of the licence step, in words."""
    return "any" if licenses == "any" else " or ".join(["permissive", *allow])


class Place(NamedTuple):
    """Where a document lies, and what its source says of it."""

    source: str
    repo: str
    path: str
    language: str
    licenses: tuple[str, ...]
    stars: int | None
    revision: str


class Shelf:
    """One task's output as it grows: documents, decisions, counts. Use as a context manager."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._terms, self._opt_outs = terms, OptOuts(terms.opt_out)
        self._documents = DocumentWriter(folder / "documents.parquet")
        self._writer = TableWriter(folder / "decisions.parquet", DECISION)
        self._pending: list[Decision] = []
        self._seen = [0, 0]
        self._dropped: dict[str, dict[str, list[int]]] = {}
        self._uncounted: dict[str, Counter[str]] = {"unasked": Counter(), "other": Counter()}
        self._opted_out: set[str] = set()
        self._faults: list[str] = []
        self._kept = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._documents.close()
        self._writer.close()

    def summary(self) -> dict[str, Any]:
        """What the task did, as JSON-able values; `dropped` is step -> reason -> [files, bytes]."""
        return {
            "documents": self._kept,
            "seen": self._seen,
            "dropped": self._dropped,
            "unasked": dict(self._uncounted["unasked"]),
            "other": dict(self._uncounted["other"]),
            "opted_out": sorted(self._opted_out),
            "faults": self._faults,
        }

    def fault(self, place: str, reason: str, source: str) -> None:
        """A container that is broken, as one line for the reader and one decision."""
        self._faults.append(f"{printable(place)}: {reason}")
        self.decide(Decision(None, source, printable(place), "read", None, TEXT, False, reason))

    def uncounted(self, found: Uncounted) -> None:
        """Count a file in a language that is not asked for."""
        if found.language is None:
            self._uncounted["other"][found.extension] += 1
        else:
            self._uncounted["unasked"][found.language] += 1

    def see(self, size: int) -> None:
        """Count a file that is in a wanted language, whatever becomes of it."""
        self._seen[0] += 1
        self._seen[1] += size

    def drop(self, decision: Decision, reason: str, size: int) -> None:
        """Record a decision that drops a file, under a reason that groups it."""
        counts = self._dropped.setdefault(decision.step, {}).setdefault(reason, [0, 0])
        counts[0] += 1
        counts[1] += size
        self.decide(decision)

    def _flush(self) -> None:
        self._writer.write_rows(self._pending)
        self._pending = []

    def decide(self, decision: Decision) -> None:
        """Record a decision."""
        self._pending.append(decision)
        if len(self._pending) >= DECISIONS_AT_ONCE:
            self._flush()

    def opted_out(self, id: str | None, repo: str, path: str, size: int) -> bool:
        """Whether a rule names this document; records it if so."""
        rule = self._opt_outs.document(id, repo, path) if self._opt_outs else None
        if rule is None:
            return False
        self._opted_out.add(rule)
        self.drop(Decision(id, repo, path, optout.STEP, None, optout.THRESHOLD, False, rule), "opted out", size)
        return True

    def unreadable(self, repo: str, path: str, size: int, reason: str) -> None:
        """Record a file that is no text, or could not be read."""
        group = reason.partition(":")[0].partition(" (")[0]
        self.drop(Decision(None, repo, path, "read", size, TEXT, False, reason), group, size)

    def take(self, place: Place, data: bytes) -> None:
        """Take a file's bytes in as a document, if they are a text of this repository's own in a wanted language."""
        size = len(data)
        at = (place.repo, place.path)
        try:
            content = decode(data)
        except Unreadable as reason:
            self.unreadable(*at, size, str(reason))
            return
        id = blob_id(data)
        if self.opted_out(id, *at, size):
            return
        self.decide(Decision(id, *at, "read", size, TEXT, True))
        language = self._language(id, place, content, size)
        if language is None or not self._own(id, place, content, language, size):
            return
        counted = self._terms.of_repo(place.repo)
        self._kept += 1
        self._documents.add(
            {
                "id": id,
                "content_id": id,
                "content": content,
                "path": place.path,
                "repo": place.repo,
                "language": language,
                "size": size,
                "licenses": list(place.licenses),
                "stars": place.stars if counted is None else counted,
                "source": place.source,
                "revision": place.revision,
                "copies": [],
            }
        )

    def _language(self, id: str, place: Place, content: str, size: int) -> str | None:
        """The language by name and content; None, told, when the text is in none that is wanted."""
        against = contradiction(place.language, content)
        if against is None:
            return place.language
        language, evidence = against
        wanted = language in self._terms.languages
        threshold = " or ".join(TITLES[name] for name in self._terms.languages)
        decision = Decision(id, place.repo, place.path, LANGUAGE, None, threshold, wanted, evidence)
        if not wanted:
            self.drop(decision, f"not {TITLES[place.language]} by its content", size)
            return None
        self.decide(decision)
        return language

    def _own(self, id: str, place: Place, content: str, language: str, size: int) -> bool:
        found = origin.of_path(place.path) or origin.of_content(content, language)
        kept = found is None or found.kind not in self._terms.leave_out
        witness = None if found is None else str(found)
        decision = Decision(id, place.repo, place.path, origin.STEP, None, origin.THRESHOLD, kept, witness)
        if kept:
            self.decide(decision)
        else:
            assert found is not None
            self.drop(decision, found.kind, size)
        return kept


def gather_candidates(payload: tuple[list[Candidate], Terms], folder: Path) -> dict[str, Any]:
    """One task, in a worker: read candidates and write `documents.parquet` and `decisions.parquet` into `folder`."""
    candidates, terms = payload
    with Reader() as reader, Shelf(folder, terms) as shelf:
        for c in candidates:
            try:
                data = reader.read(c)
            except Unreadable as reason:
                shelf.unreadable(c.repo, c.path, c.size, str(reason))
                continue
            shelf.take(Place(c.source, c.repo, c.path, c.language, c.licenses, c.stars, c.revision), data)
        return shelf.summary()


def gather_container(payload: tuple[Container, Terms], folder: Path) -> dict[str, Any]:
    """One task, in a worker: read a container and write `documents.parquet` and `decisions.parquet` into `folder`."""
    container, terms = payload
    judge = _Judge(container, terms)
    with Shelf(folder, terms) as shelf:
        for found in _read(container, terms):
            if isinstance(found, Broken):
                shelf.fault(found.place, found.reason, container.source)
            elif isinstance(found, Uncounted):
                shelf.uncounted(found)
            elif isinstance(found, Passed):
                shelf.see(found.size)
                decision = Decision(
                    None, found.repo, found.path, found.step, found.value, found.threshold, False, found.witness
                )
                shelf.drop(decision, found.reason, found.size)
            else:
                shelf.see(len(found.data))
                for decision in (decisions := judge.decisions(found)):
                    if decision.kept:
                        shelf.decide(decision)
                    else:
                        shelf.drop(decision, judge.reason(decision), len(found.data))
                if all(decision.kept for decision in decisions):
                    place = Place(
                        container.source, found.repo, found.path, found.language, found.licenses, found.stars,
                        found.revision,
                    )  # fmt: skip
                    shelf.take(place, found.data)
        return shelf.summary()


def measure_container(payload: tuple[Container, Terms], folder: Path) -> dict[str, Any]:
    """One task, in a worker: the draw and size of every document of a container that the sample may take, into
    `folder/draws.npy`, a (N, 2) array of float64."""
    container, terms = payload
    judge = _Judge(container, terms._replace(bound=1.0))
    rows = [
        (draw(found.repo, found.path), len(found.data))
        for found in _read(container, terms)
        if isinstance(found, Member) and all(decision.kept for decision in judge.decisions(found))
    ]
    np.save(folder / "draws.npy", np.array(rows, dtype=np.float64).reshape(-1, 2))
    return {"documents": len(rows)}


def draw(repo: str, path: str) -> float:
    """A file's place in the order in which a sample takes files, in [0, 1)."""
    return uniform(SAMPLE_SEED, "corpus-sample", repo, path)


def _read(container: Container, terms: Terms) -> Iterator[Found]:
    wanted = Wanted(terms.languages, terms.max_file_bytes)
    return (read_archive if container.kind == "archive" else read_rows)(container, wanted)


class _Judge:
    """The steps that candidates have passed before they are read, for what a container holds."""

    def __init__(self, container: Container, terms: Terms) -> None:
        self._terms, self._allowed = terms, Allowed(terms.allow_licenses)
        self._rule = license_rule(terms.licenses, terms.allow_licenses)
        self._size = f"1 to {terms.max_file_bytes:,} bytes"
        self._opt_outs = OptOuts(terms.opt_out)

    def decisions(self, found: Member) -> list[Decision]:
        """Decisions up to the first that drops the document."""
        decisions: list[Decision] = []
        for decision in self._steps(found):
            decisions.append(decision)
            if not decision.kept:
                break
        return decisions

    def _steps(self, found: Member) -> Iterator[Decision]:
        at, terms = (found.repo, found.path), self._terms
        if (rule := self._opt_outs.place(*at)) is not None:
            yield Decision(None, *at, optout.STEP, None, optout.THRESHOLD, False, rule)
        yield Decision(None, *at, "size", len(found.data), self._size, True)
        permitted = terms.licenses == "any" or self._allowed.permits(found.licenses)
        yield Decision(None, *at, "licence", None, self._rule, permitted, license_label(found.licenses))
        early = origin.of_path(found.path)
        if early is not None and early.kind in terms.leave_out:
            yield Decision(None, *at, origin.STEP, None, origin.THRESHOLD, False, str(early))
        if terms.bound < 1.0:
            drawn = draw(*at)
            yield Decision(None, *at, "sample", drawn, f"drawn before {terms.bound:.6f}", drawn < terms.bound)

    @staticmethod
    def reason(decision: Decision) -> str:
        """What groups a decision that drops with others like it in the funnel."""
        witness = decision.witness or ""
        return {optout.STEP: "opted out", "licence": witness, origin.STEP: witness.partition(":")[0]}.get(
            decision.step, "not drawn"
        )
