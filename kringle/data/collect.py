"""The collect stage: candidates in, the document table out, one row per distinct content.

Candidates are read in tasks of a few megabytes whose borders depend on the candidates near them alone, so one changed
file redoes one task. Each task's documents are in canonical order (repo, path, id), and so is their concatenation:
exact duplicates are found in one pass over the ids, and the part files stream out a row group at a time. Of several
copies the one with the smallest (repo, path) is the document; the others stay in its column `copies`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kringle.data.licenses import is_permissive
from kringle.data.reading import Reader, Unreadable, blob_id, decode
from kringle.data.sources.candidates import Candidate
from kringle.data.survey import Survey, license_label
from kringle.data.table import (
    DECISION,
    DOCUMENT,
    Decision,
    TableWriter,
    iter_row_groups,
    read_table,
    write_documents,
    write_rows,
)
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.randomness import uniform
from kringle.recipe import CorpusSettings
from kringle.workspace import ShardStore, Task, fingerprint

TASK_BYTES = 4 << 20  # on average: a second of one core, little enough to redo after a kill
_MOST_TASKS = 4096  # a large corpus gets larger tasks instead of more of them
_LARGEST = 8  # times the average: a task ends here even where no border is drawn
TEXT = "UTF-8 text"
ONE_COPY = "one file per content"


def collect(
    survey: Survey, corpus: CorpusSettings, out: Path, shards: ShardStore, engine: Engine, progress: Reporter
) -> dict[str, Any]:
    """Read what the survey selected into `out/documents/part-*.parquet`; decisions go to `out/decisions.parquet`.

    Returns counts by source, language and licence, the funnel, and notes for the reader. Raises `UserError` when not
    one selected file is a text.
    """
    chunks = partition(survey.selected)
    tasks = [Task(_name(chunk), fingerprint(chunk), chunk) for chunk in chunks]
    with progress.task("collect", len(survey.selected), unit="files") as counter:
        folders = shards.map(engine, read_candidates, tasks, on_done=lambda i: counter.advance(len(chunks[i])))
    documents = out / "documents"
    shutil.rmtree(documents, ignore_errors=True)
    documents.mkdir(parents=True)
    merged = _Merge(folders)
    if not merged.kept:
        raise UserError(
            f"none of {len(survey.selected):,} files is UTF-8 text: {_reasons(merged.unread)}",
            where="corpus",
            hint="see the files with kringle why",
        )
    merged.write(documents)
    _write_decisions(out / "decisions.parquet", survey.decisions, folders, merged.decisions)
    return merged.summary(survey, corpus)


def partition(
    candidates: Sequence[Candidate], draw: Callable[[Candidate], float] | None = None
) -> list[list[Candidate]]:
    """Cut candidates in canonical order into consecutive tasks of `TASK_BYTES` on average (more for large corpora).

    A border follows a file when the file's own draw falls below its share of a task, so a change moves only the borders
    next to it. Files with the same (repo, path), found by several sources, stay together.
    """
    draw = draw or (lambda c: uniform(0, "collect-border", c.repo, c.path))
    total = sum(c.size for c in candidates)
    average = TASK_BYTES
    while total / average > _MOST_TASKS:
        average *= 2
    chunks: list[list[Candidate]] = []
    chunk: list[Candidate] = []
    size = 0
    for position, candidate in enumerate(candidates):
        chunk.append(candidate)
        size += candidate.size
        after = candidates[position + 1] if position + 1 < len(candidates) else None
        together = after is not None and (after.repo, after.path) == (candidate.repo, candidate.path)
        if not together and (draw(candidate) < candidate.size / average or size >= _LARGEST * average):
            chunks.append(chunk)
            chunk, size = [], 0
    return [*chunks, chunk] if chunk else chunks


def _name(chunk: Sequence[Candidate]) -> str:
    return f"{chunk[0].repo}/{chunk[0].path} to {chunk[-1].repo}/{chunk[-1].path}"


def read_candidates(candidates: list[Candidate], folder: Path) -> dict[str, Any]:
    """One task, in a worker: read, decode and write `documents.parquet` and `decisions.parquet` into `folder`."""
    documents: list[dict[str, Any]] = []
    decisions: list[Decision] = []
    with Reader() as reader:
        for c in candidates:
            try:
                data = reader.read(c)
                content = decode(data)
            except Unreadable as reason:
                decisions.append(Decision(None, c.repo, c.path, "read", c.size, TEXT, False, str(reason)))
                continue
            id = blob_id(data)
            decisions.append(Decision(id, c.repo, c.path, "read", c.size, TEXT, True))
            documents.append(
                {
                    "id": id,
                    "content": content,
                    "path": c.path,
                    "repo": c.repo,
                    "language": c.language,
                    "size": len(data),
                    "licenses": c.licenses,
                    "stars": c.stars,
                    "source": c.source,
                    "revision": c.revision,
                    "copies": [],
                }
            )
    documents.sort(key=lambda d: (d["repo"], d["path"], d["id"], d["source"], d["revision"], d["licenses"]))
    count = write_documents(folder / "documents.parquet", documents)
    write_rows(folder / "decisions.parquet", DECISION, decisions)
    return {"documents": count}


# -- exact duplicates --------------------------------------------------------------------------------------------------

_PLACE = ["source", "repo", "path", "revision", "licenses"]


class _Merge:
    """The documents of all tasks with exact duplicates told apart; holds their metadata, never their content."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.files = [folder / "documents.parquet" for folder in folders]
        self.kept: dict[str, dict[str, Any]] = {}  # id -> metadata of its survivor, in canonical order
        self.copies: dict[str, list[dict[str, Any]]] = {}
        self.decisions: list[Decision] = []
        self.dropped_bytes = 0
        self.masks: list[list[bool]] = []
        columns = ["id", "language", "size", *_PLACE]
        rows: list[dict[str, Any]] = []
        for file in self.files:
            mask = []
            for row in read_table(file, columns).to_pylist():
                first = self.kept.setdefault(row["id"], row)
                mask.append(first is row)
                if first is not row:
                    self.copies.setdefault(row["id"], []).append({name: row[name] for name in _PLACE})
                    self.dropped_bytes += row["size"]
                rows.append(row)
            self.masks.append(mask)
        self._decide(rows)
        self.unread = Counter[str]()
        self.unread_bytes = Counter[str]()
        for folder in folders:
            table = read_table(folder / "decisions.parquet", ["kept", "witness", "value"])
            for row in table.filter(pc.invert(table["kept"])).to_pylist():
                kind = row["witness"].partition(":")[0].partition(" (")[0]
                self.unread[kind] += 1
                self.unread_bytes[kind] += int(row["value"])

    def _decide(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            first = self.kept[row["id"]]
            kept = first is row
            copies = len(self.copies.get(row["id"], ()))
            if kept:
                witness = f"has {copies:,} more copies" if copies > 1 else "has one more copy" if copies else None
            else:
                witness = f"the same as {first['repo']}/{first['path']}"
            self.decisions.append(
                Decision(row["id"], row["repo"], row["path"], "exact-duplicate", copies + 1, ONE_COPY, kept, witness)
            )

    def write(self, out: Path) -> None:
        """Write the survivors to `out/part-*.parquet`, one part per task that has any."""
        number = 0
        for file, mask in zip(self.files, self.masks, strict=True):
            if not any(mask):
                continue
            start = 0
            with TableWriter(out / f"part-{number:05d}.parquet", DOCUMENT) as writer:
                for group in iter_row_groups(file):
                    chosen = group.filter(pa.array(mask[start : start + group.num_rows]))
                    start += group.num_rows
                    copies = [self.copies.get(id, []) for id in chosen["id"].to_pylist()]
                    column = chosen.schema.get_field_index("copies")
                    field = DOCUMENT.field("copies")
                    writer.write_table(chosen.set_column(column, field, pa.array(copies, field.type)))
            number += 1

    def summary(self, survey: Survey, corpus: CorpusSettings) -> dict[str, Any]:
        """What a reader wants to know of the collected documents, as JSON-able values."""
        documents = list(self.kept.values())
        size = sum(d["size"] for d in documents)
        copies = sum(map(len, self.copies.values()))
        beyond = [d for d in documents if not is_permissive(d["licenses"])]
        read = {
            "name": "read",
            "files": len(documents) + copies,
            "bytes": size + self.dropped_bytes,
            "dropped": [
                {"reason": kind, "files": n, "bytes": self.unread_bytes[kind]} for kind, n in self.unread.most_common()
            ],
        }
        duplicates = {
            "name": "exact duplicates",
            "files": len(documents),
            "bytes": size,
            "dropped": [{"reason": "copy of another file", "files": copies, "bytes": self.dropped_bytes}]
            if copies
            else [],
        }
        languages = _shares(documents, lambda d: str(d["language"]))
        notes = list(survey.notes)
        if self.unread:
            notes.append(f"left out when read: {_reasons(self.unread)}")
        if beyond:
            labels = sorted({license_label(d["licenses"]) for d in beyond})
            notes.append(
                f"{len(beyond):,} documents are under licences beyond permissive ones ({', '.join(labels[:5])}): "
                "not for permissive release"
            )
        return {
            "fingerprint": survey.fingerprint,
            "files": len(documents),
            "bytes": size,
            "sources": _shares(documents, lambda d: str(d["source"])),
            "languages": languages,
            "licenses": _shares(documents, lambda d: license_label(d["licenses"])),
            "languages_without_data": [x for x in corpus.languages if x not in {share["name"] for share in languages}],
            "permissive": not beyond,
            "funnel": [*survey.funnel, read, duplicates],
            "notes": notes,
        }


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} x {reason}" for reason, n in counts.most_common())


def _shares(documents: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """Files and bytes by a key, the largest first."""
    files, sizes = Counter[str](), Counter[str]()
    for document in documents:
        files[key(document)] += 1
        sizes[key(document)] += document["size"]
    return [
        {"name": name, "files": files[name], "bytes": size}
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]


def _write_decisions(path: Path, first: Sequence[Decision], folders: Sequence[Path], last: Sequence[Decision]) -> None:
    with TableWriter(path, DECISION) as writer:
        writer.write_rows(first)
        for folder in folders:
            for group in iter_row_groups(folder / "decisions.parquet"):
                writer.write_table(group)
        writer.write_rows(last)
