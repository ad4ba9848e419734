"""The split stage: what no arm trains on, and none of it copied in training data.

`kringle.data.division` chooses whole repositories where it can. Then every held-out file goes that has an exact copy in
the training data, or a near-copy: half or more of its 5-grams in one training file. No training file is dropped for the
sake of a held-out one. Copies that were renamed or rewritten throughout are not found; how many of the remaining
5-grams occur anywhere in training is measured, because nothing forbids many small borrowings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from kringle.data.containment import HALF, Best, Index, Seen, gram_hashes
from kringle.data.division import Division, File, divide
from kringle.data.languages import TITLES
from kringle.data.table import (
    DECISION,
    SURVIVOR,
    Decision,
    document_shards,
    iter_row_groups,
    read_table,
    shard_fingerprint,
    write_rows,
)
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.workspace import ShardStore, Task, fingerprint

SPLIT = pa.schema([pa.field("id", pa.string()), pa.field("split", pa.string())])
TRAIN, HELD_OUT = "train", "held-out"


def split(
    share: float,
    seed: int,
    documents: Path,
    survivors: Path,
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> dict[str, Any]:
    """Divide the documents in `survivors` into training and held-out; writes `split.parquet` (id, split: "train" or
    "held-out") and `decisions.parquet` into `out`, both in the order of `survivors`.

    Returns counts, how the split was made, and notes. Raises `UserError` when nothing can be held out.
    """
    table = read_table(survivors, SURVIVOR.names)
    files = [File(*row) for row in zip(*(table[name].to_pylist() for name in File._fields), strict=True)]
    division = divide(files, share, seed)
    held = {f.id: f for f in files if division.holds_out(f.repo, f.path, f.language)}
    training = {f.id for f in files} - held.keys()
    twins, folded = _exact_copies(documents, held, training, division)
    ids = [id for id in held if id not in twins]
    copies, seen = _near_copies(documents, ids, training, out, shards, engine, progress)
    copies |= {id: Copy(1.0, witness) for id, witness in twins.items()}
    if len(copies) == len(held):
        what = (
            f"every one of {len(held):,} held-out files has a copy in training data" if held else "there is too little"
        )
        raise UserError(
            f"nothing can be held out: {what}",
            where="evaluation.held_out",
            hint="add sources or hold out a larger share",
        )
    kept = [(f.id, HELD_OUT if f.id in held else TRAIN) for f in files if f.id not in copies]
    write_rows(out / "split.parquet", SPLIT, kept)
    write_rows(out / "decisions.parquet", DECISION, _decisions(files, held, copies, share))
    return {
        **_summary(files, held, copies, twins.keys(), division),
        "exact_copies_folded": folded,
        "grams_seen_in_training": seen,
    }


class Copy(NamedTuple):
    """Where a held-out file was found in training data, and the share of its 5-grams that is there."""

    contained: float
    witness: str


def _exact_copies(
    documents: Path, held: Mapping[str, File], training: Collection[str], division: Division
) -> tuple[dict[str, str], int]:
    """Held-out ids of which another place with the same bytes is not held out, with the first such place; and how many
    training documents have a copy in a place that is held out, where it counts as the training document's copy."""
    found: dict[str, str] = {}
    folded = 0
    for part in document_shards(documents):
        for group in iter_row_groups(part, ["id", "language", "copies"]):
            for id, language, copies in zip(*(column.to_pylist() for column in group.columns), strict=True):
                places = [(c["repo"], c["path"]) for c in copies]
                outside = [place for place in places if not division.holds_out(*place, language)]
                if id in held and outside:
                    found[id] = "the same as " + "/".join(min(outside))
                elif id in training and len(outside) < len(places):
                    folded += 1
    return found, folded


def _near_copies(
    documents: Path,
    ids: Sequence[str],
    training: Collection[str],
    out: Path,
    shards: ShardStore,
    engine: Engine,
    progress: Reporter,
) -> tuple[dict[str, Copy], float]:
    """For each of the held-out `ids` with a near-copy in training data: the file that contains most of it. And the
    share of the 5-grams of the others that occur anywhere in training data."""
    grams: dict[str, Any] = {}
    wanted = set(ids)
    parts: list[tuple[Path, list[str]]] = []
    for part in document_shards(documents):
        names = read_table(part, ["id"])["id"].to_pylist()
        if not wanted.isdisjoint(names):
            for group in iter_row_groups(part, ["id", "content"]):
                contents = zip(group["id"].to_pylist(), group["content"], strict=True)
                grams |= {id: gram_hashes(content.as_py()) for id, content in contents if id in wanted}
        if trained := [id for id in names if id in training]:
            parts.append((part, trained))
    order = sorted(grams)
    index_file = out / "held-out-index.npz"
    digest = Index.build([grams[id] for id in order]).save(index_file)
    every = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *(grams[id] for id in order)]))
    grams_file = out / "held-out-grams.npy"
    np.save(grams_file, every)
    tasks = [
        Task(
            part.name,
            fingerprint(shard_fingerprint(part), trained, digest),
            (part, set(trained), index_file, grams_file),
        )
        for part, trained in parts
    ]
    with progress.task("compare with training", len(tasks), unit="shards") as counter:
        folders = shards.map(engine, probe_shard, tasks, on_done=lambda _: counter.advance())
    index_file.unlink()
    grams_file.unlink()

    best: dict[str, tuple[float, str, str]] = {}  # (minus the share, repo, path): the smallest is the best
    for folder in folders:
        for row in read_table(folder / "best.parquet").to_pylist():
            id = order[row["number"]]
            candidate = (-row["found"] / len(grams[id]), row["repo"], row["path"])
            best[id] = min(best.get(id, candidate), candidate)
    copies = {
        id: Copy(-share, f"{-share:.0%} of its 5-grams are in {repo}/{path}")
        for id, (share, repo, path) in best.items()
    }
    seen = np.zeros(len(every), dtype=np.bool_)
    for folder in folders:
        seen |= np.load(folder / "seen.npy")
    kept = [grams[id] for id in order if id not in copies]
    found = sum(int(seen[np.searchsorted(every, own)].sum()) for own in kept)
    return copies, found / max(1, sum(len(own) for own in kept))


