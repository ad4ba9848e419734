"""Opting out after the fact: what a workspace holds of it, what is rewritten, and which models have seen it.

What is to be taken out is written down in the workspace before anything is rewritten, and deleted after: the next call
finishes what a kill has left undone, and until then no run and no release is made there. The rules are remembered
(`opt-outs.txt`), so every later run, `--from collect` too, leaves the same documents out. Token stores,
attribution indexes, tokenizers and models are listed, not changed: the next run makes new ones.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from kringle.data.decisions import FOLDER, iter_decisions
from kringle.data.optout import STEP, OptOuts, parse_rule, read_rules
from kringle.data.table import CorruptTable, iter_row_groups, read_table
from kringle.data.withdraw import Copies, Spot, Withdrawal, apply, decided, document_files, find, held_back
from kringle.errors import UserError
from kringle.study.last_run import LAST_RUN, recall
from kringle.workspace import (
    Workspace,
    opt_outs_file,
    remove_half_written,
    unfinished_opt_out_file,
    write_atomically,
)

_SHOWN = 20  # lines of a list on the screen; --json has all


def opt_out(work: Path, keys: Sequence[str], copies: Copies) -> dict[str, Any]:
    """Take what `keys` name out of a workspace, and list what holds it; without keys, tell what is opted out so far.

    Finishes first what an interrupted call has left undone. A key is a rule of `kringle.data.optout`. Raises
    `UserError`.
    """
    workspace = Workspace.open(work, create=False)
    workspace.lock()
    root = workspace.root
    asked = [str(parse_rule(key)) for key in keys]
    done = _finish(root)
    if asked:
        found = find(root, OptOuts(asked), copies)
        if copies == "remove":  # the copies have places that no rule names, so the id is what keeps them out
            asked += [f"id:{id}" for id in sorted({spot.id for spot in found.removed})]
        write_atomically(unfinished_opt_out_file(root), json.dumps({"rules": asked, **found.to_json()}))
        done |= _finish(root)
    everything = Withdrawal(removed=done.removed | _removed_before(root))
    ids = done.gone if asked else _no_longer_there(root, everything)
    folders, unknown = _decision_folders(workspace) if everything.removed else ([], None)
    return {
        "asked": asked,
        "rules": list(remembered_rules(root)),
        "removed": [_spot(spot, rule=rule) for spot, rule in sorted(done.removed.items())],
        "copies": [_spot(spot, now=what) for spot, what in sorted(done.elsewhere.items())],
        "rewritten": [*done.documents, *done.decisions],
        "deleted_shards": done.shards,
        **_listings(root, ids),
        "held_back": held_back(folders, sorted(everything.removed)),
        "held_back_unknown": unknown,
    }


def _finish(root: Path) -> Withdrawal:
    """Do what is written down to be done, if anything is; returns it. The same after a kill in the middle of this."""
    path = unfinished_opt_out_file(root)
    remove_half_written(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rules, found = list(map(str, raw["rules"])), Withdrawal.from_json(raw)
    except FileNotFoundError:
        return Withdrawal()
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "delete it and the folders stages and shards, opt out again, and run again"
        raise UserError(f"is damaged: {type(error).__name__} {error}", where=str(path), hint=hint) from None
    _remember(root, rules)
    apply(root, found)
    path.unlink()
    return found


def require_finished(root: Path) -> None:
    """Raises `UserError` where an opt-out was interrupted: what it names may be there still."""
    if unfinished_opt_out_file(root).exists():
        hint = f"finish it: {shlex.join(['kringle', 'optout', '--work', str(root)])}"
        raise UserError("an opt-out was interrupted here", where=str(root), hint=hint)


def models_with_opted_out(root: Path) -> list[str]:
    """Stages of the models, as `stages/train@ARM-sSEED-..`, that were trained on what is opted out by now.

    Raises `UserError` where an opt-out was interrupted.
    """
    require_finished(root)
    gone = _no_longer_there(root, Withdrawal(removed=_removed_before(root)))
    models: list[str] = _listings(root, gone)["models"] if gone else []
    return models


def remembered_rules(root: Path) -> tuple[str, ...]:
    """The opt-outs that a workspace remembers; none where there is no workspace yet."""
    path = opt_outs_file(root)
    try:
        remembered = path.exists()
    except OSError:  # a folder that may not be entered: whoever opens the workspace says so
        return ()
    return read_rules(path, "opt-outs of the workspace") if remembered else ()


def _remember(root: Path, rules: Sequence[str]) -> None:
    head = "# Left out of every run in this workspace; one rule a line, written by kringle optout.\n"
    remove_half_written(opt_outs_file(root))
    every = dict.fromkeys([*remembered_rules(root), *rules])
    write_atomically(opt_outs_file(root), head + "".join(f"{rule}\n" for rule in every))


def _removed_before(root: Path) -> dict[Spot, str]:
    """What earlier calls have removed, by the decisions that they left."""
    found = {}
    for stage in decided(root):
        for table in iter_decisions(stage, ["id", "repo", "path", "step", "witness"]):
            for row in table.filter(pc.equal(table["step"], STEP)).to_pylist():
                if row["id"]:
                    found[Spot(row["id"], row["repo"], row["path"])] = row["witness"] or ""
    return found


def _no_longer_there(root: Path, removed: Withdrawal) -> set[str]:
    """Ids of removed documents of which no other place is left in any stage's documents."""
    ids = {spot.id for spot in removed.removed}
    for path in document_files(root) if ids else ():
        if path.relative_to(root).parts[0] == "stages":
            ids -= {id for group in iter_row_groups(path, ["id"]) for id in group["id"].to_pylist()}
    return ids


