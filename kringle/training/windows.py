"""Batches as SantaCoder's loader made them: windows of one continuous stream, rearranged after they have been cut.

`kringle.training.batches` is the default, `corrected` manner; this is `faithful`, step by step what the BigCode
Megatron fork does (November 2022), with our random draws in place of its one generator per process:

1. *Stream.* Every document's tokens with one end-of-text after them; documents of all epochs shuffled together. If the
   run needs less than 80% of the last epoch, that epoch is shuffled apart and comes last.
2. *Windows.* Every `context` tokens a window of `context + 1` begins (they overlap by one token); windows are shuffled
   once more, those of a separate last epoch among themselves.
3. *Fill-in-the-middle* inside the window. Each run of tokens between end-of-texts is a segment; an empty one is dropped
   together with its end-of-text. For a share `rate` of the segments two places are drawn uniformly from 0 .. length in
   characters; prefix, middle and suffix are encoded separately and laid in SPM (share `spm`) or PSM order. What follows
   the last end-of-text is a segment too, also when it is empty, and gets no end-of-text.
4. The window is cut back to `context + 1` tokens, which usually costs the last middle its end, or filled with
   `<fim_pad>`. Every position is a target, padding too, and attention runs across documents.

Deviations, listed in docs/fidelity.md: text is decoded byte for byte (the fork's decoding deleted spaces); special-
token text inside a file is plain text; every draw is a function of (seed, window, segment), not of the order of access.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.batches import ROWS_AT_ONCE, Batch, FimShares, check_view
from kringle.training.fim import Cut, Draw, cut
from kringle.training.hashing import document_keys, hashes, uniforms

SEPARATE_BELOW = 0.8  # of the last epoch's windows: below, the epoch is shuffled apart (Megatron-LM gpt_dataset.py)


class WindowDraw(NamedTuple):
    """What chance decides about one segment: whether it is rearranged, and how."""

    chosen: bool
    draw: Draw


@dataclass(frozen=True)
class Segment:
    """A run of tokens without end-of-text; `closed` if an end-of-text follows."""

    tokens: np.ndarray
    closed: bool


def segments(window: np.ndarray, end_of_text: int) -> list[Segment]:
    """The segments of a window (T,): none is empty but, possibly, the last, which is never closed."""
    breaks = np.flatnonzero(window == end_of_text)
    starts = np.concatenate(([0], breaks + 1))
    found = [Segment(window[a:b], True) for a, b in zip(starts[:-1], breaks, strict=True) if b > a]
    return [*found, Segment(window[starts[-1] :], False)]


class Window(NamedTuple):
    """A window after rearrangement, (T,) again."""

    tokens: np.ndarray
    rearranged: int  # segments
    filled: int  # `<fim_pad>` tokens at its end
    cut: int  # tokens that its end has lost


def permute(windows: Sequence[np.ndarray], draws: Sequence[Sequence[WindowDraw]], tokenizer: Tokenizer) -> list[Window]:
    """Rearrange windows (T,), given what chance decides about each of their segments; all texts are encoded at once."""
    end, specials = tokenizer.specials.end_of_text, tokenizer.specials
    parts = [segments(window, end) for window in windows]
    cuts: list[Cut] = []
    for found, drawn in zip(parts, draws, strict=True):
        cuts += [
            _cut(segment.tokens, tokenizer, chance.draw)
            for segment, chance in zip(found, drawn, strict=True)
            if chance.chosen
        ]
    encoded = iter(tokenizer.encode_batch([text for c in cuts for text in (c.prefix, c.middle, c.suffix)]))
    made, each = [], iter(cuts)
    p, m, s, e = (
        np.array([i]) for i in (specials.fim_prefix, specials.fim_middle, specials.fim_suffix, specials.end_of_text)
    )
    for window, found, drawn in zip(windows, parts, draws, strict=True):
        pieces: list[np.ndarray] = []
        for segment, chance in zip(found, drawn, strict=True):
            if chance.chosen:
                edge = next(each)
                prefix, middle, suffix = next(encoded), next(encoded), next(encoded)
                prefix, suffix = np.concatenate((edge.head, prefix)), np.concatenate((suffix, edge.tail))
                suffix_first = chance.draw.suffix_first
                pieces += (p, s, suffix, m, prefix, middle) if suffix_first else (p, prefix, s, suffix, m, middle)
            else:
                pieces.append(segment.tokens)
            if segment.closed:
                pieces.append(e)
        whole, size = np.concatenate(pieces, dtype=np.int64), len(window)
        missing = max(0, size - len(whole))
        filler = np.full(missing, specials.fim_pad, np.int64)
        rearranged = sum(chance.chosen for chance in drawn)
        made.append(Window(np.concatenate((whole[:size], filler)), rearranged, missing, max(0, len(whole) - size)))
    return made


def _cut(tokens: np.ndarray, tokenizer: Tokenizer, draw: Draw) -> Cut:
    """The segment in three; one without a whole character is all prefix (the fork would see U+FFFD there)."""
    found = cut(tokens, tokenizer, draw)
    return Cut(tokens, "", "", "", tokens[:0]) if found is None else found


class WindowBatches:
    """The batches of one training run of `steps` steps over a view of a token store; the interface of `Batches`."""

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
        steps: int,
    ) -> None:
        self.store, self.tokenizer, self.steps = store, tokenizer, steps
        self.context, self.batch_tokens, self.seed = context, batch_tokens, seed
        self.fim_rate, self.fim_spm = fim.rate, fim.spm
        self.documents = np.asarray(documents, dtype=np.int64)
        check_view(store, self.documents, tokenizer, context=context, batch_tokens=batch_tokens, fim=fim)
        if steps < 1:
            raise UserError("must be at least 1: the shuffling depends on it", where="training.tokens")
        self.rows = batch_tokens // context
        self._shuffle_documents()
        self._order = self._shuffle_windows()

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _shuffle_documents(self) -> None:
        """Which documents follow each other, over all epochs that the run needs."""
        lengths = np.diff(self.store.offsets)[self.documents]
        kept = self.documents[lengths > 0]  # an empty document is left out, with its end-of-text
        sizes = lengths[lengths > 0] + 1
        self.epoch_tokens = int(sizes.sum())
        needed = self.steps * self.rows
        epochs = max(1, -(-(needed * self.context + 1) // self.epoch_tokens)) if len(kept) else 0
        if not epochs:
            raise UserError("the documents to train on hold no tokens", where="training", hint="add source code")
        before_last = max(0, ((epochs - 1) * self.epoch_tokens - 1) // self.context)
        per_epoch = (self.epoch_tokens - 1) // self.context
        self._apart = epochs > 1 and needed - before_last < int(SEPARATE_BELOW * per_epoch)
        self._windows_before_last = before_last
        keys = document_keys([self.store.ids[i] for i in kept.tolist()])

        def shuffled(first: int, last: int) -> np.ndarray:
            """Indices into `kept` of the epochs first .. last - 1, shuffled together."""
            chance = np.concatenate([hashes(self.seed, "order", keys, epoch) for epoch in range(first, last)])
            return np.argsort(chance, kind="stable") % len(kept)

        together = epochs - self._apart
        order = shuffled(0, together)
        if self._apart:
            order = np.concatenate((order, shuffled(together, epochs)))
        self._stream = kept[order]
        self._ends = np.cumsum(sizes[order])
        self.windows = int((self._ends[-1] - 1) // self.context)

    def _shuffle_windows(self) -> np.ndarray:
        """The windows' numbers in the order in which rows take them."""
        chance = hashes(self.seed, "windows", np.arange(self.windows))
        if not self._apart:
            return np.argsort(chance, kind="stable")
        border = self._windows_before_last
        first = np.argsort(chance[:border], kind="stable")
        return np.concatenate((first, border + np.argsort(chance[border:], kind="stable")))

    def window(self, number: int) -> tuple[np.ndarray, list[int]]:
        """Tokens (context + 1,) of a window of the stream, and the documents (numbers in the store) that it touches."""
        start, stop = number * self.context, number * self.context + self.context + 1
        at = int(np.searchsorted(self._ends, start, side="right"))
        end = np.array([self.tokenizer.specials.end_of_text])
        parts: list[np.ndarray] = []
        touched: list[int] = []
        place = int(self._ends[at - 1]) if at else 0
        while place < stop:
            document = int(self._stream[at])
            whole = np.concatenate((self.store.document(document), end), dtype=np.int64)
            parts.append(whole[max(0, start - place) : stop - place])
            touched.append(document)
            place, at = place + len(whole), at + 1
        return np.concatenate(parts), touched

    # -- windows to rows -----------------------------------------------------------------------------------------------

    def draws(self, number: int, count: int) -> list[WindowDraw]:
        """What chance decides about the first `count` segments of a window."""
        each = np.arange(count)
        drawn = [uniforms(self.seed, "fim", number, each, i) for i in range(4)]
        chosen, spm = drawn[0] < self.fim_rate, drawn[1] < self.fim_spm
        return [WindowDraw(bool(chosen[i]), Draw(drawn[2][i], drawn[3][i], bool(spm[i]))) for i in range(count)]

    def _render(self, first: int, count: int) -> list[tuple[Window, list[int]]]:
        """Rows `first` .. `first + count - 1` of the run, counted over all steps, with their documents."""
        if first + count > self.steps * self.rows:
            raise ValueError(f"the batches were made for {self.steps} steps")
        numbers = self._order[first : first + count].tolist()
        cut_out = [self.window(number) for number in numbers]
        if self.fim_rate == 0:  # the fork then leaves windows alone, empty segments included
            return [(Window(tokens, 0, 0, 0), touched) for tokens, touched in cut_out]
        end = self.tokenizer.specials.end_of_text
        draws = [
            self.draws(number, len(segments(tokens, end))) for number, (tokens, _) in zip(numbers, cut_out, strict=True)
        ]
        made = permute([tokens for tokens, _ in cut_out], draws, self.tokenizer)
        return list(zip(made, [touched for _, touched in cut_out], strict=True))

    # -- what the trainer asks for -------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the batches are a function of, JSON-able."""
        ids = sorted(self.store.ids[i] for i in self.documents.tolist())
        return {
            "fidelity": "faithful",
            "store": self.store.checksum,
            "documents": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
            "tokenizer": self.tokenizer.checksum,
            "context": self.context,
            "batch_tokens": self.batch_tokens,
            "fim_rate": self.fim_rate,
            "fim_spm": self.fim_spm,
            "seed": self.seed,
            "steps": self.steps,
        }

    def batch(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """The batch of a step, counted from 0, or `count` of its rows from row `first` on: every position has a target
        and belongs to one segment."""
        count = self.rows if count is None else count
        rendered = self._render(step * self.rows + first, count)
        rows = np.stack([window.tokens for window, _ in rendered])
        shape = (count, self.context)
        return Batch(
            rows[:, :-1].copy(),
            rows[:, 1:].copy(),
            np.broadcast_to(np.arange(self.context), shape).copy(),
            np.zeros(shape, np.int64),
            tuple(dict.fromkeys(self.store.ids[d] for _, touched in rendered for d in touched)),
            sum(window.rearranged for window, _ in rendered),
            0,
            sum(window.filled for window, _ in rendered),
        )

    def shown(self, steps: int, start: int = 0) -> Iterator[np.ndarray]:
        """The windows (context + 1,) int64 that the model sees in its first `steps` steps from step `start` on,
        specials included."""
        total = steps * self.rows
        for first in range(start * self.rows, total, ROWS_AT_ONCE):
            for window, _ in self._render(first, min(ROWS_AT_ONCE, total - first)):
                yield window.tokens

    def tokens_seen(self, steps: int) -> int:
        """Targets in the first `steps` steps."""
        return steps * self.batch_tokens

    def seen_documents(self, steps: int) -> list[int]:
        """Numbers in the store, ascending, of the documents that the first `steps` steps touch."""
        seen: set[int] = set()
        for number in self._order[: steps * self.rows].tolist():
            start = number * self.context
            first, last = np.searchsorted(self._ends, (start, start + self.context), side="right")
            seen.update(self._stream[first : last + 1].tolist())
        return sorted(seen)

    def epochs(self, steps: int) -> float:
        """Passes through the stream after `steps` steps."""
        return steps * self.batch_tokens / self.epoch_tokens
