"""The split stage: what no arm trains on, and none of it copied in training data.

`kringle.data.division` chooses whole repositories where it can. Then every held-out file goes that has an exact copy in
the training data, or a near-copy: half or more of its 5-grams in one training file (`kringle.data.comparison`). So does
one that is too short to tell. No training file is dropped for the sake of a held-out one. Copies that were renamed or
rewritten throughout are not found; how many of the remaining 5-grams occur anywhere in training is measured on one in
32 of them, chosen by their hashes, because nothing forbids many small borrowings.

Survivors and documents are read side by side. What is held of every document are nine bytes, its side and its row in
its shard; of a held-out one some 80 bytes more, and of one that is dropped its witness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kringle.data.comparison import FEWEST_GRAMS, Copy, Place, near_copies
from kringle.data.containment import HALF
from kringle.data.decisions import DecisionFiles
from kringle.data.division import FILE, Division, divide
from kringle.data.languages import TITLES
from kringle.data.subsequence import Chosen, chosen_of
from kringle.data.table import DECISION, SPLIT, SURVIVOR, TableWriter, iter_row_groups, read_table
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.progress import Reporter
from kringle.workspace import ShardStore

TRAIN, HELD_OUT = "train", "held-out"

# What becomes of a document, its side as it is held.
_TRAIN, _HELD_OUT, _EXACT_COPY, _NEAR_COPY, _TOO_SHORT = range(5)


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
    "held-out") and `decisions` into `out`, both in the order of `survivors`.

    Returns counts, how the split was made, and notes. Raises `UserError` when nothing can be held out.
    """
    division = divide(partial(iter_row_groups, survivors, FILE.names), share, seed)
    sides: list[NDArray[np.uint8]] = []
    training: list[Place] = []
    held: list[Place] = []
    compared: list[NDArray[np.int64]] = []  # numbers, among the survivors, of the documents of `held`
    copies: dict[int, Copy] = {}
    short: dict[int, int] = {}  # distinct 5-grams of those that have too few
    first = folded = 0
    for chosen in chosen_of(documents, survivors, SURVIVOR):
        own = division.held(chosen.own)
        side = np.where(own, np.uint8(_HELD_OUT), np.uint8(_TRAIN))
        twins, more = _exact_copies(chosen, own, division)
        folded += more
        for number, witness in twins.items():
            side[number] = _EXACT_COPY
            copies[first + number] = Copy(1.0, witness)
        if len(rows := chosen.rows[side == _TRAIN]):
            training.append(Place(chosen.part, rows))
        if len(rows := chosen.rows[side == _HELD_OUT]):
            held.append(Place(chosen.part, rows))
            compared.append(first + np.flatnonzero(side == _HELD_OUT))
        sides.append(side)
        first += len(side)
    side = np.concatenate(sides)
    seen = None
    if held:
        found = near_copies(held, training, out, shards, engine, progress)
        numbers = np.concatenate(compared)
        copies |= {int(numbers[number]): copy for number, copy in found.copies.items()}
        side[numbers[list(found.copies)]] = _NEAR_COPY
        short = {int(numbers[number]): grams for number, grams in found.short.items()}
        side[list(short)] = _TOO_SHORT
        seen = found.seen
    if not (side == _HELD_OUT).any():
        dropped = int((side != _TRAIN).sum())
        what = "there is too little"
        if dropped:
            what = f"every one of {dropped:,} held-out files has a copy in training data or is too short to tell"
        raise UserError(
            f"nothing can be held out: {what}",
            where="evaluation.held_out",
            hint="add sources or hold out a larger share",
        )
    counts = _write(survivors, side, copies, short, share, out)
    return {**_summary(counts, division), "exact_copies_folded": folded, "grams_seen_in_training": seen}


def _exact_copies(chosen: Chosen, held: NDArray[np.bool_], division: Division) -> tuple[dict[int, str], int]:
    """Of the documents `chosen` from a shard: the `held` ones (M,) of which another place with the same bytes is not
    held out, with the first such place; and how many of the others have a copy in a place that is held out, where it
    counts as the training document's copy."""
    found: dict[int, str] = {}
    folded = 0
    column = read_table(chosen.part, ["copies"])["copies"]
    several = np.flatnonzero(pc.list_value_length(column).to_numpy()[chosen.rows] > 0)
    languages = chosen.own["language"].take(several).to_pylist()
    every = column.take(chosen.rows[several]).to_pylist()
    for number, language, copies in zip(several.tolist(), languages, every, strict=True):
        places = [(copy["repo"], copy["path"]) for copy in copies]
        outside = [place for place in places if not division.holds_out(*place, language)]
        if held[number] and outside:
            found[number] = "the same as " + "/".join(min(outside))
        elif not held[number] and len(outside) < len(places):
            folded += 1
    return found, folded


# -- what is written ---------------------------------------------------------------------------------------------------


Counts = Mapping[tuple[str, int], tuple[int, int]]  # (language, side) -> files, bytes