def _spot(spot: Spot, **more: str) -> dict[str, str]:
    return {"id": spot.id, "repo": spot.repo, "path": spot.path, **more}


def _decision_folders(workspace: Workspace) -> tuple[list[Path], str | None]:
    """The stages of the last run that have decisions, and why they cannot be told, where that is so."""
    if not (workspace.root / LAST_RUN).exists():
        return [], None  # no run was made yet: there are no decisions to look through
    try:
        _, plan = recall(workspace)
    except UserError as error:  # what was asked for is done, whatever has become of the last run's recipe
        return [], str(error)
    stages = (plan.collect, plan.clean, plan.split)
    return [stage.folder for stage in stages if (stage.folder / FOLDER).exists()], None


# -- what holds it -----------------------------------------------------------------------------------------------------


def _listings(root: Path, ids: set[str]) -> dict[str, Any]:
    """Token stores, attribution indexes, tokenizers, models, checkpoints and records that were made with the documents
    `ids`."""
    manifests = dict(_manifests(root))
    stores: dict[str, int] = {}
    for path in sorted(root.glob("s*/*/**/ids.bin")):
        with path.open(encoding="utf-8") as lines:
            count = sum(line.rstrip("\n") in ids for line in lines)
        if count:
            stores[str(path.parent.relative_to(root))] = count
    splits = {name: _trained_on(root / "stages" / name, ids) for name in manifests if name.startswith("split-")}
    tokenizers, models, checkpoints = [], [], []
    for name, manifest in sorted(manifests.items()):
        upstream = _upstream(manifest, manifests)
        seen = any(splits[s] for s in upstream if s in splits)
        if name.startswith("tokenizer-") and seen:
            tokenizers.append(f"stages/{name}")
        if name.startswith("train@") and seen:
            models.append(f"stages/{name}")
    if stores:
        partials = sorted((root / "stages").glob("train@*.partial/checkpoints"))
        checkpoints += [str(partial.relative_to(root)) for partial in partials]
    return {
        "token_stores": [{"store": store, "documents": count} for store, count in stores.items()],
        "attribution_indexes": _indexes(root, ids),
        "tokenizers": tokenizers,
        "models": models,
        "checkpoints": checkpoints,
        "records": _records(root, ids),
    }


