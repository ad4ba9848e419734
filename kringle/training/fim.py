"""Fill-in-the-middle: a piece of a document is cut in three and its middle moved to the end, to be predicted last.

This is the corrected manner of SantaCoder's procedure (BigCode Megatron fork, data loader; Bavarian et al. 2022):

- cuts fall between characters, never inside one; two integers uniform in 0 .. length, both ends included, sorted;
- prefix, middle and suffix are encoded separately, in PSM order `<fim_prefix> prefix <fim_suffix> suffix <fim_middle>
  middle` or, for a share of the pieces, SPM order (Bavarian's second variant) `<fim_prefix> <fim_suffix> suffix
  <fim_middle> prefix middle`;
- the middle is the target and never loses a token: where the encoded parts outgrow their room, the left end of the
  prefix and the right end of the suffix are trimmed, each in proportion to its length. The fork cut the tail of the
  whole sequence, which is the middle;
- the bytes of prefix, middle and suffix are the bytes of the piece (the fork's decoding deleted spaces);
- end-of-text follows *every* middle, also inside a document: it is how a model that fills a gap says that it is done.

A piece is cut from its document between tokens, so it may begin or end inside a character. Such edge tokens are carried
along verbatim, at the left of the prefix and the right of the suffix. Does not cover: choosing pieces and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kringle.tokens.tokenizer import Specials, Tokenizer

SENTINELS = 3


class Draw(NamedTuple):
    """What chance decides about one piece: the two cuts as shares of its length, and the order."""

    first: float  # in [0, 1)
    second: float  # in [0, 1)
    suffix_first: bool  # SPM, else PSM


class Cut(NamedTuple):
    """A piece as text in three parts between the edge tokens whose bytes are no whole characters."""

    head: np.ndarray
    prefix: str
    middle: str
    suffix: str
    tail: np.ndarray


def cut(piece: np.ndarray, tokenizer: Tokenizer, draw: Draw) -> Cut | None:
    """Cut a piece (T,) at the drawn places; None if no token of it begins a character, so that there is no text."""
    table = tokenizer.token_bytes
    raw = [table[token] for token in piece.tolist()]
    start, end = 0, len(raw)
    while start < end and _continues(raw[start]):
        start += 1
    text = _decoded(raw[start:end])
    if text is None:  # the last character goes on in the next piece: step back to a token that begins one
        end -= 1
        while end > start and _continues(raw[end]):
            end -= 1
        text = _decoded(raw[start:end])
    if not text:
        return None
    low, high = sorted((int(draw.first * (len(text) + 1)), int(draw.second * (len(text) + 1))))
    return Cut(piece[:start], text[:low], text[low:high], text[high:], piece[end:])


def _continues(token: bytes) -> bool:
    """Whether these bytes begin with a continuation byte of UTF-8, that is inside a character."""
    return token[0] & 0xC0 == 0x80


def _decoded(raw: Sequence[bytes]) -> str | None:
    try:
        return b"".join(raw).decode("utf-8")
    except UnicodeDecodeError:
        return None


def arrange(
    prefix: np.ndarray, middle: np.ndarray, suffix: np.ndarray, suffix_first: bool, specials: Specials, room: int
) -> np.ndarray | None:
    """The three parts with sentinels and end-of-text in at most `room` tokens; None if the middle alone is too long."""
    excess = len(prefix) + len(middle) + len(suffix) + SENTINELS + 1 - room
    if excess > 0:
        context = len(prefix) + len(suffix)
        if excess > context:
            return None
        from_prefix = excess * len(prefix) // context
        prefix = prefix[from_prefix:]
        suffix = suffix[: len(suffix) - (excess - from_prefix)]
    p, m, s, end = np.array(
        [[specials.fim_prefix], [specials.fim_middle], [specials.fim_suffix], [specials.end_of_text]]
    )
    order = (p, s, suffix, m, prefix, middle, end) if suffix_first else (p, prefix, s, suffix, m, middle, end)
    return np.concatenate(order, dtype=np.int64)


def rearrange(
    pieces: Sequence[np.ndarray], draws: Sequence[Draw], rooms: Sequence[int], tokenizer: Tokenizer
) -> list[np.ndarray | None]:
    """Each piece (T,) as a fill-in-the-middle sequence of at most its room; None where it has to stay as it is.

    A piece stays as it is when it holds no whole character, or when its middle, encoded anew, does not fit the room.
    """
    cuts = [cut(piece, tokenizer, draw) for piece, draw in zip(pieces, draws, strict=True)]
    parts = iter(tokenizer.encode_batch([text for c in cuts if c for text in (c.prefix, c.middle, c.suffix)]))
    sequences: list[np.ndarray | None] = []
    for c, draw, room in zip(cuts, draws, rooms, strict=True):
        if c is None:
            sequences.append(None)
            continue
        prefix, middle, suffix = next(parts), next(parts), next(parts)
        prefix, suffix = np.concatenate((c.head, prefix)), np.concatenate((suffix, c.tail))
        sequences.append(arrange(prefix, middle, suffix, draw.suffix_first, tokenizer.specials, room))
    return sequences
