"""Several token stores as one, without looking at a document: files are laid end to end.

The store is the same, byte for byte, as one that was written from all the documents. Tokens are copied, because a batch
is cut from one mapped array: a store that referred to its parts would cost every reader a search for each document, to
save one pass over two bytes a token.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from kringle.tokens.store import FILES, FORMAT, HASH_BYTES, HASHES, TOKENS, TokenStore, appearing, finish, read_manifest

_BLOCK = 1 << 20  # bytes of tokens or ids at once


def join_stores(folder: Path, parts: Sequence[Path]) -> TokenStore:
    """Write `folder` with the documents of all `parts`, of which there is at least one, in order.

    Memory holds one part's offsets, sizes and checksums, 50 bytes a document, and the whole's offsets and sizes once it
    is opened, 16 bytes a document. UserError where a part is damaged, ValueError where parts were encoded with
    different tokenizers. A folder that exists is replaced; it appears whole or not at all.
    """
    manifests = [read_manifest(part) for part in parts]
    alike = {name: manifests[0][name] for name in ("dtype", "vocab_size", "tokenizer")}
    for part, manifest in zip(parts, manifests, strict=True):
        if differing := [name for name, value in alike.items() if manifest[name] != value]:
            raise ValueError(f"{part} differs from {parts[0]} in {', '.join(differing)}")
    documents = sum(manifest["documents"] for manifest in manifests)
    with appearing(folder) as partial:
        languages: dict[str, int] = {}
        tokens = 0
        with ExitStack() as stack:
            outputs = {name: stack.enter_context((partial / name).open("wb")) for name in FILES}
            _begin(outputs["offsets.npy"], np.int64, documents + 1)
            _begin(outputs[HASHES], np.uint8, documents, HASH_BYTES)
            _begin(outputs["sizes.npy"], np.int64, documents)
            _begin(outputs["languages.npy"], np.uint16, documents)
            outputs["offsets.npy"].write(np.zeros(1, dtype=np.int64).data)
            for store in map(TokenStore.open, parts):
                codes = [languages.setdefault(name, len(languages)) for name in store.manifest["languages"]]
                renamed = np.array(codes, dtype=np.uint16)[np.load(store.folder / "languages.npy")]
                outputs["languages.npy"].write(renamed.data)
                outputs["offsets.npy"].write((store.offsets[1:] + tokens).data)
                outputs[HASHES].write(np.load(store.folder / HASHES).data)
                outputs["sizes.npy"].write(store.sizes.data)
                for name in (TOKENS, "ids.bin"):
                    with (store.folder / name).open("rb") as file:
                        shutil.copyfileobj(file, outputs[name], _BLOCK)
                tokens += len(store.tokens)
        about = {"format": FORMAT, "documents": documents, "tokens": tokens, **alike, "languages": list(languages)}
        finish(partial, about)
    return TokenStore.open(folder)


def _begin(file: BinaryIO, dtype: type[np.generic], *shape: int) -> None:
    """Begin an array as `numpy.save` does."""
    descr = npy.dtype_to_descr(np.dtype(dtype))
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
