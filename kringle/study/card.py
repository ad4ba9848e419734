"""The data card: what a corpus is made of, what was left out and why, and how it was made; from manifests alone.

A card is data (`card.json`) that is told twice, as Markdown and as one offline HTML page. Two cards can be compared
(`kringle.study.card_diff`). Nothing is measured here: what a stage did not say is told as not done.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kringle import __version__
from kringle.errors import UserError
from kringle.machine import machine, versions
from kringle.study.last_run import recall
from kringle.study.plan import Plan
from kringle.workspace import Stage, Workspace, write_atomically

FORMAT = 1
FILES = ("card.json", "data-card.md", "data-card.html")
_LICENSES = 40  # lines of the table of licences; the rest is summed up
_NOTES = 60


@dataclass(frozen=True)
class Table:
    """Rows under titles; `kinds` says how a column is written: text, count, size, share or seconds. A value may be None
    where nothing is known."""

    title: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the card: facts by name, tables, and remarks."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """The whole card. `hashes` are what two cards are compared by first."""

    name: str
    created: str
    kringle: str
    summary: str
    sections: tuple[Section, ...]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Card:
        """A card that was written earlier. Raises `UserError` when it is none, or another version's."""
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise UserError("is a data card of another version", where=where, hint="write it again")
            sections = tuple(
                Section(
                    s["title"],
                    tuple((str(k), str(v)) for k, v in s["facts"]),
                    tuple(
                        Table(t["title"], tuple(t["columns"]), tuple(t["kinds"]), tuple(map(tuple, t["rows"])))
                        for t in s["tables"]
                    ),
                    tuple(s["notes"]),
                )
                for s in raw.pop("sections")
            )
            return cls(**raw, sections=sections)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError("cannot be read as a data card", where=where, hint="write it again") from None


def write_card(work: Path) -> Path:
    """Write the card of a workspace's last run into `WORK/card`; returns the page. The CLI's `kringle card`."""
    from kringle.study.card_page import to_html, to_markdown

    workspace = Workspace.open(work, create=False)
    workspace.lock()
    options, plan = recall(workspace)
    card = assemble_card(plan, options.command())
    folder = workspace.root / "card"
    folder.mkdir(exist_ok=True)
    for name, text in zip(FILES, (card.to_json(), to_markdown(card), to_html(card)), strict=True):
        write_atomically(folder / name, text)
    return folder / FILES[2]


def read_card(place: Path) -> Card:
    """The card of a workspace (written now if it has none), of a folder, or a `card.json`."""
    path = place.expanduser()
    found = [p for p in (path, path / "card.json", path / "card" / "card.json") if p.is_file()]
    if not found and (path / "workspace.json").exists():
        write_card(path)
        found = [path / "card" / "card.json"]
    if not found:
        raise UserError("holds no data card", where=str(place), hint="make one with kringle card --work DIR")
    try:
        return Card.from_json(found[0].read_text(encoding="utf-8"), str(found[0]))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(found[0])) from None


def assemble_card(plan: Plan, command: str) -> Card:
    """The card of a plan whose collect stage at least is published. Raises `UserError`."""
    manifests = {name: stage.manifest() for name, stage in _stages(plan)}
    collected = manifests["collect"]
    if collected is None:
        raise UserError("the data is not up to date", where=str(plan.collect.root), hint=f"run {command}")
    summaries = {name: manifest["summary"] for name, manifest in manifests.items() if manifest is not None}
    steps = _funnel(summaries)
    last = steps[-1]
    tokens = summaries.get("encode", {}).get("tokens")
    told = f"{last['files']:,} files, {last['bytes']:,} bytes" + (f", {tokens:,} tokens" if tokens is not None else "")
    return Card(
        name=plan.recipe.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        kringle=__version__,
        summary=told,
        sections=(
            _contents(summaries["collect"], plan),
            _funnel_section(steps, tokens),
            _duplicates(steps),
            _left_out(plan, summaries),
            _personal_data(summaries),
            _contamination(plan, summaries),
            _held_out(summaries),
            _making(plan, manifests, command),
        ),
    )


