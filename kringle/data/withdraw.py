"""Opt-out after the fact: take documents out of a workspace's tables, rewriting only the files that hold them.

A document whose own place is opted out, but whose bytes also lie elsewhere, moves to the first of its other places
(`copies` "keep"); or every place goes with it ("remove", which remembers its id). Every Parquet file with the columns
`id` and `content` below `stages/` is held against the rules; those that hold nothing of what is removed are not
touched. Decisions are told anew: what was removed gets one, what took its place changes its own. Shards in the store
are deleted where they hold something, since a later run makes them again without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kringle.data import optout
from kringle.data.decisions import FOLDER, decision_files, iter_decisions
from kringle.data.merge import ONE_COPY, PLACE
from kringle.data.merge import STEP as EXACT
from kringle.data.optout import OptOuts
from kringle.data.table import DECISION, CorruptTable, TableWriter, iter_row_groups, read_table
from kringle.workspace import write_atomically

Copies = Literal["keep", "remove"]
_ID = re.compile(r"\b[0-9a-f]{40}\b")


class Spot(NamedTuple):
    """One place of one document."""

    id: str
    repo: str
    path: str


@dataclass
class Withdrawal:
    """What was found and done. Paths are relative to the workspace."""

    removed: dict[Spot, str] = field(default_factory=dict)  # place -> the rule that names it
    gone: set[str] = field(default_factory=set)  # ids of which no place is left
    elsewhere: dict[Spot, str] = field(default_factory=dict)  # places with the same bytes -> "kept" or "removed"
    rewritten: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)  # shards of the store


def document_files(root: Path) -> Iterator[Path]:
    """Every Parquet file of a workspace's stages and shard store that holds documents' texts."""
    for place in ("stages", "shards"):
        for path in sorted((root / place).rglob("*.parquet")):
            try:
                names = pq.read_schema(path).names
            except (pa.ArrowException, OSError) as error:
                if ".partial" in str(path):
                    continue  # a killed run was in the middle of it; the next one begins it again
                raise CorruptTable(str(path), str(error).splitlines()[0]) from None
            if {"id", "content", "repo", "path"} <= set(names):
                yield path


def find(root: Path, rules: OptOuts, copies: Copies) -> Withdrawal:
    """Everything in a workspace's documents that the rules name, without changing anything."""
    found = Withdrawal()
    left: dict[str, set[Spot]] = {}
    for path in document_files(root):
        for row in _places(path):
            spots = [Spot(row["id"], row["repo"], row["path"])]
            spots += [Spot(row["id"], c["repo"], c["path"]) for c in row.get("copies") or ()]
            named = {spot: rules.document(*spot) for spot in spots}
            found.removed.update({spot: rule for spot, rule in named.items() if rule is not None})
            left.setdefault(row["id"], set()).update(spot for spot, rule in named.items() if rule is None)
    ids = {spot.id for spot in found.removed}
    for id in ids:
        for spot in left[id]:
            found.elsewhere[spot] = "kept" if copies == "keep" else "removed"
    found.gone = ids if copies == "remove" else {id for id in ids if not left[id]}
    return found


def _places(path: Path) -> Iterator[dict[str, Any]]:
    names = set(pq.read_schema(path).names) & {"id", "repo", "path", "copies"}
    for group in iter_row_groups(path, sorted(names)):
        yield from group.to_pylist()


def apply(root: Path, found: Withdrawal) -> None:
    """Rewrite the files that hold what `found` names; each changes at once, and may be done again after a kill."""
    taken = found.removed.keys() | {spot for spot, what in found.elsewhere.items() if what == "removed"}
    ids = {spot.id for spot in taken}
    for path in list(document_files(root)):  # all before the first goes: a shard may have several
        if not path.exists() or not any(row["id"] in ids for row in _places(path)):
            continue
        relative = path.relative_to(root)
        if relative.parts[0] == "shards":
            folder = root / Path(*relative.parts[:3])
            if any(_touched(row, taken, found.gone) for row in _places(path)):
                shutil.rmtree(folder)
                found.deleted.append(str(folder.relative_to(root)))
        elif any(_touched(row, taken, found.gone) for row in _places(path)):
            _replace(path, lambda out, path=path: _rewrite(path, out, taken, found.gone))
            found.rewritten.append(str(relative))
    for stage in decided(root):
        if (changed := _redecide(stage, found)) is not None:
            found.rewritten.append(str(changed.relative_to(root)))
    for folder in sorted({Path(*Path(name).parts[:2]) for name in found.rewritten}):
        _update_manifest(root / folder)


def _touched(row: dict[str, Any], taken: set[Spot], gone: set[str]) -> bool:
    if row["id"] in gone:
        return True
    spots = [(row["repo"], row["path"]), *((c["repo"], c["path"]) for c in row.get("copies") or ())]
    return any(Spot(row["id"], *spot) in taken for spot in spots)


