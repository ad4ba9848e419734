"""The annotate stage: what the four data filters look at, one row a document, so that a filter is a view and reads no
text: comment-to-code ratio, characters, stars, and a table of near-duplicates for each setting that an arm asks for.

The fourth signal, characters per token, comes from the token store's counts when an arm is viewed. SantaCoder's filters
(paper, section 5; bigcode-dataset/preprocessing) with their comparisons: comments strict on both sides, stars at
least or above, characters per token at least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.comments import measure_comments
from kringle.data.near_duplicates.method import Fidelity, Method
from kringle.data.near_duplicates.stage import CLUSTER, near_duplicates_of
from kringle.data.subsequence import chosen_of, mark_of
from kringle.data.table import SPLIT, TableWriter, iter_row_groups, read_table, write_rows
from kringle.engine import Engine
from kringle.garbage import no_collection
from kringle.progress import Reporter
from kringle.settings import FertilityFilter, FilterSettings, NearDedupSettings, StarsFilter
from kringle.workspace import ShardStore, Task, shard_summary, write_atomically

SIGNAL = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("comment_ratio", pa.float64()),
        pa.field("characters", pa.int64()),
        pa.field("stars", pa.int64()),  # null when unknown
    ]
)


class NotApplicable(Exception):
    """This corpus lacks what a filter looks at, and why."""


# -- the view ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """The signals of some documents, in their order; `stars` is NaN where unknown."""

    folder: Path
    ids: Sequence[str]
    comment_ratio: NDArray[np.float64]
    characters: NDArray[np.int64]
    stars: NDArray[np.float64]

    def per_token(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Characters a token (N,), of documents with so many tokens (N,)."""
        return self.characters / np.maximum(tokens, 1)

    def near_duplicates(self, settings: NearDedupSettings) -> NDArray[np.bool_]:
        """Which documents stay under a setting. Raises `NotApplicable` where it was not computed."""
        path = self.folder / near_file(settings)
        if not path.exists():
            raise NotApplicable(f"near-duplicates at ngram {settings.ngram}, {settings.threshold:g} were not computed")
        table = read_table(path, ["id", "kept"])
        kept: NDArray[np.bool_] = table["kept"].to_numpy()[_places(table["id"], self.ids)]
        return kept


class Signals:
    """What the annotate stage wrote into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        table = read_table(folder / "signals.parquet")
        self._ids = table["id"]
        self._ratios = table["comment_ratio"].to_numpy()
        self._characters = table["characters"].to_numpy()
        self._stars = table["stars"].cast(pa.float64()).to_numpy()  # null becomes NaN

    def rows(self, ids: Sequence[str]) -> Rows:
        """Those of some documents."""
        at = _places(self._ids, ids)
        return Rows(self.folder, ids, self._ratios[at], self._characters[at], self._stars[at])


def _places(known: pa.ChunkedArray, ids: Sequence[str]) -> NDArray[np.int64]:
    """Where each of some ids stands. Raises `KeyError` naming one that is not there."""
    places = pc.index_in(pa.array(ids, pa.string()), value_set=known)
    if places.null_count:
        raise KeyError(ids[pc.index(pc.is_null(places), True).as_py()])
    found: NDArray[np.int64] = places.to_numpy().astype(np.int64)
    return found


def near_file(settings: NearDedupSettings) -> str:
    """Name of the table of near-duplicates under a setting."""
    return f"near-duplicates-n{settings.ngram}-t{settings.threshold:g}.parquet"


def passes(
    settings: FilterSettings, rows: Rows, languages: Sequence[str], tokens: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which documents (N,) an arm sees, by their signals, languages and token counts. All filters must let it pass.

    Raises `NotApplicable` where this corpus lacks what a filter looks at.
    """
    kept = np.ones(len(rows.ids), dtype=np.bool_)
    if settings.stars is not None:
        known = ~np.isnan(rows.stars)
        if not known.any():
            raise NotApplicable("no document of this corpus has a star count; give them with --stars FILE")
        kept &= np.where(known, rows.stars, 0) >= least_stars(settings.stars, rows)  # unknown as none: as the original
        if settings.stars.quantile is not None:
            kept &= known
    if settings.comments is not None:
        kept &= (rows.comment_ratio > settings.comments.above) & (rows.comment_ratio < settings.comments.below)
    if settings.near_dedup is not None:
        kept &= rows.near_duplicates(settings.near_dedup)
    if settings.fertility is not None:
        ratio, spoken = rows.per_token(tokens), np.array(languages, dtype=object)
        for language, least in least_per_token(settings.fertility, ratio, spoken).items():
            kept &= (spoken != language) | (ratio >= least)
    return kept


def least_stars(chosen: StarsFilter, rows: Rows) -> float:
    """The fewest stars that a filter lets pass; a quantile is that of the documents whose stars are known."""
    if chosen.at_least is not None:
        return chosen.at_least
    if chosen.above is not None:
        return chosen.above + 1
    return float(np.quantile(rows.stars[~np.isnan(rows.stars)], chosen.quantile or 0.0))