def _stages(plan: Plan) -> Iterator[tuple[str, Stage]]:
    for kind in ("collect", "clean", "split", "annotate", "tokenizer", "encode", "attribution"):
        yield kind, getattr(plan, kind)


def _contents(collected: Mapping[str, Any], plan: Plan) -> Section:
    tables = [_shares(title, collected[key]) for title, key in (("Sources", "sources"), ("Languages", "languages"))]
    licenses = list(collected["licenses"])
    if len(licenses) > _LICENSES:
        rest = licenses[_LICENSES:]
        files, size = (sum(share[key] for share in rest) for key in ("files", "bytes"))
        licenses = [*licenses[:_LICENSES], {"name": f"{len(rest):,} more", "files": files, "bytes": size}]
    corpus = plan.recipe.corpus
    rule = "any" if corpus.licenses == "any" else " or ".join(("permissive (SPDX)", *corpus.allow_licenses))
    return Section(
        "What is in it",
        facts=(
            ("Documents after exact deduplication", f"{collected['files']:,}"),
            ("Bytes", f"{collected['bytes']:,}"),
            ("Repositories and packages", f"{collected['repositories']:,}"),
            ("Documents with known stars", f"{collected['stars_known']:,}"),
            ("Licences asked for", rule),
            ("Only permissive licences", "yes" if collected["permissive"] else "no: not for permissive release"),
        ),
        tables=(*tables, _shares("Licences", licenses)),
    )


def _shares(title: str, shares: Sequence[Mapping[str, Any]]) -> Table:
    total = sum(share["bytes"] for share in shares) or 1
    rows = tuple((s["name"], s["files"], s["bytes"], s["bytes"] / total) for s in shares)
    return Table(title, (title[:-1], "Files", "Bytes", "Share"), ("text", "count", "size", "share"), rows)


