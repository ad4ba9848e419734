"""Batches: `batch(step)` is a pure function of the constructor's arguments and the step, so resuming needs no state.

How a batch comes to be:

1. *Pieces.* A document is cut from its start into pieces of `piece_size(context)` tokens and a remainder. The grid
   depends on the context alone: not on the ablation, the epoch or the other documents. So two arms that share a
   document share its pieces, and with the same seed also which of them are rearranged, and where they are cut.
2. *Order.* An epoch takes every piece of every document once, sorted by a hash of (seed, document, piece, epoch).
3. *Sequences.* A piece becomes a fill-in-the-middle sequence (`kringle.training.fim`) or stays left to right. Left to
   right, end-of-text precedes a document's true start and follows its true end, as it does in SantaCoder's stream,
   where each document follows the end of another; a cut inside a document gets none, because nothing ends there.
4. *Rows.* Sequences are packed into rows of `context` positions without being cut. Inputs are a sequence without its
   last token, targets the same without its first; positions count from 0 in each sequence, and segments keep attention
   inside it. So a target never lies in another piece, and every position but padding has one.
5. *Batches.* Consecutive rows; where an epoch ends inside a batch, the next one goes on.

Whether a rearranged piece fits is known before its text is read: it gets room for three sentinels and `GROWTH` tokens
more than the piece has, because encoding the parts separately takes a few more.

Languages come in the proportion of their tokens, or of given weights: then an epoch, whose length stays what it was,
takes `weight / natural share` passes through a language's pieces. The passes follow each other across epochs, each in
an order of its own, so every piece has been shown once before any is shown twice. Does not cover: SantaCoder's own
procedure (`kringle.training.windows`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.fim import SENTINELS, Draw, rearrange
from kringle.training.hashing import document_keys, hashes, uniforms
from kringle.training.packing import pack

IGNORED = -100  # target of a padding position; PyTorch's default for cross-entropy
PADDING = -1  # segment of a padding position
GROWTH = 4  # tokens gained by encoding three parts separately: at most 4 in 97% of 14,141 pieces of Python, 9 in all
PLANS_KEPT = 2  # epochs: a batch touches at most two, unless the corpus is smaller than a batch
ROWS_AT_ONCE = 256  # rows rendered together where many are asked for


class FimShares(Protocol):
    """Share of pieces that are rearranged, and the share of those in SPM order."""

    @property
    def rate(self) -> float: ...
    @property
    def spm(self) -> float: ...


def piece_size(context: int) -> int:
    """Tokens of a full piece: what a context holds beside the sentinels and the growth of a rearranged piece."""
    return context - SENTINELS - GROWTH


def taught_positions(context: int) -> int:
    """Positions at which every model learns running text: those of a full piece, whatever becomes of it.

    Beyond them a left-to-right arm never sees a token, and a fill-in-the-middle arm little but the end of a middle and
    the end-of-text after it. Measured there, bits per byte of such an arm came out 0.7% too high: enough to turn a
    comparison around.
    """
    return piece_size(context)


@dataclass(frozen=True)
class Batch:
    """One step's rows; arrays (B, T) int64.

    `targets` is -100 on padding. `segments` numbers the sequences of a row from 0, -1 on padding. `documents` are the
    ids in the batch, `rearranged` counts fill-in-the-middle sequences, `left` the pieces drawn for it that did not
    allow it, `filled` the `<fim_pad>` tokens that are targets (SantaCoder's procedure alone has any).
    """

    tokens: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    documents: tuple[str, ...]
    rearranged: int
    left: int
    filled: int = 0

    @property
    def valid(self) -> int:
        """Number of targets."""
        return int((self.targets != IGNORED).sum())

    @property
    def utilisation(self) -> float:
        """Share of positions that are not padding of either kind."""
        return (self.valid - self.filled) / self.targets.size


def check_view(
    store: TokenStore,
    documents: np.ndarray,
    tokenizer: Tokenizer,
    *,
    context: int,
    batch_tokens: int,
    fim: FimShares,
) -> None:
    """Refuse settings and views that no batch can be made of; for both manners of making batches."""
    if batch_tokens < 1 or batch_tokens % context:
        raise UserError(
            f"batch_tokens {batch_tokens} is not a multiple of the context {context}",
            where="training.batch_tokens",
            hint=f"use {max(1, batch_tokens // context) * context}",
        )
    if piece_size(context) < 2:
        raise UserError(
            f"a context of {context} leaves no room for a piece and its fill-in-the-middle tokens",
            where="model.context",
            hint=f"use at least {2 + SENTINELS + GROWTH}",
        )
    for name, share in (("rate", fim.rate), ("spm", fim.spm)):
        if not 0 <= share <= 1:
            raise UserError(f"must be within 0 and 1, got {share}", where=f"training.fim.{name}")
    if store.vocab_size > tokenizer.text_size:
        raise UserError(
            f"holds a vocabulary of {store.vocab_size} tokens, the tokenizer has {tokenizer.text_size}",
            where=str(store.folder),
            hint="encode with this tokenizer",
        )
    if store.tokenizer and store.tokenizer != tokenizer.checksum:
        raise UserError(
            f"was encoded with another tokenizer ({store.tokenizer[:12]}, not {tokenizer.checksum[:12]})",
            where=str(store.folder),
            hint="encode with this tokenizer",
        )
    if not len(documents):
        raise UserError("no documents to train on", where="training", hint="loosen the filters or add sources")
    if len(np.unique(documents)) != len(documents):
        raise ValueError("a document is named twice")
    if documents.min() < 0 or documents.max() >= len(store):
        raise ValueError(f"document numbers run from 0 to {len(store) - 1}")


class BatchSource(Protocol):
    """What the trainer asks of batches, whichever way they are made."""

    tokenizer: Tokenizer
    context: int
    batch_tokens: int
    fim_rate: float
    fim_spm: float
    rows: int

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch: ...

    def epochs(self, steps: int) -> float: ...


@dataclass(frozen=True)
class _Epoch:
    """The plan of one epoch: its pieces in the order of rows, `bounds[r] : bounds[r + 1]` those of row r."""

    pieces: np.ndarray  # (P,) index into the grid
    bounds: np.ndarray  # (R + 1,)
    drawn: np.ndarray  # (P,) bool: drawn for fill-in-the-middle
    cuts: np.ndarray  # (P, 2) float64: where, as shares of the piece's length
    suffix_first: np.ndarray  # (P,) bool

    @property
    def rows(self) -> int:
        return len(self.bounds) - 1

    def draw(self, at: int) -> Draw:
        """What chance decides about the piece at this place of the order."""
        return Draw(float(self.cuts[at, 0]), float(self.cuts[at, 1]), bool(self.suffix_first[at]))


class Batches:
    """The batches of one training run over a view (`documents`, numbers in the store) of a token store."""

    def __init__(
        self,
        store: TokenStore,
        documents: Sequence[int] | np.ndarray,
        tokenizer: Tokenizer,
        *,
        context: int,
        batch_tokens: int,
        fim: FimShares,
        seed: int,
        mixture: Mapping[str, float] | None = None,
    ) -> None:
        """`mixture` weighs languages by name; None leaves them in the proportion of their tokens."""
        self.store, self.tokenizer = store, tokenizer
        self.context, self.batch_tokens, self.seed = context, batch_tokens, seed
        self.fim_rate, self.fim_spm = fim.rate, fim.spm
        self.documents = np.asarray(documents, dtype=np.int64)
        check_view(store, self.documents, tokenizer, context=context, batch_tokens=batch_tokens, fim=fim)
        self.mixture = dict(mixture) if mixture else None
        self.rows = batch_tokens // context  # rows in a batch
        self._cut_documents()
        self._passes = self._passes_per_epoch()
        self._plans: OrderedDict[int, _Epoch] = OrderedDict()
        self._ends: list[int] = []  # rows up to and with each epoch that has been planned
        self._lock = threading.RLock()  # the trainer's loader thread and its main thread may both ask
        if (first := self._plan(0).rows) < self.rows:
            raise UserError(
                f"the corpus fills {first} rows of {context} tokens, a batch of {batch_tokens} tokens has {self.rows}",
                where="training.batch_tokens",
                hint=f"use at most {first * context}, or more source code",
            )

    def _cut_documents(self) -> None:
        """The grid: for each piece its document (a number in the store), start, length, and what it borders on."""
        size = piece_size(self.context)
        lengths = np.diff(self.store.offsets)[self.documents]
        counts = -(-lengths // size)
        if not counts.sum():
            raise UserError("the documents to train on hold no tokens", where="training", hint="add source code")
        self._document = np.repeat(self.documents, counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        self._start = (np.arange(counts.sum()) - first) * size
        whole = np.repeat(lengths, counts)
        self._length = np.minimum(size, whole - self._start)
        self._opens = self._start == 0
        self._closes = self._start + self._length == whole
        keys = document_keys([self.store.ids[i] for i in self.documents.tolist()])
        self._key = np.repeat(keys, counts)

    @property
    def pieces(self) -> int:
        """Pieces in one epoch."""
        return len(self._start)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the batches are a function of, JSON-able."""
        ids = sorted(self.store.ids[i] for i in self.documents.tolist())
        return {
            "store": self.store.checksum,
            "documents": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
            "tokenizer": self.tokenizer.checksum,
            "context": self.context,
            "batch_tokens": self.batch_tokens,
            "fim_rate": self.fim_rate,
            "fim_spm": self.fim_spm,
            "seed": self.seed,
            **({"mixture": self.mixture} if self.mixture else {}),
        }

    # -- plans ---------------------------------------------------------------------------------------------------------

    def _plan(self, epoch: int) -> _Epoch:
        """The plan of an epoch, from lengths and hashes alone; no token is read."""
        with self._lock:
            if epoch in self._plans:
                self._plans.move_to_end(epoch)
                return self._plans[epoch]
            plan = self._make_plan(epoch)
            self._plans[epoch] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            return plan

    def _make_plan(self, epoch: int) -> _Epoch:
        taken, passes = self._taken(epoch)
        if not len(taken):  # a sliver of a pass may hold no piece
            none = np.empty(0, np.int64)
            return _Epoch(none, np.zeros(1, np.int64), none.astype(bool), np.empty((0, 2)), none.astype(bool))
        keys = (self._key[taken], self._start[taken], passes)
        order = np.argsort(hashes(self.seed, "order", *keys), kind="stable")
        drawn = uniforms(self.seed, "fim", *keys, 0) < self.fim_rate
        spm = uniforms(self.seed, "fim", *keys, 1) < self.fim_spm
        cuts = np.stack([uniforms(self.seed, "fim", *keys, i) for i in (2, 3)], axis=1)
        row, count = pack(self._positions(taken, drawn)[order], self.context)
        order = order[np.argsort(row, kind="stable")]
        bounds = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=count))))
        return _Epoch(taken[order], bounds, drawn[order], cuts[order], spm[order])

    def _passes_per_epoch(self) -> np.ndarray | None:
        """(P,) passes that an epoch makes through each piece's language; None where languages are not weighed."""
        if self.mixture is None:
            return None
        names = np.array(self.store.languages)[self._document]
        tokens = {str(name): int(self._length[names == name].sum()) for name in np.unique(names)}
        for name in tokens:
            if name not in self.mixture:
                hint = f"name all of {', '.join(tokens)}; 0 leaves one out"
                raise UserError(f"has no weight for {name}", where="training.mixture", hint=hint)
        weights = {name: self.mixture[name] for name in tokens}
        for name, weight in self.mixture.items():
            if name not in tokens and weight > 0:
                raise UserError(f"weighs {name}, of which there is nothing to train on", where="training.mixture")
        if not all(weight >= 0 for weight in weights.values()) or not sum(weights.values()) > 0:
            raise UserError("needs weights of at least 0, one of them above 0", where="training.mixture")
        total, share = sum(tokens.values()), sum(weights.values())
        passes = np.zeros(len(names))
        for name, weight in weights.items():
            passes[names == name] = weight / share * total / tokens[name]
        return passes

    def _taken(self, epoch: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Index into the grid of the pieces that an epoch takes, and the pass through its language that each is of.

        An epoch covers the passes from `epoch * r` to `(epoch + 1) * r`; a piece has a place of its own in each pass.
        """
        if self._passes is None:
            return np.arange(self.pieces), epoch
        first, last = epoch * self._passes, (epoch + 1) * self._passes
        taken, passes = [], []
        for number in range(int(first[self._passes > 0].min()), int(np.ceil(last.max()))):
            place = number + uniforms(self.seed, "mixture", self._key, self._start, number)
            found = np.flatnonzero((first <= place) & (place < last))
            taken.append(found)
            passes.append(np.full(len(found), number))
        return np.concatenate(taken), np.concatenate(passes)

    def _positions(self, taken: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Positions set aside for each piece: its sequence's inputs, which leave out the sequence's last token."""
        plain = self._length[taken] + self._opens[taken] + self._closes[taken] - 1
        return np.asarray(np.where(drawn, self._length[taken] + SENTINELS + GROWTH, plain))

    def _locate(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """(epoch, row) of `count` rows from row number `first` on, counted over all epochs."""
        epoch = start = 0
        while count:
            end = self._end(epoch)
            while first < end and count:
                yield epoch, first - start
                first, count = first + 1, count - 1
            start, epoch = end, epoch + 1

    def _end(self, epoch: int) -> int:
        """Rows in all epochs up to and with this one, whose forerunners have been asked for before."""
        with self._lock:
            if epoch == len(self._ends):
                self._ends.append((self._ends[-1] if self._ends else 0) + self._plan(epoch).rows)
            return self._ends[epoch]

    # -- sequences -----------------------------------------------------------------------------------------------------

    def _render(self, places: Sequence[tuple[int, int]]) -> list[_Row]:
        """The rows at these (epoch, row) places; all texts are encoded in one call."""
        rows = []
        for epoch, number in places:
            plan = self._plan(epoch)
            rows.append([(plan, at) for at in range(plan.bounds[number], plan.bounds[number + 1])])
        chosen = [(plan, at) for row in rows for plan, at in row if plan.drawn[at]]
        grid = [int(plan.pieces[at]) for plan, at in chosen]
        rearranged = iter(
            rearrange(
                [self._tokens(piece) for piece in grid],
                [plan.draw(at) for plan, at in chosen],
                [int(self._length[piece]) + SENTINELS + GROWTH + 1 for piece in grid],
                self.tokenizer,
            )
        )
        result = []
        for row in rows:
            made = _Row([], [], 0, 0)
            for plan, at in row:
                piece = int(plan.pieces[at])
                sequence = next(rearranged) if plan.drawn[at] else None
                made.rearranged += sequence is not None
                made.left += bool(plan.drawn[at]) and sequence is None
                made.sequences.append(self._plain(piece) if sequence is None else sequence)
                made.documents.append(int(self._document[piece]))
            result.append(made)
        return result

    def _tokens(self, piece: int) -> np.ndarray:
        start = int(self._start[piece])
        return self.store.document(int(self._document[piece]))[start : start + int(self._length[piece])]

    def _plain(self, piece: int) -> np.ndarray:
        """A piece left to right, with end-of-text where the document starts and where it ends."""
        end = np.array([self.tokenizer.specials.end_of_text])
        before, after = end[: int(self._opens[piece])], end[: int(self._closes[piece])]
        return np.concatenate((before, self._tokens(piece), after), dtype=np.int64)

    # -- what the trainer asks for -------------------------------------------------------------------------------------

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """The batch of a step, counted from 0, or `count` of its rows from row `first` on."""
        count = self.rows if count is None else count
        rows = self._render(list(self._locate(step * self.rows + first, count)))
        shape = (count, self.context)
        tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        targets, segments = np.full(shape, IGNORED, np.int64), np.full(shape, PADDING, np.int64)
        for r, row in enumerate(rows):
            start = 0
            for number, sequence in enumerate(row.sequences):
                place = slice(start, start + len(sequence) - 1)
                tokens[r, place], targets[r, place] = sequence[:-1], sequence[1:]
                positions[r, place], segments[r, place] = np.arange(len(sequence) - 1), number
                start = place.stop
        return Batch(
            tokens,
            targets,
            positions,
            segments,
            tuple(dict.fromkeys(self.store.ids[d] for row in rows for d in row.documents)),
            sum(row.rearranged for row in rows),
            sum(row.left for row in rows),
        )

    def shown(self, steps: int, start: int = 0) -> Iterator[np.ndarray]:
        """The exact sequences (T,) int64 that the model sees in its first `steps` steps from step `start` on, specials
        included."""
        total = steps * self.rows
        for first in range(start * self.rows, total, ROWS_AT_ONCE):
            for row in self._render(list(self._locate(first, min(ROWS_AT_ONCE, total - first)))):
                yield from row.sequences

    def tokens_seen(self, steps: int) -> int:
        """Targets in the first `steps` steps; reads and encodes them all."""
        return sum(len(sequence) - 1 for sequence in self.shown(steps))

    def seen_documents(self, steps: int) -> list[int]:
        """Numbers in the store, ascending, of the documents with at least one piece in the first `steps` steps."""
        seen: set[int] = set()
        for epoch, row in self._locate(0, steps * self.rows):
            plan = self._plan(epoch)
            seen.update(self._document[plan.pieces[plan.bounds[row] : plan.bounds[row + 1]]].tolist())
        return sorted(seen)

    def epochs(self, steps: int) -> float:
        """Passes through the documents after `steps` steps: 1.25 is one, and a quarter of the rows of the next."""
        if not steps:
            return 0.0
        *_, (epoch, row) = self._locate(0, steps * self.rows)
        return epoch + (row + 1) / self._plan(epoch).rows


@dataclass
class _Row:
    sequences: list[np.ndarray]
    documents: list[int]
    rearranged: int
    left: int
