"""The clean stage: SantaCoder's basic filter, then decontamination. Documents stay as they are; decisions are written.

The basic filter is Codex's with SantaCoder's thresholds (bigcode-dataset/preprocessing/filtering.py): a file goes when
its longest line exceeds `max_line`, its mean line exceeds `mean_line`, or its share of alphanumeric characters falls
below `alphanumeric`; equal values stay. Every document gets all values, so a threshold can be changed without reading
text again. Near-duplicates are looked for among what remains (in `faithful`, before everything else). With `pii`,
survivors are redacted (`redacted`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kringle.data.contamination import BenchmarkString, Finder, load_strings
from kringle.data.contamination_tokens import TokenFinder
from kringle.data.decisions import DecisionFiles
from kringle.data.near_duplicates.method import Fidelity, Method
from kringle.data.near_duplicates.stage import STEP, Found, near_duplicates_of
from kringle.data.redacted import RedactedShard, corpus_key, publish
from kringle.data.table import (
    DECISION,
    DOCUMENT,
    SURVIVOR,
    Decision,
    TableWriter,
    document_shards,
    iter_row_groups,
    read_table,
    row_group_starts,
    shard_fingerprint,
    write_rows,
)
from kringle.data.text_statistics import text_statistics
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.settings import CleanSettings, plain
from kringle.workspace import ShardStore, Task, fingerprint, shard_summary, write_atomically

STEPS = ("max-line", "mean-line", "alphanumeric", "contamination")


def clean(
    settings: CleanSettings,
    documents: Path,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
    benchmarks: Mapping[str, Path],
    fidelity: Fidelity = "corrected",
    *,
    recipe: str = "",
) -> dict[str, Any]:
    """Judge every document of the folder `documents`; writes `decisions` and `survivors.parquet` into `out`,
    and with `settings.pii` the redacted `documents` and `findings.parquet`.

    `benchmarks` maps the names in `settings.decontaminate` to their files; stand-ins are drawn under a key that follows
    from the name `recipe`. Returns counts, the funnel and notes. Raises
    `UserError` for an unknown benchmark, and when no document survives.
    """
    strings = load_strings(settings.decontaminate, benchmarks, fidelity)
    parts = document_shards(documents)
    key = corpus_key(recipe) if settings.pii else None
    rules = fingerprint(
        plain(replace(settings, near_dedup=None)), strings.used, fidelity, key.hex() if key else None
    )  # once, because the benchmarks' texts are among them
    tasks = [
        Task(
            part.name,
            fingerprint(shard_fingerprint(part), rules),
            (part, settings, strings.used, fidelity, key),
        )
        for part in parts
    ]
    with progress.task("clean", len(parts), unit="shards") as counter:
        folders = shards.map(engine, clean_shard, tasks, on_done=lambda _: counter.advance())
    found = _near_duplicates(settings, documents, folders, shards, engine, progress, fidelity)
    steps: tuple[str, ...] = STEPS
    if found is not None:
        steps = (STEP, *STEPS) if fidelity == "faithful" else (*STEPS, STEP)
        write_atomically(out / "near-duplicates.json", json.dumps(found.figures))
    tally = _Tally(steps)
    decisions = DecisionFiles(out)

    def survivors() -> Iterator[pa.Table]:
        for number, (part, folder) in enumerate(zip(parts, folders, strict=True)):
            decisions.link(folder / "decisions.parquet")
            tally.add(shard_summary(folder))
            rows = found.gone(number) if found is not None else np.zeros(0, np.int64)
            gone = read_table(part, ["id", "size"]).take(rows) if len(rows) else None
            if gone is not None:
                tally.give_way(gone, read_table(folder / "decisions.parquet", ["id", "step", "kept"]))
            for group in iter_row_groups(folder / "survivors.parquet", SURVIVOR.names):
                if gone is not None:
                    group = group.filter(pc.invert(pc.is_in(group["id"], value_set=gone["id"].combine_chunks())))
                yield group

    with TableWriter(out / "survivors.parquet", SURVIVOR) as writer:
        writer.write_tables(survivors())
    if found is not None:
        decisions.write(found.decisions())
    summary = _summary(settings, tally, len(strings.used), strings.unused)
    if key:
        summary["pii"] = publish(((part.name, folder) for part, folder in zip(parts, folders, strict=True)), out)
        summary["notes"].append(summary["pii"]["note"])
    return summary


def _near_duplicates(
    settings: CleanSettings,
    documents: Path,
    folders: Sequence[Path],
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
    fidelity: Fidelity,
) -> Found | None:
    """`corrected` looks among the documents that pass everything else, so that none gives way to one that goes for
    another reason; the original looked before everything else (paper, section 4.3)."""
    if settings.near_dedup is None:
        return None
    method = Method.of(settings.near_dedup.ngram, settings.near_dedup.threshold, fidelity)
    parts = document_shards(documents)
    if fidelity == "faithful":
        rows = (np.arange(row_group_starts(part)[-1]) for part in parts)
    else:
        rows = (np.load(folder / "rows.npy") for folder in folders)
    return near_duplicates_of(documents, rows, method, shards, engine, progress)


def clean_shard(
    payload: tuple[Path, CleanSettings, Sequence[BenchmarkString], Fidelity, bytes | None], folder: Path
) -> dict[str, Any]:
    """One shard, in a worker: judge its documents, redact the survivors where there is a key, write into `folder`; the
    survivors' `rows.npy` (M,) too. Returns what `_Tally` counts."""
    part, settings, strings, fidelity, key = payload
    finder = Finder(strings) if fidelity == "faithful" else TokenFinder(strings)
    files = size = 0
    dropped = {step: [0, 0] for step in STEPS}  # files, bytes
    witnesses = Counter[str]()
    decisions: list[Decision] = []
    survivors = []
    rows: list[int] = []
    first = 0
    with RedactedShard(folder, key, fidelity) if key else nullcontext() as redacted:
        for group in iter_row_groups(part, DOCUMENT.names if redacted else [*SURVIVOR.names, "content"]):
            kept = []
            for row, document in enumerate(group.to_pylist(), first):
                verdicts = list(judge(document, settings, finder))
                decisions += verdicts
                files, size = files + 1, size + document["size"]
                failed = next((verdict for verdict in verdicts if not verdict.kept), None)
                if failed is None:
                    kept.append(document)
                    rows.append(row)
                    continue
                dropped[failed.step][0] += 1
                dropped[failed.step][1] += document["size"]
                if failed.step == "contamination":
                    witnesses[str(failed.witness).partition(":")[0]] += 1
            first += group.num_rows
            if redacted:
                redactions = redacted.add(kept)
                decisions += [redaction.decision for redaction in redactions]
                kept = [redaction.document for redaction in redactions]
            survivors += [[document[name] for name in SURVIVOR.names] for document in kept]
    write_rows(folder / "decisions.parquet", DECISION, decisions)
    write_rows(folder / "survivors.parquet", SURVIVOR, survivors)
    np.save(folder / "rows.npy", np.array(rows, dtype=np.int64))
    return {
        "survivors": len(survivors),
        "files": files,
        "bytes": size,
        "dropped": dropped,
        "witnesses": dict(witnesses),
    }


