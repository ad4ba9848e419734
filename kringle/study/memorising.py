"""The memorisation stage: what of a run's completions occurs in its training data, beside the same of held-out text.

A completion counts as copied where a stretch of 50 characters or more of it stands in a training document, exactly or
but for white space (`kringle.attribution`). Looked through: the continuations of held-out files at several temperatures
(`kringle.evaluation.continuations`), the infillings, and the completions of every suite. Each has a control in text
that no model wrote: what the held-out file itself goes on with, the line end that was hidden, and for suites pieces of
held-out files, as long as the completions. Files written:

    memorisation.jsonl   one line a text: what it is, its temperature, who wrote it, its cluster, its characters, and
                         how many of them are copied exactly, and how many but for white space
    copies.jsonl         the longest copies that the model wrote, with their sources
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kringle.attribution.index import AttributionIndex, Copy
from kringle.attribution.opened import described, open_index
from kringle.data.table import iter_documents
from kringle.engine import Engine, tick
from kringle.evaluation.kept import MEASURE_SEED, read_lines, write_lines
from kringle.randomness import stream
from kringle.settings import EvaluationSettings
from kringle.study.arm import split_of
from kringle.study.licences import summary
from kringle.workspace import Stage

CONTINUATION, INFILLING = "continuation", "infilling"
_KEPT = 20  # copies with their sources, the longest


@dataclass(frozen=True)
class MemorisationJob:
    """What a worker needs for one run; folders are those of published stages."""

    stage: Stage
    evaluate: Stage
    attribution: Stage
    documents: Path
    split: Path
    tokenizer: Path
    store: Path
    evaluation: EvaluationSettings


class Text(NamedTuple):
    """A text to look through. `unit` is what belongs together in resampling: a repository or a problem."""

    what: str
    temperature: float
    model: bool
    unit: str
    text: str


def memorise(job: MemorisationJob) -> None:
    """Bring one run's stage up to date, in a worker process."""
    job.stage.run(Engine(1), lambda out, shards: measure(job, out))
    tick(1)


def measure(job: MemorisationJob, out: Path) -> dict[str, Any]:
    """Look all texts of a run up, and write what was found; a summary comes back."""
    for stage, why in ((job.evaluate, "not_run"), (job.attribution, "not_built")):
        if (reason := summary(stage).get(why)) is not None:
            return {"not_run": reason}
    index = open_index(job.attribution.folder / "index", job.store, job.tokenizer)
    rows, copies = [], []
    known: dict[str, list[Copy]] = {}  # many completions of one problem are the same
    for text in texts(job):
        if text.text not in known:
            known[text.text] = index.find(text.text)
        found = known[text.text]
        rows.append(_row(text, found))
        if text.model:
            copies += [(copy.start - copy.end, len(rows), text, copy) for copy in found]
    write_lines(out / "memorisation.jsonl", rows)
    longest = sorted(copies, key=lambda entry: entry[:2])[:_KEPT]
    write_lines(out / "copies.jsonl", [_copy(index, text, copy) for _, _, text, copy in longest])
    return {"texts": len(rows), "copies": len(copies)}


def _row(text: Text, copies: Sequence[Copy]) -> dict[str, Any]:
    exact = {i for copy in copies if copy.kind == "exact" for i in range(copy.start, copy.end)}
    either = exact | {i for copy in copies for i in range(copy.start, copy.end)}
    return {
        "what": text.what,
        "temperature": text.temperature,
        "by": "model" if text.model else "held-out",
        "unit": text.unit,
        "characters": len(text.text),
        "exact": len(exact),
        "white_space": len(either) - len(exact),
    }


def _copy(index: AttributionIndex, text: Text, copy: Copy) -> dict[str, Any]:
    return {
        "what": text.what,
        "temperature": text.temperature,
        "text": text.text,
        **described(index, copy),
    }


def texts(job: MemorisationJob) -> Iterator[Text]:
    """Everything that is looked through, the controls included."""
    folder, settings = job.evaluate.folder, job.evaluation
    for row in read_lines(folder / "continuations.jsonl"):
        yield Text(CONTINUATION, row["temperature"], True, row["repo"], row["completion"])
        yield Text(CONTINUATION, row["temperature"], False, row["repo"], row["expected"])
    for row in read_lines(folder / "infilling.jsonl"):
        yield Text(INFILLING, 0.0, True, row["repo"], row["completion"])
        yield Text(INFILLING, 0.0, False, row["repo"], row["expected"])
    pieces = _Pieces(job)
    for suite in settings.suites:
        for row in read_lines(folder / f"samples-{suite}.jsonl"):
            yield Text(suite, settings.temperature, True, row["task_id"], row["completion"])
            if row["sample"] == 0:
                repo, piece = pieces.draw(f"{suite}/{row['task_id']}", len(row["completion"]))
                yield Text(suite, settings.temperature, False, repo, piece)


class _Pieces:
    """Held-out files, to draw pieces of a given length from."""

    def __init__(self, job: MemorisationJob) -> None:
        held_out = {id for id, part in split_of(job.split).items() if part == "held-out"}
        rows = iter_documents(job.documents, ["id", "repo", "content"])
        self._files = sorted((d["id"], d["repo"], d["content"]) for d in rows if d["id"] in held_out)

    def draw(self, key: str, length: int) -> tuple[str, str]:
        """(repository, piece from the beginning of a line): a function of key and length."""
        draw = stream(MEASURE_SEED, "held-out piece", key)
        _, repo, text = self._files[int(draw.integers(len(self._files)))]
        starts = [0, *(i + 1 for i, character in enumerate(text) if character == "\n" and i + length < len(text))]
        start = starts[int(draw.integers(len(starts)))]
        return repo, text[start : start + length]
