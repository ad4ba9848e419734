"""Bits per byte: how many bits a model needs for each byte of code that it has not seen; lower is better.

A file's bits are minus the base-2 logarithm of the probability that the model gives to its tokens; its bytes are those
of the original file, so tokenizers and compressors can be held beside each other. Files come back one by one, because a
paired comparison of two arms needs them so; `bits_per_byte` sums them up.

Every token is scored exactly once. A file starts after an end-of-text token, as in training, and is cut into windows of
the model's context that overlap by half: a token has all of the file before it as history, or at least half a context.

Decisions. The end-of-text *after* a file is not charged: the bytes are the file's own, and a compressor is not charged
for the file's length either. Probability that a model gives to sentinels or to unused rows of the vocabulary is lost to
it, as it would be in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.model.transformer import Transformer
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.batches import taught_positions

LOGITS_AT_ONCE = 1 << 24  # 64 MiB of float32, whatever the vocabulary
POSITIONS_AT_ONCE = 1 << 12  # positions in one forward pass; more gain nothing on a CPU


@dataclass(frozen=True)
class DocumentBits:
    """What one held-out file costs: `bits` in all, for `bytes` original bytes."""

    id: str
    language: str
    bits: float
    bytes: int


@dataclass(frozen=True)
class BitsPerByte:
    """Sum of bits over sum of bytes: of all files, and of each language by name."""

    total: float
    languages: dict[str, float]
    files: int
    bytes: int


def bits_per_byte(documents: Sequence[DocumentBits]) -> BitsPerByte:
    """Aggregate over files; large files weigh by their size. `ValueError` without a single byte."""
    if not sum(d.bytes for d in documents):
        raise ValueError("no bytes to score")
    sums: dict[str, list[float]] = {}
    for document in documents:
        both = sums.setdefault(document.language, [0.0, 0])
        both[0] += document.bits
        both[1] += document.bytes
    size = sum(d.bytes for d in documents)
    languages = {name: bits / count for name, (bits, count) in sorted(sums.items()) if count}
    return BitsPerByte(math.fsum(d.bits for d in documents) / size, languages, len(documents), size)


class Window(NamedTuple):
    """Inputs `start .. end` of a sequence; the tokens after its positions `first .. end` are scored here."""

    sequence: int
    start: int
    first: int
    end: int


def scoring_windows(lengths: Sequence[int], context: int) -> Iterator[Window]:
    """Windows over sequences of `lengths` tokens, the first of each being context only (nothing predicts it)."""
    half = context // 2
    for number, length in enumerate(lengths):
        predictions = length - 1  # input position p predicts token p + 1
        first = 0
        while first < predictions:
            start = max(0, first - half)
            end = min(predictions, start + context)
            yield Window(number, start, first, end)
            first = end


def token_bits(model: Transformer, sequences: Sequence[np.ndarray], taught: int | None = None) -> list[np.ndarray]:
    """Bits (T - 1,) float64 of every token but the first of each sequence (T,), given all those before it.

    "All" up to the context: past it, at least half a context. Computed in float32 on the model's device; windows of
    similar length share a batch, padded on the right, where causal attention does not look. `taught` is the number of
    positions to use where the model was not taught all of its context.
    """
    device = next(model.parameters()).device
    context = taught or model.config.context
    bits = [np.zeros(max(0, len(s) - 1)) for s in sequences]
    windows = sorted(scoring_windows([len(s) for s in sequences], context), key=lambda w: w.start - w.end)
    at = 0
    while at < len(windows):
        width = windows[at].end - windows[at].start
        batch = windows[at : at + max(1, POSITIONS_AT_ONCE // width)]
        at += len(batch)
        tokens = np.zeros((len(batch), width + 1), dtype=np.int64)
        scored = np.zeros((len(batch), width), dtype=bool)
        for row, window in enumerate(batch):
            piece = sequences[window.sequence][window.start : window.end + 1]
            tokens[row, : len(piece)] = piece
            scored[row, window.first - window.start : window.end - window.start] = True
        costs = _costs(model, torch.from_numpy(tokens).to(device), torch.from_numpy(scored).to(device))
        done = 0
        for window in batch:
            count = window.end - window.first
            bits[window.sequence][window.first : window.end] = costs[done : done + count]
            done += count
    return bits


@torch.inference_mode()
def _costs(model: Transformer, tokens: Tensor, scored: Tensor) -> np.ndarray:
    """Bits (N,) of the N tokens after the `scored` positions (B, T), row by row; tokens (B, T + 1)."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:][scored]
    positions = torch.arange(inputs.shape[1], device=tokens.device).expand_as(inputs)
    hidden = model.hidden(inputs, positions)[scored]  # (N, E)
    rows = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    nats = [
        F.cross_entropy(model.logits(hidden[i : i + rows]).float(), targets[i : i + rows], reduction="none")
        for i in range(0, len(hidden), rows)
    ]
    costs: np.ndarray = torch.cat(nats).double().cpu().numpy() / math.log(2)
    return costs


def score_documents(
    model: Transformer,
    end_of_text: int,
    documents: Iterable[tuple[str, str, int, np.ndarray]],
    taught: int | None = None,
    headers: Sequence[np.ndarray] | None = None,
) -> list[DocumentBits]:
    """Bits of each document (id, language, size in bytes, tokens without end-of-text), in the order given; `taught` as
    in `token_bits`. `headers` are the tokens of a line that the model was taught to expect before each document: they
    are history, and are not charged."""
    listed = list(documents)
    before = headers if headers is not None else [np.empty(0, np.int64)] * len(listed)
    sequences = [
        np.concatenate(([end_of_text], header, tokens)) for (*_, tokens), header in zip(listed, before, strict=True)
    ]
    return [
        DocumentBits(name, language, math.fsum(bits[len(header) :]), size)
        for (name, language, size, _), bits, header in zip(
            listed, token_bits(model, sequences, taught), before, strict=True
        )
    ]


def split_joint(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens of both texts of each pair, encoded together as a file would be, and cut at the token that begins the
    second or straddles its beginning. Encoded apart they would have a token border between them that files do not have:
    most prompts end with a line break, and most solutions begin with the indentation that shares its token."""
    parts = []
    for (first, _), tokens in zip(pairs, tokenizer.encode_batch([one + other for one, other in pairs]), strict=True):
        ends = np.cumsum([len(tokenizer.token_bytes[token]) for token in tokens.tolist()])
        cut = int(np.searchsorted(ends, len(first.encode()), side="right"))
        parts.append((tokens[:cut], tokens[cut:]))
    return parts


def bits_after(model: Transformer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Bits of the second text of each pair where it follows the first at the beginning of a file, which comes after an
    end-of-text token."""
    parts = split_joint(tokenizer, pairs)
    documents = [("", "", len(second.encode()), tail) for (_, second), (_, tail) in zip(pairs, parts, strict=True)]
    taught = taught_positions(model.config.context)
    end = tokenizer.specials.end_of_text
    return [one.bits for one in score_documents(model, end, documents, taught, [head for head, _ in parts])]
