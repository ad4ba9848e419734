"""Documents chosen or changed for one arm: matched in size, lines shuffled, a line of language and path in front.

Every choice is counter-based: a function of the document's id, whatever stands around it. A changed document makes a
token store of the arm's own, in the same order and with the same ids, so that everything after it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kringle.data.languages import EXTENSIONS
from kringle.randomness import stream, uniform
from kringle.settings import Arm
from kringle.tokens.store import Document, TokenStore
from kringle.tokens.tokenizer import Tokenizer

SEED_STEP = 1_000_003  # between a seed and that of its control: far from any that a recipe would list
AT_ONCE = 256  # documents encoded together


def training_seed(arm: Arm, seed: int) -> int:
    """The seed that an arm's run is trained with; its number in the study stays `seed`."""
    return seed + SEED_STEP if arm.control is not None and arm.control.kind == "seed" else seed


def header(language: str, path: str) -> str:
    """The line before a document when `training.metadata` is set: "python src/shop/cart.py"."""
    return f"{language} {' '.join(path.split())}\n"


def file_name(language: str) -> str:
    """The name of a file for a problem's solution: "solution.py"."""
    return f"solution{next(extension for extension, of in EXTENSIONS.items() if of == language)}"


def matched_size(store: TokenStore, pool: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Documents out of `pool` (numbers in the store), at random, with as many bytes of each language as `kept` has.

    In an order drawn from the documents' ids; the last one taken is the one with which the bytes are reached, or not
    taken if that comes nearer. Smaller sets lie inside larger ones, so the controls of two filters share documents.
    """
    languages = np.array(store.languages)
    chosen: list[np.ndarray] = []
    for language in np.unique(languages[kept]):
        here = pool[languages[pool] == language]
        order = here[np.argsort([uniform(0, "control-size", store.ids[i]) for i in here], kind="stable")]
        wanted = int(store.sizes[kept][languages[kept] == language].sum())
        sums = np.cumsum(store.sizes[order])
        count = int(np.searchsorted(sums, wanted, side="left")) + 1  # with which the bytes are reached
        without = int(sums[count - 2]) if count > 1 else 0
        if count > 1 and (count > len(order) or wanted - without < int(sums[count - 1]) - wanted):
            count -= 1
        chosen.append(order[:count])
    return np.sort(np.concatenate(chosen)) if chosen else pool[:0]


def shuffled_lines(id: str, text: str) -> str:
    """A document with its lines in an order drawn from its id."""
    lines = text.split("\n")
    return "\n".join(lines[i] for i in stream(0, "control-harm-lines", id).permutation(len(lines)))


def harmed(store: TokenStore, tokenizer: Tokenizer, share: float, folder: Path) -> TokenStore:
    """A copy of the store, in `folder`, in which this share of the documents has its lines shuffled."""

    def change(id: str, tokens: np.ndarray) -> str | None:
        if uniform(0, "control-harm", id) >= share:
            return None
        return shuffled_lines(id, tokenizer.decode_bytes(tokens).decode("utf-8"))

    return _changed(store, tokenizer, change, folder)


def _changed(
    store: TokenStore, tokenizer: Tokenizer, change: Callable[[str, np.ndarray], str | None], folder: Path
) -> TokenStore:
    """A copy of the store with some documents replaced by the encoding of another text."""

    def documents() -> Iterator[Document]:
        batch: list[tuple[Document, str | None]] = []
        for document in store.documents():
            batch.append((document, change(document[0], document[3])))
            if len(batch) == AT_ONCE:
                yield from _encoded(batch, tokenizer)
                batch = []
        yield from _encoded(batch, tokenizer)

    return TokenStore.write(folder, documents(), vocab_size=store.vocab_size, tokenizer=store.tokenizer)


def _encoded(batch: Sequence[tuple[Document, str | None]], tokenizer: Tokenizer) -> Iterator[Document]:
    encoded = iter(tokenizer.encode_batch([text for _, text in batch if text is not None]))
    for (id, language, size, tokens), text in batch:
        yield id, language, size, tokens if text is None else next(encoded)


def with_headers(store: TokenStore, headers: Mapping[str, str], tokenizer: Tokenizer, folder: Path) -> TokenStore:
    """A copy of the store in which every document begins with its header (`headers` by id). Sizes stay the files."""

    def documents() -> Iterator[Document]:
        listed = list(store.documents())
        first = tokenizer.encode_batch([headers[id] for id, *_ in listed])
        for (id, language, size, tokens), header in zip(listed, first, strict=True):
            yield id, language, size, np.concatenate((header, tokens))

    return TokenStore.write(folder, documents(), vocab_size=store.vocab_size, tokenizer=store.tokenizer)
