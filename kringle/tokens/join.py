"""Several token stores as one, without looking at a document: files are read through in blocks and laid end to end.

The store is the same, byte for byte, as one that was written from all the documents. Tokens are copied, because a batch
is cut from one mapped array: a store that referred to its parts would cost every reader a search for each document, to
save one pass over two bytes a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from kringle.tokens.store import FILES, FORMAT, TokenStore, appearing, finish, read_manifest

_BLOCK = 1 << 20  # bytes of tokens or ids at once


class _Output:
    """A file that is written from its beginning to its end, and its SHA-256."""

    def __init__(self, path: Path) -> None:
        self._file, self._digest = path.open("wb"), hashlib.sha256()

    def write(self, data: Any) -> None:
        """Append bytes, or an array's."""
        self._file.write(data)
        self._digest.update(data)

    def header(self, dtype: np.dtype[Any], length: int) -> None:
        """Begin an array (length,) as `numpy.save` does."""
        descr = npy.dtype_to_descr(dtype)
        npy.write_array_header_1_0(self, {"descr": descr, "fortran_order": False, "shape": (length,)})

    def close(self) -> str:
        """SHA-256 of what was written."""
        self._file.close()
        return self._digest.hexdigest()


def join_stores(folder: Path, parts: Sequence[Path]) -> TokenStore:
    """Write `folder` with the documents of all `parts`, of which there is at least one, in order.

    Memory holds one part's offsets and sizes, and the whole's once it is opened: 16 bytes a document. UserError where a
    part is damaged, ValueError where parts were encoded with different tokenizers. A folder that exists is replaced; it
    appears whole or not at all.
    """
    manifests = [read_manifest(part) for part in parts]
    alike = {name: manifests[0][name] for name in ("dtype", "vocab_size", "tokenizer")}
    for part, manifest in zip(parts, manifests, strict=True):
        if differing := [name for name, value in alike.items() if manifest[name] != value]:
            raise ValueError(f"{part} differs from {parts[0]} in {', '.join(differing)}")
    documents = sum(manifest["documents"] for manifest in manifests)
    with appearing(folder) as partial:
        outputs = {name: _Output(partial / name) for name in FILES}
        languages: dict[str, int] = {}
        tokens = 0
        try:
            outputs["offsets.npy"].header(np.dtype(np.int64), documents + 1)
            outputs["sizes.npy"].header(np.dtype(np.int64), documents)
            outputs["languages.npy"].header(np.dtype(np.uint16), documents)
            outputs["offsets.npy"].write(np.zeros(1, dtype=np.int64))
            for store in map(TokenStore.open, parts):
                codes = [languages.setdefault(name, len(languages)) for name in store.manifest["languages"]]
                outputs["languages.npy"].write(
                    np.array(codes, dtype=np.uint16)[np.load(store.folder / "languages.npy")]
                )
                outputs["offsets.npy"].write(store.offsets[1:] + tokens)
                outputs["sizes.npy"].write(store.sizes)
                for name in ("tokens.bin", "ids.bin"):
                    _copy(store.folder / name, outputs[name])
                tokens += len(store.tokens)
        finally:
            checksums = {name: output.close() for name, output in outputs.items()}
        about = {"format": FORMAT, "documents": documents, "tokens": tokens, **alike, "languages": list(languages)}
        finish(partial, about, checksums)
    return TokenStore.open(folder)


def _copy(path: Path, output: _Output) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            output.write(block)