def _replace(path: Path, write: Any) -> None:
    """Write a file's new content beside it and rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _rewrite(path: Path, out: Path, taken: set[Spot], gone: set[str]) -> None:
    schema = pq.read_schema(path).remove_metadata()
    with TableWriter(out, schema) as writer:
        for group in iter_row_groups(path):
            rows = []
            for row in group.to_pylist():
                if _touched(row, taken, gone):
                    row = None if row["id"] in gone else _moved(row, taken)
                if row is not None:
                    rows.append(row)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _moved(row: dict[str, Any], taken: set[Spot]) -> dict[str, Any] | None:
    """A document without the places that were taken; at the first of the others where its own was."""
    copies = [c for c in row.get("copies") or () if Spot(row["id"], c["repo"], c["path"]) not in taken]
    if Spot(row["id"], row["repo"], row["path"]) not in taken:
        return {**row, "copies": copies}
    if not copies:
        return None
    first, *others = copies
    return {**row, **{name: first[name] for name in PLACE if name in row}, "copies": others}


def decided(root: Path) -> list[Path]:
    """The collect stages of a workspace that have decisions."""
    return sorted(folder.parent for folder in (root / "stages").glob(f"collect-*/{FOLDER}"))


def _redecide(stage: Path, found: Withdrawal) -> Path | None:
    """Tell the decisions of a collect stage anew; returns the file that is another now, if one is."""
    removed = dict(found.removed)
    for spot, what in found.elsewhere.items():
        if what == "removed":
            removed[spot] = f"the same bytes as what {_rule_of(spot.id, found)} names"
    here: dict[Spot, str] = {}
    known: set[Spot] = set()
    for table in iter_decisions(stage, ["id", "repo", "path", "step"]):
        for *place, step in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if (spot := Spot(*place)) in removed:
                here[spot] = removed[spot]
                if step == optout.STEP:
                    known.add(spot)
    if not here:
        return None
    ids = {spot.id for spot in here}
    rows = []
    left: dict[str, list[Spot]] = {}
    last = decision_files(stage)[-1]  # of what was decided over all shards: exact duplicates' decisions are there
    for row in read_table(last).to_pylist():
        spot = Spot(row["id"], row["repo"], row["path"])
        if row["step"] == EXACT and row["id"] in ids and spot not in removed:
            left.setdefault(row["id"], []).append(spot)  # told again below
        else:
            rows.append(row)
    for spots in left.values():
        first, *others = sorted(spots, key=lambda spot: (spot.repo, spot.path))
        more = None if not others else "has one more copy" if len(others) == 1 else f"has {len(others):,} more copies"
        count = float(len(spots))
        rows.append({**_decision(first, EXACT, ONE_COPY, True, more), "value": count})
        same = f"the same as {first.repo}/{first.path}"
        rows += [{**_decision(spot, EXACT, ONE_COPY, False, same), "value": count} for spot in others]
    for spot, rule in sorted(here.items()):
        if spot not in known:
            rows.append(_decision(spot, optout.STEP, optout.THRESHOLD, False, rule))
    changed = pa.Table.from_pylist(rows, schema=DECISION)

    def write(out: Path) -> None:
        with TableWriter(out, DECISION) as writer:
            writer.write_table(changed)

    _replace(last, write)
    return last


def _rule_of(id: str, found: Withdrawal) -> str:
    return next(rule for spot, rule in sorted(found.removed.items()) if spot.id == id)


def _decision(spot: Spot, step: str, threshold: str, kept: bool, witness: str | None) -> dict[str, Any]:
    return {
        "id": spot.id,
        "repo": spot.repo,
        "path": spot.path,
        "step": step,
        "value": None,
        "threshold": threshold,
        "kept": kept,
        "witness": witness,
    }


def _update_manifest(stage: Path) -> None:
    """Give a published stage's manifest the sizes that its files have now, without which it would count as damaged."""
    path = stage / "manifest.json"
    if not path.exists():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"] = {name: (stage / name).stat().st_size for name in manifest["files"]}
    write_atomically(path, json.dumps(manifest, indent=1))


def held_back(folders: Sequence[Path], removed: Sequence[Spot]) -> list[dict[str, str]]:
    """Files that were dropped because of something that has been removed: they stay out until the next clean.

    A witness names its document by id, or ends with its repository/path.
    """
    if not removed:
        return []
    ids, places = {spot.id for spot in removed}, {f"{spot.repo}/{spot.path}" for spot in removed}
    own = set(removed)
    found = {}
    for folder in folders:
        for table in iter_decisions(folder, ["id", "repo", "path", "step", "kept", "witness"]):
            table = table.filter(pc.and_(pc.invert(table["kept"]), pc.is_valid(table["witness"])))
            for row in table.to_pylist():
                if row["step"] in (optout.STEP, EXACT) or Spot(row["id"], row["repo"], row["path"]) in own:
                    continue
                if _names(row["witness"], ids, places):
                    found[row["repo"], row["path"], row["step"]] = {
                        "id": row["id"] or "",
                        "repo": row["repo"],
                        "path": row["path"],
                        "step": row["step"],
                        "witness": row["witness"],
                    }
    return [found[key] for key in sorted(found)]


def _names(witness: str, ids: set[str], places: set[str]) -> bool:
    """Whether a witness names one of these documents. A path may hold spaces, so every ending is tried."""
    if any(id in ids for id in _ID.findall(witness)):
        return True
    words = witness.split(" ")
    return any(" ".join(words[start:]) in places for start in range(len(words)))
