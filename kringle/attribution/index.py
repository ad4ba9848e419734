"""The attribution index: which stretches of a text occur in the training data, and where.

Built over the documents of a token store that a model was trained on, and read together with that store: the index
holds seeds and no text, and what a seed leads to is decoded from the store's tokens. A copy is a stretch of 50
characters or more. Two seed tables: one of the bytes as they are ("exact"), one of the bytes without white space
("white space"), where a copy is one that has 50 bytes besides white space; a re-indented copy is found in the second.

    manifest.json       format, the store's and the tokenizer's checksums, counts
    documents.parquet   for each document: its number in the store, id, repository, path, language, licences, source,
                        revision, and the other places where the same bytes were found
    exact/, plain/      seed tables (`kringle.attribution.seeds`), and checkpoints.npy (`kringle.attribution.following`)

Every copy is found; of one that stands in very many documents, only some of the places are listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kringle.attribution import following, kernels
from kringle.attribution.kernels import Bytes
from kringle.attribution.seeds import SeedTable
from kringle.attribution.sources import Source, Sources
from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer

FORMAT = 2
HALVES = ("exact", "plain")
SHORTEST_CHARACTERS = 50  # what counts as a copy
MOST_PLACES = 8  # that are listed for one stretch
_ROOM = 4096  # places that a look-up has room for at first
WHITE_SPACE = b" \t\n\r\v\f"  # what the kernels strip

Kind = Literal["exact", "white space"]
_Stretch = tuple[int, int, "list[Place]", Kind]


@dataclass(frozen=True)
class Place:
    """Where a copied stretch stands: `start` and `end` are bytes of the document."""

    document: int
    start: int
    end: int


@dataclass(frozen=True)
class Copy:
    """A stretch of the text, in characters, that occurs in the training data; `places` are the first few found, and it
    stands in `more` further documents at least."""

    start: int
    end: int
    kind: Kind
    places: tuple[Place, ...]
    more: int = 0


class Spelling:
    """The bytes behind each token, as they are or without white space, in the form that kernels read: token t is
    blob[starts[t] : starts[t + 1]]."""

    def __init__(self, tokenizer: Tokenizer, *, plain: bool) -> None:
        spelt = [token.translate(None, WHITE_SPACE) if plain else token for token in tokenizer.token_bytes]
        self.starts = np.concatenate([[0], np.cumsum([len(token) for token in spelt])]).astype(np.int64)
        self.blob = np.frombuffer(b"".join(spelt), dtype=np.uint8)

    def decode(self, tokens: NDArray[Any]) -> Bytes:
        text: Bytes = np.empty(int(np.diff(self.starts)[tokens].sum()), dtype=np.uint8)
        kernels.decode(tokens, self.starts, self.blob, text)
        return text


class _Side:
    """One of the two halves of the index: a spelling, its seeds, and its checkpoints in the documents."""

    def __init__(self, folder: Path, spelling: Spelling, mark_starts: NDArray[np.int64]) -> None:
        self.spelling, self.mark_starts = spelling, mark_starts
        self.seeds = SeedTable.open(folder)
        self.marks: NDArray[np.uint32] = np.load(folder / "checkpoints.npy", mmap_mode="r")
        self.sizes: NDArray[np.int64] = np.load(folder / "sizes.npy")


def mark_starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(D + 1,): where the checkpoints of documents of `lengths` tokens begin."""
    return np.concatenate([[0], np.cumsum(-(-lengths // following.CHECKPOINT))]).astype(np.int64)


class AttributionIndex:
    """An index opened for reading, with the store that it was built over."""

    def __init__(self, folder: Path, store: TokenStore, tokenizer: Tokenizer) -> None:
        import pyarrow.parquet as pq

        self.folder = folder
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            hint = "it is built by kringle run"
            raise UserError("is no attribution index", where=str(folder), hint=hint) from error
        expected = {"format": FORMAT, "store": store.checksum, "tokenizer": tokenizer.checksum}
        if found := [name for name, value in expected.items() if manifest.get(name) != value]:
            what = f"the attribution index was built with another {found[0]}"
            raise UserError(what, where=str(folder), hint="build it again")
        table = pq.read_table(folder / "documents.parquet")
        numbers = table["number"].to_numpy()
        self._store = store
        self._firsts, self._lasts = store.offsets[numbers], store.offsets[numbers + 1]
        self.sources = Sources(table, store.sizes[numbers], self._lasts - self._firsts)
        mark_starts = mark_starts_of(self._lasts - self._firsts)
        self._exact = _Side(folder / "exact", Spelling(tokenizer, plain=False), mark_starts)
        self._line_breaks = np.array([token.count(b"\n") for token in tokenizer.token_bytes], dtype=np.int64)
        self._plain = _Side(folder / "plain", Spelling(tokenizer, plain=True), mark_starts)

    def __len__(self) -> int:
        return len(self._firsts)

    def source(self, document: int) -> Source:
        """What document number `document` of the index is."""
        return self.sources[document]

    def line(self, document: int, byte: int) -> int:
        """The line, from 1, that a byte of a document is in."""
        tokens = self._store.tokens[self._firsts[document] : self._lasts[document]]
        spelling = self._exact.spelling
        ends = np.cumsum(np.diff(spelling.starts)[tokens])
        whole = int(np.searchsorted(ends, byte, side="right"))
        text = spelling.decode(tokens[whole : whole + 1])[: byte - int(ends[whole - 1] if whole else 0)]
        return 1 + int(self._line_breaks[tokens[:whole]].sum()) + int((text == 10).sum())

    def warm(self) -> None:
        """Look up the beginning of a document of its own, so that no later look-up waits for kernels to compile."""
        if len(self):
            tokens = self._store.tokens[self._firsts[0] : self._lasts[0]][: following.CHECKPOINT]
            self.find(self._exact.spelling.decode(tokens).tobytes().decode(errors="replace"))

    def find(self, text: str) -> list[Copy]:
        """Every stretch of 50 characters or more that occurs in the training data, exact ones and those that differ in
        white space alone; in order, none inside another."""
        data = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        plain, origin = stripped(data)
        spans: list[_Stretch] = [(*span, "exact") for span in self._stretches(data, self._exact)]
        for start, end, places in self._stretches(plain, self._plain):
            spans.append((int(origin[start]), int(origin[end - 1]) + 1, places, "white space"))
        return [replace(copy, places=tuple(self._as_they_are(copy))) for copy in _as_copies(data, spans)]

    def _stretches(self, data: Bytes, side: _Side) -> Iterator[tuple[int, int, list[Place]]]:
        """(start, end, places) in bytes of `data`, the longest common stretches of `SHORTEST` bytes or more; places are
        in the side's own spelling."""
        texts = following.Texts(
            self._store.tokens,
            self._firsts,
            self._lasts,
            side.spelling.starts,
            side.spelling.blob,
            side.mark_starts,
            side.marks,
        )
        room = _ROOM
        while True:
            rows = np.empty((room, 4), dtype=np.int64)
            count = following.search(data, side.seeds.shift, side.seeds, texts, rows)
            if count <= room:
                break
            room = count
        found: dict[tuple[int, int], dict[int, Place]] = {}  # by start and end, then by document: the first place in it
        for start, end, document, at in rows[:count].tolist():
            found.setdefault((start, end), {}).setdefault(document, Place(document, at, at + end - start))
        for (start, end), here in found.items():
            yield start, end, list(here.values())

    def _as_they_are(self, copy: Copy) -> Iterator[Place]:
        """The places of a copy in bytes of the documents as they are."""
        for place in copy.places:
            if copy.kind == "exact":
                yield place
            else:
                start, end = self._spread(place.document, place.start), self._spread(place.document, place.end - 1) + 1
                yield Place(place.document, start, end)

    def _spread(self, document: int, place: int) -> int:
        plain, exact = self._plain, self._exact
        marks = slice(int(exact.mark_starts[document]), int(exact.mark_starts[document + 1]))
        return int(
            following.spread(
                self._store.tokens, int(self._firsts[document]), plain.spelling.starts, plain.marks[marks], place,
                exact.spelling.starts, exact.spelling.blob, exact.marks[marks],
            )
        )  # fmt: skip


def stripped(text: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """The bytes (N,) of `text` but white space, and where each came from (N,)."""
    out, places = np.empty(len(text), dtype=np.uint8), np.empty(len(text), dtype=np.int64)
    count = kernels.without_white_space(text, out, places)
    return out[:count], places[:count]


def _as_copies(data: Bytes, spans: Sequence[_Stretch]) -> list[Copy]:
    """Spans of bytes as copies of whole characters, 50 or more. Left out: what lies inside another of its kind, or
    inside an exact one."""
    begins = (data & 0xC0) != 0x80  # of a character in UTF-8
    before = np.concatenate([[0], np.cumsum(begins)])  # characters that begin before byte i
    whole = []
    for start, end, places, kind in spans:
        first = int(before[start])
        last = int(before[end]) - (end < len(data) and not begins[end])
        if last - first >= SHORTEST_CHARACTERS:
            listed = tuple(places[:MOST_PLACES])
            whole.append(Copy(first, last, kind, listed, len(places) - len(listed)))
    return outermost(whole)


def outermost(copies: Sequence[Copy]) -> list[Copy]:
    """Those that lie inside no other of their kind, and inside no exact one; in order."""
    left: list[Copy] = []
    reach = {"exact": -1, "white space": -1}
    for copy in sorted(copies, key=lambda c: (c.start, -c.end, c.kind)):
        others = reach["exact"] if copy.kind == "exact" else max(reach.values())
        if copy.end > others:
            left.append(copy)
        reach[copy.kind] = max(reach[copy.kind], copy.end)
    return sorted(left, key=lambda copy: (copy.start, copy.end))
