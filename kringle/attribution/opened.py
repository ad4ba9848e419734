"""Opening the index of a workspace's last run, and telling what was found in words and data that travel."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from kringle.attribution.index import AttributionIndex, Copy
from kringle.attribution.sources import Source
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer


def open_index(folder: Path, store: Path, tokenizer: Path) -> AttributionIndex:
    """The index in `folder`, built over the store and tokenizer in the other two. Raises `UserError`."""
    return AttributionIndex(folder, TokenStore.open(store), Tokenizer.load(tokenizer))


def described(index: AttributionIndex, copy: Copy) -> dict[str, Any]:
    """A copy as plain data: start and end in characters, kind, sources (each document once), how many `more`."""
    return {
        "start": copy.start,
        "end": copy.end,
        "kind": copy.kind,
        "sources": [
            source_entry(index.source(place.document), index.line(place.document, place.start)) for place in copy.places
        ],
        "more": copy.more,
    }


def source_entry(source: Source, line: int | None = None) -> dict[str, Any]:
    """A document as plain data; `line` where a copy begins, `url` where the place is known to be public."""
    entry: dict[str, Any] = {
        "id": source.id,
        "path": source.path,
        "repository": source.repo,
        "licence": " AND ".join(source.licenses) or None,
        "language": source.language,
        "revision": source.revision or None,
    }
    if line is not None:
        entry["line"] = line
    if (url := public_url(source, line)) is not None:
        entry["url"] = url
    return entry


def public_url(source: Source, line: int | None = None) -> str | None:
    """Where a document of a public table of GitHub's files can be read; None for every other source.

    Only The Stack's tables name repositories as owner/name on GitHub together with a commit; a local folder, or an
    installed package, has no address that is surely its own.
    """
    owner, _, name = source.repo.partition("/")
    known = source.origin == "stack" and owner and name and "/" not in name and source.revision
    if not known:
        return None
    where = "/".join(quote(part, safe="") for part in (owner, name, "blob", source.revision))
    return f"https://github.com/{where}/{quote(source.path)}" + (f"#L{line}" if line is not None else "")