def judge(document: Mapping[str, Any], settings: CleanSettings, finder: Finder | TokenFinder) -> Iterator[Decision]:
    """One decision per step of `STEPS` on one document."""
    values = text_statistics(document["content"])
    place = (document["id"], document["repo"], document["path"])
    limit = settings.max_line
    yield Decision(*place, "max-line", values.max_line, f"<= {limit:g}", values.max_line <= limit)
    mean = settings.mean_line
    yield Decision(*place, "mean-line", values.mean_line, f"<= {mean:g}", values.mean_line <= mean)
    share = settings.alphanumeric
    yield Decision(*place, "alphanumeric", values.alphanumeric, f">= {share:g}", values.alphanumeric >= share)
    found = finder.find(document["content"])
    witness = None if found is None else str(found)
    yield Decision(*place, "contamination", None, "no benchmark's text", found is None, witness)


class _Tally:
    """Counts files and bytes by the first step that drops them; shard by shard, holding nothing of a document."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.files = self.bytes = 0
        self.dropped = {step: [0, 0] for step in steps}  # files, bytes
        self.witnesses: Counter[str] = Counter()  # benchmarks of which files hold texts

    def add(self, shard: Mapping[str, Any]) -> None:
        """What `clean_shard` returned."""
        self.files += shard["files"]
        self.bytes += shard["bytes"]
        self.witnesses.update(shard["witnesses"])
        for step, (files, size) in shard["dropped"].items():
            self._count(step, files, size)

    def give_way(self, gone: pa.Table, decisions: pa.Table) -> None:
        """Documents of a shard (id, size) that give way to near-duplicates, and the shard's decisions (id, step, kept):
        one that an earlier step drops stays counted there, one that a later step drops counts here instead."""
        order = list(self.dropped)
        failures = decisions.filter(
            pc.and_(pc.invert(decisions["kept"]), pc.is_in(decisions["id"], value_set=gone["id"].combine_chunks()))
        )
        first: dict[str, str] = {}  # id -> step
        for id, step in zip(failures["id"].to_pylist(), failures["step"].to_pylist(), strict=True):
            first.setdefault(id, step)
        for id, size in zip(gone["id"].to_pylist(), gone["size"].to_pylist(), strict=True):
            if (before := first.get(id)) is not None:
                if order.index(before) < order.index(STEP):
                    continue
                self._count(before, -1, -size)
            self._count(STEP, 1, size)

    def _count(self, step: str, files: int, size: int) -> None:
        self.dropped[step][0] += files
        self.dropped[step][1] += size


def _summary(settings: CleanSettings, tally: _Tally, used: int, unused: Sequence[BenchmarkString]) -> dict[str, Any]:
    reasons = {
        "max-line": f"a line of more than {settings.max_line:,} characters",
        "mean-line": f"lines of more than {settings.mean_line:g} characters on average",
        "alphanumeric": f"less than {settings.alphanumeric:.0%} letters and digits",
        "contamination": "holds the text of a benchmark",
        STEP: "a near-duplicate of another file",
    }
    funnel = []
    files, size = tally.files, tally.bytes
    for step, (dropped, lost) in tally.dropped.items():
        files -= dropped
        size -= lost
        entry = {"reason": reasons[step], "files": dropped, "bytes": lost}
        funnel.append({"name": step, "files": files, "bytes": size, "dropped": [entry] if dropped else []})
    if not files:
        raise UserError(
            f"no document of {tally.files:,} passes the basic filter and decontamination",
            where="clean",
            hint="loosen clean.max_line, clean.mean_line or clean.alphanumeric",
        )
    notes = [f"contaminated: {n:,} x {name}" for name, n in tally.witnesses.most_common(5)]
    if unused:
        names = ", ".join(f"{s.task} ({s.text.splitlines()[0] if s.text else ''})" for s in unused[:3])
        notes.append(
            f"{len(unused):,} of {used + len(unused):,} benchmark strings are too short or too common to search for: "
            f"{names}{', ...' if len(unused) > 3 else ''}"
        )
    return {
        "files": files,
        "bytes": size,
        "funnel": funnel,
        "benchmark_strings": used,
        "unused_strings": [{"suite": s.suite, "task": s.task, "kind": s.kind, "text": s.text} for s in unused],
        "notes": notes,
    }