def _indexes(root: Path, ids: set[str]) -> list[dict[str, Any]]:
    """Attribution indexes that lead to one of the documents, unfinished ones too."""
    found = []
    for path in sorted((root / "stages").glob("attribution-*/index/documents.parquet")) if ids else ():
        try:
            count = sum(id in ids for id in read_table(path, ["id"])["id"].to_pylist())
        except CorruptTable:
            if ".partial" not in str(path):
                raise
            continue  # a killed run was in the middle of it; the next one begins it again
        if count:
            found.append({"index": str(path.parent.relative_to(root)), "documents": count})
    return found


def _manifests(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((root / "stages").glob("*/manifest.json")):
        yield path.parent.name, json.loads(path.read_text(encoding="utf-8"))


def _upstream(manifest: dict[str, Any], manifests: dict[str, dict[str, Any]]) -> set[str]:
    """Names of all published stages that a stage was made from, directly or through others."""
    by_fingerprint = {m["fingerprint"]: name for name, m in manifests.items()}
    found: set[str] = set()
    pending = list(manifest["inputs"].values())
    while pending:
        name = by_fingerprint.get(pending.pop())
        if name is not None and name not in found:
            found.add(name)
            pending += manifests[name]["inputs"].values()
    return found


def _trained_on(split: Path, ids: set[str]) -> bool:
    path = split / "split.parquet"
    if not ids or not path.exists():
        return False
    table = read_table(path, ["id", "split"])
    rows = zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True)
    return any(id in ids and part == "train" for id, part in rows)


def _records(root: Path, ids: set[str]) -> list[str]:
    """Evaluation files that name one of the documents, and so may quote it, and copies of it that models wrote."""
    if not ids:
        return []
    found = []
    stages = root / "stages"
    for path in sorted([*stages.glob("evaluate@*/**/*.json*"), *stages.glob("memorisation@*/copies.jsonl")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.name != "manifest.json" and any(id in text for id in ids):
            found.append(str(path.relative_to(root)))
    return found


def told(result: dict[str, Any]) -> list[str]:
    """The outcome as lines for a reader."""
    lines = [f"opted out: {', '.join(result['rules']) or 'nothing'}"]
    for key, title in (
        ("removed", "removed"),
        ("copies", "the same bytes elsewhere"),
        ("rewritten", "rewritten; every other file is as it was"),
        ("deleted_shards", "deleted from the store, to be made again without it"),
        ("token_stores", "token stores that hold it (the next run makes new ones)"),
        ("attribution_indexes", "attribution indexes that lead to it (the next run makes new ones; restart servers)"),
        ("tokenizers", "tokenizers trained with it"),
        ("models", "models trained with it (an arm's own filter may have left it out)"),
        ("checkpoints", "checkpoints of unfinished trainings"),
        ("records", "evaluation records that may quote it"),
        ("held_back", "dropped because of what is now removed; they stay out until the next clean"),
    ):
        entries = [_line(entry) for entry in result[key]]
        if entries:
            lines.append(f"{title}: {len(entries):,}")
            lines += [f"  {entry}" for entry in entries[:_SHOWN]]
            if len(entries) > _SHOWN:
                lines.append(f"  and {len(entries) - _SHOWN:,} more; --json has all")
    if result["held_back_unknown"] is not None:
        lines.append(f"what was dropped because of it cannot be told: {result['held_back_unknown']}")
    if result["asked"] and not result["removed"]:
        lines.append("nothing in this workspace is named by what was asked now; later runs will leave it out")
    return lines


def _line(entry: str | dict[str, Any]) -> str:
    if isinstance(entry, str):
        return entry
    if "documents" in entry:
        return f"{entry.get('store') or entry['index']} ({entry['documents']:,} documents)"
    place = f"{entry['repo']}/{entry['path']}  {entry['id'][:12]}"
    more = entry.get("rule") or entry.get("now") or f"{entry['step']}: {entry['witness']}"
    return f"{place}  {more}"
