"""Opt-out after the fact: take documents out of a workspace's tables, rewriting only the files that hold them.

A document whose own place is opted out, but whose bytes also lie elsewhere, moves to the first of its other places
(`copies` "keep"); or every place goes with it ("remove", which remembers its id). Every Parquet file with the columns
`id` and `content` below `stages/` is held against the rules; those that hold nothing of what is removed are not
touched. Decisions are told anew: what was removed gets one, what took its place changes its own. Shards in the store
are deleted where they hold something, since a later run makes them again without it.

What is to be done is found first, files and all, and kept by the caller; doing it may be ended anywhere and done again.
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
from kringle.workspace import remove_half_written, write_atomically

Copies = Literal["keep", "remove"]
_ID = re.compile(r"\b[0-9a-f]{40}\b")
_FILES = ("documents", "decisions", "shards")


class Spot(NamedTuple):
    """One place of one document."""

    id: str
    repo: str
    path: str


@dataclass
class Withdrawal:
    """What is to be taken out, and the files that hold it. Paths are relative to the workspace."""

    removed: dict[Spot, str] = field(default_factory=dict)  # place -> the rule that names it
    gone: set[str] = field(default_factory=set)  # ids of which no place is left
    elsewhere: dict[Spot, str] = field(default_factory=dict)  # places with the same bytes -> "kept" or "removed"
    documents: list[str] = field(default_factory=list)  # files of stages, to be rewritten
    decisions: list[str] = field(default_factory=list)  # the same of decisions
    shards: list[str] = field(default_factory=list)  # folders of the store, to be deleted

    def taken(self) -> set[Spot]:
        """Every place that goes."""
        return {*self.removed, *(spot for spot, what in self.elsewhere.items() if what == "removed")}

    def __or__(self, later: Withdrawal) -> Withdrawal:
        """Both, of which `later` was found when this one was done."""
        return Withdrawal(
            self.removed | later.removed,
            self.gone | later.gone,
            self.elsewhere | later.elsewhere,
            *(list(dict.fromkeys(getattr(self, name) + getattr(later, name))) for name in _FILES),
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "removed": [[*spot, rule] for spot, rule in self.removed.items()],
            "gone": sorted(self.gone),
            "elsewhere": [[*spot, what] for spot, what in self.elsewhere.items()],
            **{name: getattr(self, name) for name in _FILES},
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Withdrawal:
        """What `to_json` wrote. KeyError, TypeError or ValueError where it is something else."""
        removed, elsewhere = (
            {Spot(id, repo, path): what for id, repo, path, what in raw[name]} for name in ("removed", "elsewhere")
        )
        return cls(removed, set(raw["gone"]), elsewhere, *(list(raw[name]) for name in _FILES))


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
    if ids:
        _find_files(root, found)
    return found


def _find_files(root: Path, found: Withdrawal) -> None:
    """Add the files to what was found in them."""
    taken = found.taken()
    ids = {spot.id for spot in taken}
    for path in document_files(root):
        relative = path.relative_to(root)
        if not _holds(path, ids, taken, found.gone):
            continue
        if relative.parts[0] == "stages":
            found.documents.append(str(relative))
        elif (shard := str(Path(*relative.parts[:3]))) not in found.shards:  # which may have several
            found.shards.append(shard)
    for stage in decided(root):
        if _untold(stage, found):
            found.decisions.append(str(decision_files(stage)[-1].relative_to(root)))


def _places(path: Path) -> Iterator[dict[str, Any]]:
    names = set(pq.read_schema(path).names) & {"id", "repo", "path", "copies"}
    for group in iter_row_groups(path, sorted(names)):
        yield from group.to_pylist()


def apply(root: Path, found: Withdrawal) -> None:
    """Do what was found. Each file changes at once; after a kill at any step all of it is to be done again, and ends as
    if there had been none: what is done already is left alone."""
    taken = found.taken()
    ids = {spot.id for spot in taken}
    for path in _there(root, found.documents):
        if _holds(path, ids, taken, found.gone):
            _replace(path, lambda out, path=path: _rewrite(path, out, taken, found.gone))
    for shard in _there(root, found.shards):
        shutil.rmtree(shard)
    for path in _there(root, found.decisions):
        _redecide(path, found)
    changed: dict[Path, list[Path]] = {}
    for path in _there(root, [*found.documents, *found.decisions]):
        changed.setdefault(root / Path(*path.relative_to(root).parts[:2]), []).append(path)
    for stage, files in changed.items():
        _update_manifest(stage, files)


def _there(root: Path, names: Sequence[str]) -> list[Path]:
    """Those that exist: a stage may have been deleted since they were found."""
    return [root / name for name in names if (root / name).exists()]


def _holds(path: Path, ids: set[str], taken: set[Spot], gone: set[str]) -> bool:
    """Whether a file has a document that goes or changes; `ids` are those of `taken`."""
    return any(row["id"] in ids and _touched(row, taken, gone) for row in _places(path))


def _touched(row: dict[str, Any], taken: set[Spot], gone: set[str]) -> bool:
    if row["id"] in gone:
        return True
    spots = [(row["repo"], row["path"]), *((c["repo"], c["path"]) for c in row.get("copies") or ())]
    return any(Spot(row["id"], *spot) in taken for spot in spots)


def _replace(path: Path, write: Any) -> None:
    """Write a file's new content beside it and rename it into place."""
    remove_half_written(path)
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
    """The collect stages of a workspace that have decisions; those in the making, whose decisions a rerun writes anew,
    have none yet."""
    found = (folder.parent for folder in (root / "stages").glob(f"collect-*/{FOLDER}"))
    return sorted(stage for stage in found if stage.suffix != ".partial")


def _untold(stage: Path, found: Withdrawal) -> dict[Spot, str]:
    """Places that go, of which a collect stage's decisions do not tell so yet, with the evidence."""
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
    return {spot: rule for spot, rule in here.items() if spot not in known}


def _redecide(last: Path, found: Withdrawal) -> None:
    """Tell the decisions of a collect stage anew. `last` is the file of what was decided over all shards: exact
    duplicates' decisions are there."""
    here, taken = _untold(last.parent.parent, found), found.taken()
    if not here:
        return
    ids = {spot.id for spot in here}
    rows = []
    left: dict[str, list[Spot]] = {}
    for row in read_table(last).to_pylist():
        spot = Spot(row["id"], row["repo"], row["path"])
        if row["step"] == EXACT and row["id"] in ids and spot not in taken:
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
    rows += [_decision(spot, optout.STEP, optout.THRESHOLD, False, rule) for spot, rule in sorted(here.items())]
    changed = pa.Table.from_pylist(rows, schema=DECISION)

    def write(out: Path) -> None:
        with TableWriter(out, DECISION) as writer:
            writer.write_table(changed)

    _replace(last, write)


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


def _update_manifest(stage: Path, files: Sequence[Path]) -> None:
    """Give a published stage's manifest the sizes that rewritten files have now, without which it would count as
    damaged."""
    path = stage / "manifest.json"
    remove_half_written(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not published, or damaged, which counts as the same
        return
    manifest["files"] |= {str(file.relative_to(stage)): file.stat().st_size for file in files}
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