def least_per_token(
    chosen: FertilityFilter, ratio: NDArray[np.float64], spoken: NDArray[np.object_]
) -> dict[str, float]:
    """The fewest characters a token that a filter lets pass, by language; those without a threshold are left out.
    `ratio` (N,) and `spoken` (N,) are the documents' own."""
    if chosen.percentile is not None:
        return {own: float(np.percentile(ratio[spoken == own], chosen.percentile)) for own in sorted(set(spoken))}
    named = {language: getattr(chosen, language, None) for language in sorted(set(spoken))}
    return {language: least for language, least in named.items() if least is not None}


def why_not(settings: FilterSettings, rows: Rows) -> str | None:
    """Why this corpus does not allow a filter, in words for the report; None where it does."""
    try:
        passes(settings, rows, ["python"] * len(rows.ids), np.ones(len(rows.ids), dtype=np.int64))
    except NotApplicable as reason:
        return str(reason)
    return None


# -- the stage ---------------------------------------------------------------------------------------------------------


def annotate(
    documents: Path,
    survivors: Path,
    split: Path,
    near_dedup: Sequence[NearDedupSettings],
    fidelity: Fidelity,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> dict[str, Any]:
    """Compute the signals of the documents named in `survivors` (a Parquet file with a column `id`).

    Writes `out/signals.parquet` in the documents' order and, for each setting of `near_dedup`, a table of the training
    documents that `split` names (a Parquet file, id and split: a held-out file must not take a training file's place)
    and the data of its charts (`.json`). Returns counts and quantiles, for which all ratios are held, eight bytes each.
    """
    ids = pa.schema([SIGNAL.field("id")])
    chosen = [(own.part, own.rows) for own in chosen_of(documents, survivors, ids) if len(own.rows)]
    tasks = [Task(part.name, mark_of(part, rows), (part, rows)) for part, rows in chosen]
    with progress.task("annotate", len(tasks), unit="shards") as counter:
        folders = shards.map(engine, annotate_shard, tasks, on_done=lambda _: counter.advance())
    with TableWriter(out / "signals.parquet", SIGNAL) as writer:
        writer.write_tables(
            group for folder in folders for group in iter_row_groups(folder / "signals.parquet", SIGNAL.names)
        )
    table = read_table(out / "signals.parquet", ["comment_ratio", "stars"])
    ratios = table["comment_ratio"].to_numpy()
    notes = []
    unknown = table["stars"].null_count
    if unknown:
        notes.append(f"stars are unknown for {unknown:,} of {len(ratios):,} documents")
    told = (shard_summary(folder) for folder in folders)
    summary: dict[str, Any] = {"files": len(ratios), "stars_unknown": unknown, "notes": notes}
    # Files whose comments the fast scanner was not sure of: a parser or pygments decided.
    summary["comments_by_parser"] = sum(shard["comments_by_parser"] for shard in told)
    if len(ratios):
        summary["comment_ratio"] = {
            "mean": round(float(ratios.mean()), 4),
            "median": round(float(np.median(ratios)), 4),
            "at_most_0.01": round(float((ratios <= 0.01).mean()), 4),
            "at_least_0.80": round(float((ratios >= 0.80).mean()), 4),
        }
    summary["near_duplicates"] = []
    for settings in near_dedup:
        method = Method.of(settings.ngram, settings.threshold, fidelity)
        found = near_duplicates_of(documents, _training_rows(documents, split), method, shards, engine, progress)
        with TableWriter(out / near_file(settings), CLUSTER) as writer:
            writer.write_tables(found.clusters())
        write_atomically((out / near_file(settings)).with_suffix(".json"), json.dumps(found.figures))
        summary["near_duplicates"].append({k: v for k, v in found.figures.items() if not isinstance(v, list)})
    return summary


def _training_rows(documents: Path, split: Path) -> Iterator[NDArray[np.int64]]:
    """Of each shard the rows that are trained on."""
    for chosen in chosen_of(documents, split, SPLIT):
        yield chosen.rows[pc.equal(chosen.own["split"], "train").to_numpy()]


def annotate_shard(payload: tuple[Path, NDArray[np.int64]], folder: Path) -> dict[str, Any]:
    """One shard, in a worker: the signals of its documents at these rows, into `folder/signals.parquet`."""
    part, wanted = payload
    rows = []
    exact = first = 0
    with no_collection():  # syntax trees hold no cycles
        for group in iter_row_groups(part, ["id", "language", "content", "stars"]):
            low, high = np.searchsorted(wanted, [first, first + group.num_rows])
            chosen = group.take(wanted[low:high] - first)
            for id, language, content, stars in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
                measured = measure_comments(content, language)
                exact += not measured.fast
                rows.append((id, measured.ratio, len(content), stars))
            first += group.num_rows
    return {"files": write_rows(folder / "signals.parquet", SIGNAL, rows), "comments_by_parser": exact}
