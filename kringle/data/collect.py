"""The collect stage: candidates and containers in, the document table out, one row per distinct content.

Candidates are read in tasks of a few megabytes whose borders depend on the candidates near them alone, so one changed
file redoes one task; a container is a task of its own. What is in a task comes in canonical order (repo, path) for
candidates, in the container's own order for containers; exact duplicates are told apart over all of them
(`kringle.data.merge`).
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kringle.data import funnel
from kringle.data.decisions import DecisionFiles
from kringle.data.gather import Terms, gather_candidates, gather_container, measure_container
from kringle.data.merge import Merge
from kringle.data.optout import OptOuts
from kringle.data.sources.candidates import Candidate
from kringle.data.stars import digest
from kringle.data.survey import Survey, sample
from kringle.data.table import read_table
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.settings import CorpusSettings
from kringle.workspace import ShardStore, Task, fingerprint, shard_summary

TASK_BYTES = 4 << 20  # on average: half a second of one core, little enough to redo after a kill
# A rerun spends some 20 ms on each task that is there already, and works on a task or two of what is new. The sum is
# smallest where tasks are as many as they are large, up to a factor: 120 of 8 MB at 1 GB, 2,000 of 128 MB at 268 GB.
_TASKS_PER_ROOT = 8
_LARGEST = 8  # times the average: a task ends here even where no border is drawn
_FAULTS_TOLD = 20  # broken containers that are named in the notes; all of them are in the decisions


def collect(
    survey: Survey, corpus: CorpusSettings, out: Path, shards: ShardStore, engine: Engine, progress: Reporter
) -> dict[str, Any]:
    """Read what the survey selected into `out/documents/part-*.parquet`; decisions go to `out/decisions`.

    Returns counts by source, language and licence, the funnel, and notes for the reader. Raises `UserError` when not
    one selected file is a text.
    """
    terms = terms_of(corpus)
    if survey.containers and corpus.max_bytes is not None:
        survey, terms = _sampled(survey, corpus.max_bytes, terms, shards, engine, progress)
    chunks = partition(survey.selected)
    own = terms._replace(bound=1.0).fingerprint_parts()
    tasks = [Task(_name(chunk), fingerprint(chunk, own), (chunk, terms)) for chunk in chunks]
    containers = [Task(c.name, fingerprint(c, terms.fingerprint_parts()), (c, terms)) for c in survey.containers]
    with progress.task("collect", len(survey.selected) + len(containers), unit="files") as counter:
        folders = _gathered(shards, engine, gather_candidates, tasks, terms, lambda i: counter.advance(len(chunks[i])))
        folders += _gathered(shards, engine, gather_container, containers, terms, lambda _: counter.advance())
    tasks += containers
    summaries = [shard_summary(folder) for folder in folders]
    documents = out / "documents"
    shutil.rmtree(documents, ignore_errors=True)
    documents.mkdir(parents=True)
    if not any(summary["documents"] for summary in summaries):
        raise UserError(_nothing(survey, summaries), where="corpus", hint="see the files with kringle why")
    with TemporaryDirectory(prefix=".duplicates-", dir=out) as scratch:  # hidden: a rerun removes what a kill leaves
        merged = Merge(folders, [summary["documents"] for summary in summaries], Path(scratch))
        merged.write_parts(tasks, documents, shards, engine, progress)
        decisions = DecisionFiles(out)
        decisions.write(table for judged in survey.decisions for table in judged.tables())
        for folder in folders:
            decisions.link(folder / "decisions.parquet")
        decisions.write(merged.decisions())
        return _summary(survey, corpus, merged, summaries)


def terms_of(corpus: CorpusSettings) -> Terms:
    """What the recipe asks of every document. Raises `UserError` when the table of stars cannot be read."""
    return Terms(
        languages=corpus.languages,
        max_file_bytes=corpus.max_file_bytes,
        licenses=corpus.licenses,
        allow_licenses=corpus.allow_licenses,
        leave_out=corpus.leave_out,
        stars=None if corpus.stars is None else str(corpus.stars.absolute()),
        stars_checksum=None if corpus.stars is None else digest(corpus.stars),
        bound=1.0,
        opt_out=corpus.opt_out,
    )


def _gathered(
    shards: ShardStore,
    engine: Engine,
    work: Callable[[Any, Path], dict[str, Any]],
    tasks: Sequence[Task],
    terms: Terms,
    on_done: Callable[[int], None],
) -> list[Path]:
    """Shards of all tasks; one in the store that an opt-out has changed, or should have, is made again.

    Opt-outs by id, and those inside containers, are no part of a task's fingerprint: only the few shards that hold what
    they name depend on them.
    """
    folders = shards.map(engine, work, tasks, on_done=on_done)
    rules = OptOuts(terms.opt_out)
    stale = [folder for folder in folders if _stale(folder, rules)]
    if stale:
        for folder in stale:
            shutil.rmtree(folder)
        folders = shards.map(engine, work, tasks)
    return folders


def _stale(folder: Path, rules: OptOuts) -> bool:
    if not set(shard_summary(folder)["opted_out"]) <= set(rules.rules):
        return True  # a rule that is no longer there has taken something out
    if not rules:
        return False
    table = read_table(folder / "documents.parquet", ["id", "repo", "path"])
    return any(rules.document(*row) for row in zip(*(c.to_pylist() for c in table.columns), strict=True))


def _sampled(
    survey: Survey, max_bytes: int, terms: Terms, shards: ShardStore, engine: Engine, progress: Reporter
) -> tuple[Survey, Terms]:
    """The survey with its sample drawn from candidates and containers together, and terms with the bound of it."""
    tasks = [
        Task(c.name, fingerprint("measure", c, terms.fingerprint_parts(), terms.opt_out), (c, terms))
        for c in survey.containers
    ]
    with progress.task("measure", len(tasks), unit="containers") as counter:
        folders = shards.map(engine, measure_container, tasks, on_done=lambda _: counter.advance())
    rows = np.concatenate([np.empty((0, 2)), *(np.load(folder / "draws.npy") for folder in folders)])
    bound, selected, judged, step = sample(survey.selected, max_bytes, rows)
    sampled = replace(
        survey, selected=tuple(selected), decisions=(*survey.decisions, judged), funnel=(*survey.funnel, step)
    )
    return sampled, terms._replace(bound=bound)


def partition(
    candidates: Sequence[Candidate], draw: Callable[[Candidate], float] | None = None
) -> list[list[Candidate]]:
    """Cut candidates in canonical order into consecutive tasks of `TASK_BYTES` on average (more for large corpora).

    A border follows a file when the file's own draw falls below its share of a task, so a change moves only the borders
    next to it; but where a corpus grows past a size at which tasks double (268 MB, 1.07 GB, 4.3 GB, ...), half of all
    borders go, and most tasks are done again. Files with the same (repo, path), found by several sources, stay
    together.
    """
    draw = draw or _border
    total = sum(c.size for c in candidates)
    average = TASK_BYTES
    while total / average > _TASKS_PER_ROOT * math.sqrt(total / TASK_BYTES):
        average *= 2
    chunks: list[list[Candidate]] = []
    chunk: list[Candidate] = []
    size = 0
    for position, candidate in enumerate(candidates):
        chunk.append(candidate)
        size += candidate.size
        if draw(candidate) < candidate.size / average or size >= _LARGEST * average:
            after = candidates[position + 1] if position + 1 < len(candidates) else None
            if after is None or (after.repo, after.path) != (candidate.repo, candidate.path):
                chunks.append(chunk)
                chunk, size = [], 0
    return [*chunks, chunk] if chunk else chunks


def _border(candidate: Candidate) -> float:
    """A number in [0, 1) that a place always has; any that is spread evenly will do, so a quick one."""
    place = f"{candidate.repo}\0{candidate.path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") / 2.0**64


def _name(chunk: Sequence[Candidate]) -> str:
    return f"{chunk[0].repo}/{chunk[0].path} to {chunk[-1].repo}/{chunk[-1].path}"


# -- what the reader is told -------------------------------------------------------------------------------------------


def _nothing(survey: Survey, summaries: Sequence[dict[str, Any]]) -> str:
    total = len(survey.selected) + sum(s["seen"][0] for s in summaries)
    reasons = Counter[str]()
    for summary in summaries:
        for counts in summary["dropped"].values():
            reasons.update({reason: files for reason, (files, _) in counts.items()})
    faults = [line for summary in summaries for line in summary["faults"]]
    if not total and faults:
        return f"no document could be read: {faults[0]}"
    languages = Counter[str]()
    for summary in summaries:
        languages.update(summary["unasked"])
        languages.update(summary["other"])
    if not total:
        return f"the sources hold no document in the wanted languages; found instead: {_listed(languages)}"
    what = "UTF-8 text that may be used" if survey.containers else "UTF-8 text"
    return f"none of {total:,} files is {what}: {_listed(reasons)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} x {reason}" for reason, n in counts.most_common(5)) or "nothing"


def _summary(
    survey: Survey, corpus: CorpusSettings, merged: Merge, summaries: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What a reader wants to know of the collected documents, as JSON-able values."""
    kept, (lost_files, lost_bytes) = merged.kept, merged.lost
    steps = funnel.combine(survey.funnel, summaries)
    duplicates = {"copy of another file": [lost_files, lost_bytes]} if lost_files else {}
    steps.append(funnel.step("exact duplicates", kept.files, kept.bytes, duplicates))
    languages = kept.languages()
    notes = list(survey.notes)
    unread = Counter[str]()
    for summary in summaries:
        unread.update({reason: files for reason, (files, _) in summary["dropped"].get("read", {}).items()})
    if unread:
        notes.append(f"left out when read: {', '.join(f'{n:,} x {reason}' for reason, n in unread.most_common())}")
    faults = [line for summary in summaries for line in summary["faults"]]
    notes += faults[:_FAULTS_TOLD]
    if len(faults) > _FAULTS_TOLD:
        notes.append(
            f"{len(faults) - _FAULTS_TOLD:,} more files could not be read in full: kringle why NAME tells of each"
        )
    if beyond := kept.beyond_permissive():
        notes.append(
            f"{beyond.total():,} documents are under licences beyond permissive ones "
            f"({', '.join(sorted(beyond)[:5])}): not for permissive release"
        )
    return {
        "fingerprint": survey.fingerprint,
        "files": kept.files,
        "bytes": kept.bytes,
        "sources": kept.sources(),
        "languages": languages,
        "licenses": kept.licenses(),
        "languages_without_data": [x for x in corpus.languages if x not in {share["name"] for share in languages}],
        "repositories": kept.repositories(),
        "stars_known": kept.stars_known,
        "permissive": not beyond,
        "funnel": steps,
        "notes": notes,
        "faults": faults,
    }