def _write(
    survivors: Path,
    side: NDArray[np.uint8],
    copies: Mapping[int, Copy],
    short: Mapping[int, int],
    share: float,
    out: Path,
) -> Counts:
    """Both tables, from the sides (N,) of the survivors; returns what is on each side."""
    files: Counter[tuple[str, int]] = Counter()
    sizes: Counter[tuple[str, int]] = Counter()

    def groups() -> Iterator[tuple[pa.Table, int, NDArray[np.uint8]]]:
        first = 0
        for group in iter_row_groups(survivors, SURVIVOR.names):
            yield group, first, side[first : first + group.num_rows]
            first += group.num_rows

    def halves() -> Iterator[pa.Table]:
        for group, _, own in groups():
            counted = group.select(["language", "size"]).append_column("side", pa.array(own))
            counted = counted.group_by(["language", "side"]).aggregate([("size", "count"), ("size", "sum")])
            for row in counted.to_pylist():
                files[row["language"], row["side"]] += row["size_count"]
                sizes[row["language"], row["side"]] += row["size_sum"]
            kept = np.flatnonzero(own <= _HELD_OUT)
            named = pa.array([TRAIN, HELD_OUT]).take(pa.array(own[kept]))
            yield pa.Table.from_arrays([group["id"].take(kept), named], schema=SPLIT)

    with TableWriter(out / "split.parquet", SPLIT) as writer:
        writer.write_tables(halves())
    DecisionFiles(out).write(_decisions(*group, copies, short, share) for group in groups())
    return {key: (files[key], sizes[key]) for key in files}


def _decisions(
    group: pa.Table,
    first: int,
    side: NDArray[np.uint8],
    copies: Mapping[int, Copy],
    short: Mapping[int, int],
    share: float,
) -> pa.Table:
    """Rows of `DECISION` on the survivors of a group (M,), of which the first has the number `first`: one each, and for
    a held-out one another on what it was compared with, or on its length."""
    held = side != _TRAIN
    rows = np.repeat(np.arange(len(side)), np.where(held, 2, 1))
    second = np.zeros(len(rows), dtype=np.bool_)
    second[1:] = rows[1:] == rows[:-1]
    told = [copies[first + number] for number in np.flatnonzero(np.isin(side, (_EXACT_COPY, _NEAR_COPY))).tolist()]
    copied = second & np.isin(side[rows], (_EXACT_COPY, _NEAR_COPY))
    brief = second & (side[rows] == _TOO_SHORT)
    value = np.zeros(len(rows))
    value[copied] = [copy.contained for copy in told]
    value[brief] = [short[first + number] for number in rows[brief].tolist()]
    witness = np.where(held[rows], 1, 0)  # a place in the list below
    witness[copied] = 2 + np.arange(len(told))
    witnesses = pa.array([TRAIN, HELD_OUT, *(copy.witness for copy in told)])
    rule = np.where(second, np.where(brief, 2, 1), 0)  # the step and its threshold
    steps = pa.array(["split", "held-out-copy", "held-out-length"])
    rules = pa.array(
        [
            f"{share:.3g} of each language's bytes",
            f"< {HALF:g} contained in training",
            f">= {FEWEST_GRAMS} different 5-grams",
        ]
    )
    columns = [
        *(group[name].take(rows) for name in ("id", "repo", "path")),
        steps.take(pa.array(rule)),
        pa.array(value, mask=~(copied | brief)),
        rules.take(pa.array(rule)),
        pa.array(~(copied | brief)),
        witnesses.take(pa.array(witness, mask=second & ~copied)),
    ]
    return pa.Table.from_arrays(columns, schema=DECISION)


def _summary(counts: Counts, division: Division) -> dict[str, Any]:
    every = sorted({language for language, _ in counts})

    def counted(*sides: int, languages: list[str] = every) -> dict[str, int]:
        chosen = [counts.get((language, side), (0, 0)) for language in languages for side in sides]
        return {"files": sum(files for files, _ in chosen), "bytes": sum(size for _, size in chosen)}

    languages: list[dict[str, Any]] = [
        {
            "name": language,
            TRAIN: counted(_TRAIN, languages=[language]),
            HELD_OUT: counted(_HELD_OUT, languages=[language]),
        }
        for language in every
    ]
    notes = list(division.notes)
    for language in languages:
        if not language[HELD_OUT]["files"]:
            title = TITLES.get(language["name"], language["name"])
            notes.append(
                f"no {title} is left to score on: every held-out file of it has a copy in training data "
                "or is too short to tell"
            )
    inside = [TITLES.get(language, language) for language, places in sorted(division.places.items()) if places]
    reasons = {
        "held-out file with an exact copy in training data": counted(_EXACT_COPY),
        "held-out file with a near-copy in training data": counted(_NEAR_COPY),
        "held-out file too short to tell from a copy": counted(_TOO_SHORT),
    }
    funnel = {
        "name": "held out",
        **counted(_TRAIN, _HELD_OUT),
        "dropped": [{"reason": reason, **count} for reason, count in reasons.items() if count["files"]],
    }
    return {
        "split_by": "repository" + (f"; {' and '.join(inside)} by directory" if inside else ""),
        "repositories": len(division.repos),
        "train": counted(_TRAIN),
        "held_out": counted(_HELD_OUT),
        "languages": languages,
        "exact_copies_dropped": counted(_EXACT_COPY)["files"],
        "near_copies_dropped": counted(_NEAR_COPY)["files"],
        "too_short_dropped": counted(_TOO_SHORT)["files"],
        "funnel": [funnel],
        "notes": notes,
    }
