"""The attribution index: which stretches of a text occur in the training data, and where.

Built over the documents of a token store that a model was trained on, and read together with that store: the index
holds seeds and no text, and what a seed leads to is decoded from the store's tokens. A copy is a stretch of 50
characters or more. Two seed tables: one of the bytes as they are ("exact"), one of the bytes without white space
("white space"), where a copy is one that has 50 bytes besides white space; a re-indented copy is found in the second.

    manifest.json       format, the store's and the tokenizer's checksums, counts
    documents.parquet   for each document: its number in the store, id, repository, path, language, licences, revision
    exact/, plain/      seed tables (`kringle.attribution.seeds`), and checkpoints.npy (`kringle.attribution.following`)

Every copy is found; of one that stands in very many documents, only some of the places are listed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kringle.attribution import following, kernels
from kringle.attribution.kernels import Bytes
from kringle.attribution.seeds import SeedTable
from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer

FORMAT = 1
SHORTEST_CHARACTERS = 50  # what counts as a copy
MOST_PLACES = 8  # that are listed for one stretch
PASSES = 6  # over the documents that building takes
WHITE_SPACE = b" \t\n\r\v\f"  # what the kernels strip

Kind = Literal["exact", "white space"]


@dataclass(frozen=True)
class Place:
    """Where a copied stretch stands: `start` and `end` are bytes of the document."""

    document: int
    start: int
    end: int


@dataclass(frozen=True)
class Copy:
    """A stretch of the text, in characters, that occurs in the training data; `places` are the first few found."""

    start: int
    end: int
    kind: Kind
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Source:
    """A document of the training data, as people know it."""

    id: str
    repo: str
    path: str
    language: str
    licenses: tuple[str, ...]
    revision: str


class _Spelling:
    """The bytes behind each token, as they are or without white space, in the form that kernels read: token t is
    blob[starts[t] : starts[t + 1]]."""

    def __init__(self, tokenizer: Tokenizer, *, plain: bool) -> None:
        spelt = [token.translate(None, WHITE_SPACE) if plain else token for token in tokenizer.token_bytes]
        self.starts = np.concatenate([[0], np.cumsum([len(token) for token in spelt])]).astype(np.int64)
        self.blob = np.frombuffer(b"".join(spelt), dtype=np.uint8)

    def decode(self, tokens: NDArray[Any]) -> Bytes:
        text: Bytes = kernels.decode(tokens, self.starts, self.blob)
        return text


class _Side:
    """One of the two halves of the index: a spelling, its seeds, and its checkpoints in the documents."""

    def __init__(self, folder: Path, spelling: _Spelling, mark_starts: NDArray[np.int64]) -> None:
        self.spelling, self.mark_starts = spelling, mark_starts
        self.seeds = SeedTable.open(folder)
        self.marks: NDArray[np.uint32] = np.load(folder / "checkpoints.npy", mmap_mode="r")
        self.sizes: NDArray[np.int64] = np.load(folder / "sizes.npy")

    @staticmethod
    def build(
        folder: Path,
        spelling: _Spelling,
        documents: Callable[[], Iterator[NDArray[Any]]],
        mark_starts: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Write seeds and checkpoints of the documents, given as tokens; returns their sizes in bytes (D,)."""
        marks = np.zeros(int(mark_starts[-1]), dtype=np.uint32)
        sizes = np.array(
            [
                following.checkpoints(tokens, spelling.starts, marks[mark_starts[i] :])
                for i, tokens in enumerate(documents())
            ],
            dtype=np.int64,
        )
        SeedTable.build(folder, sizes, lambda: map(spelling.decode, documents()))
        np.save(folder / "checkpoints.npy", marks)
        np.save(folder / "sizes.npy", sizes)
        return sizes