BEST = pa.schema(
    [
        pa.field("number", pa.int64()),  # of the held-out text
        pa.field("found", pa.int64()),  # how many of its grams
        pa.field("repo", pa.string()),  # of the training file that has them
        pa.field("path", pa.string()),
    ]
)


def probe_shard(payload: tuple[Path, Collection[str], Path, Path], folder: Path) -> dict[str, Any]:
    """One shard, in a worker: which training files here contain half or more of a held-out text, and which of all
    held-out 5-grams occur here at all."""
    part, training, index_file, grams_file = payload
    best = Best(Index.load(index_file))
    seen = Seen(np.load(grams_file))
    places: list[tuple[str, str]] = []
    for group in iter_row_groups(part, ["id", "repo", "path", "content"]):
        for id, repo, path, content in zip(*group.columns, strict=True):
            if id.as_py() in training:
                own = gram_hashes(content.as_py())
                best.add(len(places), own)
                seen.add(own)
                places.append((repo.as_py(), path.as_py()))
    rows = [
        (number, int(found), *places[probe])
        for number, (found, probe) in enumerate(zip(best.found, best.probe, strict=True))
        if found
    ]
    np.save(folder / "seen.npy", seen.seen)
    return {"near_copies": write_rows(folder / "best.parquet", BEST, rows), "files": len(places)}


def _decisions(
    files: Sequence[File], held: Mapping[str, File], copies: Mapping[str, Copy], share: float
) -> Iterator[Decision]:
    rule = f"{share:.3g} of each language's bytes"
    for f in files:
        yield Decision(f.id, f.repo, f.path, "split", None, rule, True, HELD_OUT if f.id in held else TRAIN)
        if f.id in held:
            copy = copies.get(f.id)
            value, witness = copy or (None, None)
            yield Decision(
                f.id, f.repo, f.path, "held-out-copy", value, f"< {HALF:g} contained in training", copy is None, witness
            )


def _summary(
    files: Sequence[File],
    held: Mapping[str, File],
    copies: Mapping[str, Copy],
    exact: Collection[str],
    division: Division,
) -> dict[str, Any]:
    def counted(chosen: Iterable[File]) -> dict[str, int]:
        sizes = [f.size for f in chosen]
        return {"files": len(sizes), "bytes": sum(sizes)}

    left = [f for f in held.values() if f.id not in copies]
    languages: list[dict[str, Any]] = [
        {
            "name": language,
            TRAIN: counted(f for f in files if f.language == language and f.id not in held),
            HELD_OUT: counted(f for f in left if f.language == language),
        }
        for language in sorted({f.language for f in files})
    ]
    notes = list(division.notes)
    for language in languages:
        if not language[HELD_OUT]["files"]:
            title = TITLES.get(language["name"], language["name"])
            notes.append(f"no {title} is left to score on: every held-out file of it has a copy in training data")
    inside = [TITLES.get(language, language) for language, places in sorted(division.places.items()) if places]
    groups = {
        "held-out file with an exact copy in training data": [f for f in held.values() if f.id in exact],
        "held-out file with a near-copy in training data": [f for f in held.values() if f.id in copies.keys() - exact],
    }
    funnel = {
        "name": "held out",
        **counted(f for f in files if f.id not in copies),
        "dropped": [{"reason": reason, **counted(group)} for reason, group in groups.items() if group],
    }
    return {
        "split_by": "repository" + (f"; {' and '.join(inside)} by directory" if inside else ""),
        "repositories": len(division.repos),
        "train": counted(f for f in files if f.id not in held),
        "held_out": counted(left),
        "languages": languages,
        "exact_copies_dropped": len(exact),
        "near_copies_dropped": len(copies) - len(exact),
        "funnel": [funnel],
        "notes": notes,
    }
