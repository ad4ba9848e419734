"""Redaction as a part of the clean stage: every surviving document with its secrets and personal data replaced.

The stages after `clean` read these documents in place of the collected ones. `id` stays what it was (the original
bytes), `content_id` is the git blob id of the redacted ones, and `size` counts those. What was found goes into the
decision table (step `pii`, the number of findings) and, by kind and format, into `findings.parquet`.

With the fidelity `faithful`, BigCode's emails, addresses and keys are replaced as the original did it, ten constants
for a whole corpus (`kringle.pii.faithful`); keys need the extra `kringle[detect-secrets]`.

Stand-ins of `corrected` follow from a value and the corpus key. The key follows from the recipe's name, so a rerun
gives the same bytes; it is no secret, and whoever knows the recipe can test a guess at what a stand-in stands for.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from kringle.data.table import DOCUMENT, Decision, TableWriter, link, read_table, write_rows

STEP = "pii"
KINDS = {"email": "emails", "ip": "IP addresses", "key": "keys"}
FINDINGS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kind", pa.string()),  # email, ip, key
        pa.field("format", pa.string()),  # more exactly what: "github-token", "ipv6"
        pa.field("count", pa.int64()),
    ]
)


class Redaction(NamedTuple):
    """One document after redaction, the decision to write, and what was found: (kind, format) -> how often."""

    document: dict[str, Any]
    decision: Decision
    found: Counter[tuple[str, str]]


def corpus_key(recipe: str) -> bytes:
    """The key of a recipe's stand-ins: 32 bytes, a function of the recipe's name."""
    return hashlib.blake2b(recipe.encode(), person=b"kringle-corpus", digest_size=32).digest()


def blob_id(content: bytes) -> str:
    """The id that git gives to these bytes, SHA-1 in hexadecimal."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def require(fidelity: str) -> None:
    """Refuse before any work what `fidelity` needs and is not installed."""
    if fidelity == "faithful":
        from kringle.pii.faithful_keys import default_gibberish

        default_gibberish()


def redact_document(document: Mapping[str, Any], key: bytes, fidelity: str = "corrected") -> Redaction:
    """A document (columns of `DOCUMENT`) with its findings replaced, by `corrected` under the corpus key."""
    content, findings = (_faithful if fidelity == "faithful" else _corrected)(document["content"], key)
    redacted = {**document, "content_id": blob_id(content), "size": len(content)}
    if findings:
        redacted["content"] = content.decode()
    kinds = Counter(kind for kind, _ in findings)
    witness = ", ".join(f"{kinds[kind]:,} {name}" for kind, name in KINDS.items() if kinds[kind]) or None
    place = (document["id"], document["repo"], document["path"])
    decision = Decision(*place, STEP, len(findings), "redacted", True, witness)
    return Redaction(redacted, decision, Counter(findings))


def _corrected(text: str, key: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """The redacted bytes, and kind and format of each finding."""
    from kringle.pii import redact

    content, findings = redact(text.encode(), key)
    return content, [(finding.kind, finding.format) for finding in findings]


def _faithful(text: str, _key: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    from kringle.pii import faithful, faithful_keys

    spans = faithful.find_emails(text) + faithful.find_ips(text) + faithful_keys.find_keys(text)
    replaced = [span for span in spans if faithful.is_replaced(span)]
    return faithful.redact(text, spans).encode(), [(span.kind, span.kind) for span in replaced]


class RedactedShard:
    """Writes the redacted documents of one shard, and what was found in them; use as a context manager."""

    def __init__(self, folder: Path, key: bytes, fidelity: str = "corrected") -> None:
        self._folder, self._key, self._fidelity = folder, key, fidelity
        self._documents = TableWriter(folder / "documents.parquet", DOCUMENT)
        self._found: list[tuple[str, str, str, int]] = []

    def add(self, documents: Sequence[Mapping[str, Any]]) -> list[Redaction]:
        """Redact the documents of one row group and append them."""
        redactions = [redact_document(document, self._key, self._fidelity) for document in documents]
        for redaction in redactions:
            rows = sorted(redaction.found.items())
            self._found += [(redaction.document["id"], kind, form, count) for (kind, form), count in rows]
        columns = [pa.array([r.document[field.name] for r in redactions], field.type) for field in DOCUMENT]
        self._documents.write_table(pa.Table.from_arrays(columns, schema=DOCUMENT))
        return redactions

    def __enter__(self) -> RedactedShard:
        return self

    def __exit__(self, *error: object) -> None:
        self._documents.__exit__(*error)
        write_rows(self._folder / "findings.parquet", FINDINGS, self._found)


def publish(parts: Iterable[tuple[str, Path]], out: Path) -> dict[str, Any]:
    """Put the shards' documents into `out/documents` under the names of the collected ones, and all findings into
    `out/findings.parquet`; returns counts: `files` with findings, `kinds`, `formats`, and a `note` for readers.
    """
    folder = out / "documents"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here
    folder.mkdir()
    kinds: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    files = 0

    def findings() -> Iterator[pa.Table]:
        nonlocal files
        for name, shard in parts:
            link(shard / "documents.parquet", folder / name)
            found = read_table(shard / "findings.parquet")
            table = found.to_pydict()
            files += len(set(table["id"]))
            for kind, form, count in zip(table["kind"], table["format"], table["count"], strict=True):
                kinds[kind] += count
                formats[form] += count
            yield found

    with TableWriter(out / "findings.parquet", FINDINGS) as writer:
        writer.write_tables(findings())
    told = ", ".join(f"{kinds[kind]:,} {name}" for kind, name in KINDS.items())
    note = f"replaced by stand-ins: {told} in {files:,} files"
    return {"files": files, "kinds": dict(kinds), "formats": dict(formats), "note": note}