def _funnel(summaries: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [step for kind in ("collect", "clean", "split") for step in summaries.get(kind, {}).get("funnel", ())]


def _funnel_section(steps: Sequence[Mapping[str, Any]], tokens: int | None) -> Section:
    rows: list[tuple[Any, ...]] = []
    for step in steps:
        known = tokens if step is steps[-1] else None
        rows.append((step["name"], "left", step["files"], step["bytes"], known))
        rows += [(step["name"], f"dropped: {d['reason']}", d["files"], d["bytes"], None) for d in step["dropped"]]
    return Section(
        "The funnel",
        tables=(
            Table(
                "What is left after each step, and what it dropped",
                ("Step", "What", "Files", "Bytes", "Tokens"),
                ("text", "text", "count", "size", "count"),
                tuple(rows),
            ),
        ),
        notes=() if tokens is not None else ("Tokens are not counted: the corpus was not encoded.",),
    )


def _duplicates(steps: Sequence[Mapping[str, Any]]) -> Section:
    rows = []
    for step in steps:
        if "duplicate" in step["name"]:
            files, size = (sum(d[key] for d in step["dropped"]) for key in ("files", "bytes"))
            rows.append(
                (
                    step["name"],
                    files,
                    files / max(1, files + step["files"]),
                    size,
                    size / max(1, size + step["bytes"]),
                )
            )
    columns = ("Kind", "Files dropped", "Share of files", "Bytes dropped", "Share of bytes")
    near = any("near" in row[0] for row in rows)
    return Section(
        "Duplicates",
        tables=(Table("Duplicates", columns, ("text", "count", "share", "size", "share"), tuple(rows)),),
        notes=() if near else ("Near-duplicates were not looked for in this run.",),
    )


def _left_out(plan: Plan, summaries: Mapping[str, Mapping[str, Any]]) -> Section:
    notes = [note for kind in ("collect", "clean", "split") for note in summaries.get(kind, {}).get("notes", ())]
    rules = plan.collect.manifest() or {}
    asked = rules.get("settings", {}).get("opt_out", ())
    return Section(
        "Left out, and remarks",
        facts=(("Opt-outs that were honoured", ", ".join(asked) if asked else "none were asked for"),),
        notes=tuple(notes[:_NOTES]) + ((f"{len(notes) - _NOTES:,} more remarks",) if len(notes) > _NOTES else ()),
    )


def _personal_data(summaries: Mapping[str, Mapping[str, Any]]) -> Section:
    counts = summaries.get("clean", {}).get("pii")
    if not isinstance(counts, Mapping):
        return Section("Personal data and secrets", notes=("Not looked for in this run.",))
    rows = tuple(sorted(counts.get("kinds", {}).items()))
    table = Table("Found, and replaced by stand-ins", ("Kind", "Count"), ("text", "count"), rows)
    facts = (("Files with any", f"{counts.get('files', 0):,}"),)
    return Section("Personal data and secrets", facts=facts, tables=(table,))


def _contamination(plan: Plan, summaries: Mapping[str, Mapping[str, Any]]) -> Section:
    if "clean" not in summaries:
        return Section("Benchmarks", notes=("The corpus was not cleaned.",))
    import pyarrow.compute as pc

    from kringle.data.decisions import iter_decisions

    hits = Counter[str]()
    for table in iter_decisions(plan.clean.folder, ["step", "kept", "witness"]):
        dropped = table.filter(pc.and_(pc.equal(table["step"], "contamination"), pc.invert(table["kept"])))
        hits.update(str(witness).partition(":")[0] for witness in dropped["witness"].to_pylist())
    looked = ", ".join(plan.recipe.clean.decontaminate) or "none"
    rows = tuple(hits.most_common())
    return Section(
        "Benchmarks",
        facts=(
            ("Looked for", looked),
            ("Strings searched for", f"{summaries['clean'].get('benchmark_strings', 0):,}"),
            ("Files dropped for them", f"{hits.total():,}"),
        ),
        tables=(Table("Hits by problem", ("Problem", "Files"), ("text", "count"), rows),) if rows else (),
    )


def _held_out(summaries: Mapping[str, Mapping[str, Any]]) -> Section:
    split = summaries.get("split")
    if split is None:
        return Section("Held out", notes=("The corpus was not split.",))
    return Section(
        "Held out",
        facts=(
            ("Split by", split["split_by"]),
            ("Training", f"{split['train']['files']:,} files, {split['train']['bytes']:,} bytes"),
            ("Held out", f"{split['held_out']['files']:,} files, {split['held_out']['bytes']:,} bytes"),
        ),
    )


def _making(plan: Plan, manifests: Mapping[str, Mapping[str, Any] | None], command: str) -> Section:
    done = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    rows = tuple(
        (name, m["cost"]["wall_seconds"], m["cost"]["cpu_seconds"], m["cost"]["peak_memory"], m["fingerprint"])
        for name, m in done.items()
    )
    where = machine()
    facts = [
        ("Command", command),
        ("Recipe", plan.recipe.name),
        ("Fidelity", plan.recipe.fidelity),
        ("SHA-256 of the documents' ids, sorted", _documents_hash(plan)),
        ("Machine", f"{where.cpu}, {where.cores} cores, {where.memory_bytes / 1e9:.0f} GB"),
        ("System", f"{where.system}, Python {where.python}"),
        ("Kringle", __version__),
        *sorted(item for item in versions().items() if item[0] not in ("kringle", "python")),
    ]
    columns = ("Stage", "Time", "CPU time", "Peak memory", "Fingerprint")
    kinds = ("text", "seconds", "seconds", "size", "text")
    return Section("How it was made", facts=tuple(facts), tables=(Table("Time and cost", columns, kinds, rows),))


def _documents_hash(plan: Plan) -> str:
    """One hash for what the corpus holds: what survived cleaning where it was cleaned, else what was collected."""
    from kringle.data.table import document_shards, read_table

    cleaned = plan.clean.folder / "survivors.parquet"
    if cleaned.exists():
        ids = read_table(cleaned, ["id"])["id"].to_pylist()
    else:
        shards = document_shards(plan.collect.folder / "documents")
        ids = [id for shard in shards for id in read_table(shard, ["id"])["id"].to_pylist()]
    return hashlib.sha256("".join(f"{id}\n" for id in sorted(ids)).encode()).hexdigest()
