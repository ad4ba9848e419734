"""The token store: every document's tokens in one flat memory-mapped array, with offsets and provenance.

A store is a folder that appears whole or not at all. It holds text tokens only: end-of-text and sentinels are laid
around pieces when batches are cut, so one store serves every ablation. Does not cover: encoding
(`kringle.tokens.encode`) and choosing documents; a view of a store is a list of document numbers.

    manifest.json   format, counts, type of the tokens, languages, tokenizer, size of each file below, and SHA-256 of
                    each but tokens.bin
    tokens.bin      (N,) little-endian unsigned integers of the smallest width that fits, documents end to end
    offsets.npy     (D + 1,) int64: document i is tokens[offsets[i] : offsets[i + 1]]
    hashes.npy      (D, 32) uint8: SHA-256 of each document's bytes in tokens.bin
    sizes.npy       (D,) int64: original bytes
    languages.npy   (D,) uint16: index into the manifest's languages
    ids.bin         ids as UTF-8, one a line
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kringle.errors import UserError

FORMAT = 2
WIDTHS = tuple(np.dtype(f"<u{width}") for width in (1, 2, 4))
TOKENS, HASHES = "tokens.bin", "hashes.npy"
FILES = (TOKENS, "offsets.npy", HASHES, "sizes.npy", "languages.npy", "ids.bin")
_READ = 1 << 20  # bytes at once where files are read through
_DOCUMENTS = 1 << 16  # whose checksums are compared at once
HASH_BYTES = hashlib.sha256().digest_size

Document = tuple[str, str, int, np.ndarray]
"""Id, language, original size in bytes, tokens (T,)."""


def width_for(largest: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that holds `largest`."""
    for dtype in WIDTHS:
        if largest <= np.iinfo(dtype).max:
            return dtype
    raise ValueError(f"token id {largest} does not fit 32 bits")


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def document_hashes(tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """SHA-256 (D, 32) uint8 of each document among tokens (N,) that `offsets` (D + 1,) divide.

    One for each, and not one for all, so that stores are joined without hashing their tokens again, and damage is told
    by document.
    """
    data = tokens.view(np.uint8)
    hashes = np.empty((len(offsets) - 1, HASH_BYTES), dtype=np.uint8)
    for i in range(len(hashes)):
        start, end = int(offsets[i]) * tokens.itemsize, int(offsets[i + 1]) * tokens.itemsize
        hashes[i] = np.frombuffer(hashlib.sha256(data[start:end].data).digest(), dtype=np.uint8)
    return hashes


class TokenStore:
    """A store opened for reading; tokens stay on disk until they are touched."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.vocab_size: int = manifest["vocab_size"]  # ids are below it; special tokens not counted
        self.tokenizer: str = manifest["tokenizer"]  # checksum of the tokenizer file; empty if the writer gave none
        self.offsets: np.ndarray = np.load(folder / "offsets.npy")
        self.sizes: np.ndarray = np.load(folder / "sizes.npy")
        self.tokens: np.ndarray = _mapped(folder, manifest["tokens"], np.dtype(manifest["dtype"]))

    def __len__(self) -> int:
        count: int = self.manifest["documents"]
        return count

    @functools.cached_property
    def ids(self) -> list[str]:
        """Ids of the documents (D,), read when they are first asked for: they take more memory than all the rest."""
        return (self.folder / "ids.bin").read_bytes().decode("utf-8").split("\n")[:-1]

    @functools.cached_property
    def languages(self) -> list[str]:
        """Languages of the documents (D,), read when they are first asked for."""
        names = self.manifest["languages"]
        return [names[code] for code in np.load(self.folder / "languages.npy")]

    @property
    def checksum(self) -> str:
        """What this store holds, as one hash: equal for equal documents in equal order."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    def document(self, index: int) -> np.ndarray:
        """Tokens (T,) of one document, a view into the file."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open a store, after checking that each file has its size; UserError names the one that has not.

        The small files are read whole and checked against their checksums. The tokens are not (a large store would take
        minutes), nor what their own checksums are in; `verify` does that.
        """
        manifest = read_manifest(folder)
        for name, expected in manifest["files"].items():
            path = folder / name
            found = path.stat().st_size if path.exists() else 0
            if found != expected["bytes"]:
                raise _damaged(folder, f"{name} has {found} bytes instead of {expected['bytes']}")
            if name not in (TOKENS, HASHES):
                _check(folder, name, expected["sha256"])
        return cls(folder, manifest)

    def verify(self, part: int = 0, of: int = 1) -> None:
        """Read all tokens and compare the checksums; UserError if a byte has changed since a document was encoded. As
        one of several processes, look at every `of`-th stretch of documents from the `part`-th on."""
        _check(self.folder, HASHES, self.manifest["files"][HASHES]["sha256"])
        stored = np.load(self.folder / HASHES, mmap_mode="r")
        damaged: list[int] = []
        for first in range(part * _DOCUMENTS, len(self), of * _DOCUMENTS):
            found = document_hashes(self.tokens, self.offsets[first : first + _DOCUMENTS + 1])
            differ = (found != stored[first : first + _DOCUMENTS]).any(axis=1)
            damaged += (first + np.flatnonzero(differ)).tolist()
        if damaged:
            more = f", nor those of {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
            what = f"the tokens of document {self.ids[damaged[0]]} do not match their checksum{more}"
            raise _damaged(self.folder, what)

    def documents(self) -> Iterator[Document]:
        """All documents in order, as `write` takes them."""
        for i, (id, language) in enumerate(zip(self.ids, self.languages, strict=True)):
            yield id, language, int(self.sizes[i]), self.document(i)

    @classmethod
    def write(
        cls, folder: Path, documents: Iterable[Document], *, vocab_size: int | None = None, tokenizer: str = ""
    ) -> TokenStore:
        """Write documents as they come; `folder` appears by one rename when all are on disk.

        Memory holds the ids and offsets, never the tokens. Without a `vocab_size` the width follows the largest token
        seen (what is already written is widened in place of being guessed). A folder that exists is replaced.
        """
        with appearing(folder) as partial:
            _write(partial, documents, vocab_size, tokenizer)
        return cls.open(folder)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name `folder` by one rename when all went well; nothing is left if not. A
    folder of that name is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """A store's manifest; UserError where there is none, or one of another version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except OSError as error:
        raise UserError(
            f"no token store here ({error.strerror})", where=str(folder), hint="run the encode stage first"
        ) from error
    except json.JSONDecodeError as error:
        raise _damaged(folder, f"manifest.json is no JSON ({error})") from error
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"token store of format {manifest.get('format')}, this version reads {FORMAT}",
            where=str(folder),
            hint="delete it and encode again",
        )
    return manifest


def _mapped(folder: Path, tokens: int, dtype: np.dtype[Any]) -> np.ndarray:
    """The tokens (N,) of a store."""
    if not tokens:
        return np.empty(0, dtype=dtype)  # an empty file cannot be mapped
    return np.memmap(folder / TOKENS, dtype=dtype, mode="r", shape=(tokens,))


def _check(folder: Path, name: str, checksum: str) -> None:
    if file_checksum(folder / name) != checksum:
        raise _damaged(folder, f"{name} does not match its checksum")


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"token store is damaged: {what}", where=str(folder), hint="delete it and encode again")


def _write(folder: Path, documents: Iterable[Document], vocab_size: int | None, tokenizer: str) -> None:
    dtype = width_for(vocab_size - 1 if vocab_size else 0)
    path = folder / TOKENS
    ids: list[str] = []
    languages: dict[str, int] = {}
    codes: list[int] = []
    sizes: list[int] = []
    offsets = [0]
    largest = -1
    file = path.open("wb")
    try:
        for id, language, size, tokens in documents:
            if "\n" in id:
                raise ValueError(f"document id {id!r} holds a line break")
            if len(tokens):
                if tokens.min() < 0:
                    raise ValueError(f"document {id} holds a negative token")
                largest = max(largest, int(tokens.max()))
            if vocab_size is not None and largest >= vocab_size:
                raise ValueError(f"document {id} holds token {largest}, the vocabulary ends at {vocab_size - 1}")
            if largest > np.iinfo(dtype).max:
                file.close()
                dtype = _widen(path, dtype, width_for(largest))
                file = path.open("ab")
            file.write(np.ascontiguousarray(tokens, dtype=dtype).data)
            ids.append(id)
            codes.append(languages.setdefault(language, len(languages)))
            sizes.append(size)
            offsets.append(offsets[-1] + len(tokens))
    finally:
        file.close()
    divided = np.array(offsets, dtype=np.int64)
    np.save(folder / "offsets.npy", divided)
    np.save(folder / HASHES, document_hashes(_mapped(folder, offsets[-1], dtype), divided))
    np.save(folder / "sizes.npy", np.array(sizes, dtype=np.int64))
    np.save(folder / "languages.npy", np.array(codes, dtype=np.uint16))
    (folder / "ids.bin").write_bytes("".join(f"{id}\n" for id in ids).encode("utf-8"))
    manifest = {
        "format": FORMAT,
        "documents": len(ids),
        "tokens": offsets[-1],
        "dtype": dtype.str,
        "vocab_size": vocab_size or largest + 1,
        "tokenizer": tokenizer,
        "languages": list(languages),
    }
    finish(folder, manifest)


def finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a store's manifest, given what it says of the documents, and flush all files to the disk."""
    files: dict[str, dict[str, Any]] = {name: {"bytes": (folder / name).stat().st_size} for name in FILES}
    for name in files.keys() - {TOKENS}:
        files[name]["sha256"] = file_checksum(folder / name)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}, indent=1) + "\n")
    for name in (*FILES, "manifest.json"):
        with (folder / name).open("rb") as written:
            os.fsync(written.fileno())


def _widen(path: Path, narrow: np.dtype[Any], wide: np.dtype[Any]) -> np.dtype[Any]:
    """Rewrite the tokens of a file in a wider type, block by block."""
    widened = path.with_suffix(".wide")
    with path.open("rb") as source, widened.open("wb") as target:
        while block := source.read(_READ):
            target.write(np.frombuffer(block, dtype=narrow).astype(wide).data)
    widened.replace(path)
    return wide