def _mark_starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
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
        self._table = pq.read_table(folder / "documents.parquet")
        numbers = self._table["number"].to_numpy()
        self._store = store
        self._firsts, self._lasts = store.offsets[numbers], store.offsets[numbers + 1]
        mark_starts = _mark_starts(self._lasts - self._firsts)
        self._exact = _Side(folder / "exact", _Spelling(tokenizer, plain=False), mark_starts)
        self._plain = _Side(folder / "plain", _Spelling(tokenizer, plain=True), mark_starts)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def source(self, document: int) -> Source:
        """What document number `document` of the index is."""
        (row,) = self._table.slice(document, 1).to_pylist()
        licenses = tuple(row["licenses"] or ())
        return Source(row["id"], row["repo"], row["path"], row["language"], licenses, row["revision"] or "")

    def repositories(self, name: str) -> dict[str, list[Source]]:
        """The repositories called `name` (`owner/name`, or either of the two; case does not matter), with documents."""
        wanted = name.strip().strip("/").lower()
        found: dict[str, list[Source]] = {}
        for number, repo in enumerate(self._table["repo"].to_pylist()):
            if wanted == repo.lower() or wanted in repo.lower().split("/"):
                found.setdefault(repo, []).append(self.source(number))
        return found

    def find(self, text: str) -> list[Copy]:
        """Every stretch of 50 characters or more that occurs in the training data, exact ones and those that differ in
        white space alone; in order, none inside another."""
        data = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        plain, origin = stripped(data)
        spans: list[tuple[int, int, list[Place], Kind]] = [
            (*span, "exact") for span in self._stretches(data, self._exact)
        ]
        for start, end, places in self._stretches(plain, self._plain):
            spans.append((int(origin[start]), int(origin[end - 1]) + 1, places, "white space"))
        return [replace(copy, places=tuple(self._as_they_are(copy))) for copy in _as_copies(data, spans)]

    def _stretches(self, data: Bytes, side: _Side) -> Iterator[tuple[int, int, list[Place]]]:
        """(start, end, places) in bytes of `data`, the longest common stretches of `SHORTEST` bytes or more; places are
        in the side's own spelling."""
        offsets, documents, seeds = side.seeds.candidates(data)
        rows = np.empty((len(offsets), 3), dtype=np.int64)
        count = following.follow(
            data, offsets, documents, seeds, self._store.tokens, self._firsts, self._lasts, side.sizes,
            side.spelling.starts, side.spelling.blob, side.mark_starts, side.marks, rows,
        )  # fmt: skip
        found: dict[tuple[int, int], dict[int, Place]] = {}  # by start and end, then by document: the first place in it
        for start, end, c in rows[:count].tolist():
            here = found.setdefault((start, end), {})
            if len(here) < MOST_PLACES:
                shift = int(seeds[c] - offsets[c])
                here.setdefault(int(documents[c]), Place(int(documents[c]), start + shift, end + shift))
        for (start, end), here in found.items():
            yield start, end, list(here.values())

    def _as_they_are(self, copy: Copy) -> Iterator[Place]:
        """The places of a copy in bytes of the documents as they are."""
        for place in copy.places:
            if copy.kind == "exact":
                yield place
                continue
            document = slice(int(self._firsts[place.document]), int(self._lasts[place.document]))
            origin = stripped(self._exact.spelling.decode(self._store.tokens[document]))[1]
            yield Place(place.document, int(origin[place.start]), int(origin[place.end - 1]) + 1)


def stripped(text: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """The bytes (N,) of `text` but white space, and where each came from (N,)."""
    out, places = np.empty(len(text), dtype=np.uint8), np.empty(len(text), dtype=np.int64)
    count = kernels.without_white_space(text, out, places)
    return out[:count], places[:count]


def _as_copies(data: Bytes, spans: Sequence[tuple[int, int, list[Place], Kind]]) -> list[Copy]:
    """Spans of bytes as copies of whole characters, 50 or more. Left out: what lies inside another of its kind, or
    inside an exact one."""
    begins = (data & 0xC0) != 0x80  # of a character in UTF-8
    before = np.concatenate([[0], np.cumsum(begins)])  # characters that begin before byte i
    whole = []
    for start, end, places, kind in spans:
        first = int(before[start])
        last = int(before[end]) - (end < len(data) and not begins[end])
        if last - first >= SHORTEST_CHARACTERS:
            whole.append(Copy(first, last, kind, tuple(places)))
    exact = _outermost([copy for copy in whole if copy.kind == "exact"])
    both = _outermost([*exact, *(copy for copy in whole if copy.kind == "white space")], keep=exact)
    return sorted(both, key=lambda copy: (copy.start, copy.end))


def _outermost(copies: Sequence[Copy], keep: Sequence[Copy] = ()) -> list[Copy]:
    """Those that lie inside no other, and those to `keep`."""
    left: list[Copy] = []
    reach = -1
    for copy in sorted(copies, key=lambda c: (c.start, -c.end, c.kind)):
        if copy.end > reach or copy in keep:
            left.append(copy)
        reach = max(reach, copy.end)
    return left


def build(
    store: TokenStore,
    tokenizer: Tokenizer,
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    on_document: Callable[[int], None] = lambda size: None,
) -> dict[str, int]:
    """Write the index of documents of `store` to the folder `out`, which appears whole or not at all.

    `rows`, one a document: number (in the store), id, repo, path, language, licenses, revision. `on_document(bytes)` is
    called `PASSES` times for each. Returns counts and sizes in bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    numbers = np.array([row["number"] for row in rows], dtype=np.int64)
    mark_starts = _mark_starts(np.diff(store.offsets)[numbers])

    def documents() -> Iterator[NDArray[Any]]:
        for number in numbers:
            tokens = store.document(int(number))
            yield tokens
            on_document(int(store.sizes[number]))

    sizes = _Side.build(partial / "exact", _Spelling(tokenizer, plain=False), documents, mark_starts)
    _Side.build(partial / "plain", _Spelling(tokenizer, plain=True), documents, mark_starts)
    columns = {name: [row[name] for row in rows] for name in ("id", "repo", "path", "language", "licenses", "revision")}
    pq.write_table(pa.table({"number": numbers, **columns}), partial / "documents.parquet", compression="zstd")
    counts = {"documents": len(rows), "bytes": int(sizes.sum())}
    manifest = {"format": FORMAT, "store": store.checksum, "tokenizer": tokenizer.checksum, **counts}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return {**counts, "index_bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file())}
