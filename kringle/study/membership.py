"""The attribution index of a workspace's last run, and "is my repository in it?": what became of every file of it.

Names of repositories and owners are compared without regard to case, as opt-outs do (`kringle.data.optout`); beside the
answer stands the command that opts out exactly what was asked for. A file is one of

    trained on    the document itself, or another place with the same bytes (`as`)
    held out      evaluated on, trained on by nobody
    left out      with the step, what it asks for and its evidence, as `kringle why` tells them
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from kringle.attribution.index import AttributionIndex
from kringle.attribution.opened import open_index, public_url
from kringle.attribution.sources import By, is_named
from kringle.data.decisions import read_decisions
from kringle.data.optout import OptOuts
from kringle.errors import UserError
from kringle.study.arm import split_of
from kringle.study.last_run import recall
from kringle.study.licences import summary
from kringle.study.optout import remembered_rules
from kringle.workspace import Stage, Workspace

RULES = {"repository": "repo", "owner": "owner", "path": "path"}  # as `kringle optout` calls them
MOST_FILES = 200  # listed in one answer; all are counted


@dataclass(frozen=True)
class Trained:
    """What a workspace's last run trained on, for looking things up in. Reads files when they are first asked for."""

    root: Path
    stages: Mapping[str, Stage]

    @classmethod
    def open(cls, work: Path) -> Trained:
        """`UserError` where no run has come as far as the index, or the corpus is too large for one."""
        workspace = Workspace.open(work, create=False)
        _, plan = recall(workspace)
        kinds = ("collect", "clean", "split", "tokenizer", "encode", "attribution")
        stages = {kind: getattr(plan, kind) for kind in kinds}
        missing = [kind for kind in kinds if stages[kind].manifest() is None]
        if missing:
            hint = f"bring it there with kringle run --until attribution --work {shlex.quote(str(work))}"
            what = f"the last run has no attribution index yet ({missing[0]} is not up to date)"
            raise UserError(what, where=str(workspace.root), hint=hint)
        if (reason := summary(stages["attribution"]).get("not_built")) is not None:
            raise UserError(f"there is no attribution index: {reason}", where=str(workspace.root))
        return cls(workspace.root, stages)

    @cached_property
    def index(self) -> AttributionIndex:
        """The index, opened."""
        folder, store = self.stages["attribution"].folder / "index", self.stages["encode"].folder / "store"
        return open_index(folder, store, self.stages["tokenizer"].folder)

    @cached_property
    def _split(self) -> dict[str, str]:
        return split_of(self.stages["split"].folder)

    @cached_property
    def _decisions(self) -> pa.Table:
        folders = [self.stages[kind].folder for kind in ("collect", "clean", "split")]
        return pa.concat_tables([read_decisions(folder) for folder in folders])

    def membership(self, by: By, name: str, most: int = MOST_FILES) -> dict[str, Any]:
        """What became of the files of a repository, an owner, or a path (a file, or all below a folder, alone or with
        its repository before it); the first `most` of them, counts of all, the command that opts them out, and how many
        are `opted_out` by now: the next run leaves those out.

        `UserError` for a name that says nothing.
        """
        name = name.strip().strip("/")
        if not name:
            raise UserError("names nothing", where=by)
        files = sorted(self._files(by, name), key=lambda file: (file["repository"], file["path"]))
        opted_out = OptOuts(remembered_rules(self.root))
        counts = {
            became: {
                "files": len(here),
                "bytes": sum(file.get("bytes", 0) for file in here),
                "tokens": sum(file.get("tokens", 0) for file in here),
            }
            for became in ("trained on", "held out", "left out")
            for here in [[file for file in files if file["became"] == became]]
        }
        rule = f"{RULES[by]}:{name}"
        return {
            by: name,
            "found": bool(files),
            "repositories": sorted({file["repository"] for file in files}),
            "licences": sorted({file["licence"] for file in files if file.get("licence")}),
            "counts": counts,
            "files": files[:most],
            "more": max(0, len(files) - most),
            "opted_out": sum(opted_out.place(f["repository"], f["path"]) is not None for f in files),
            "opt_out": shlex.join(["kringle", "optout", rule, "--work", str(self.root)]),
        }

    def _files(self, by: By, name: str) -> Iterator[dict[str, Any]]:
        """Every file that is named, once, with what became of it."""
        seen = set()
        for document in self.index.sources.named(by, name):
            seen.add((document.repo, document.path))
            url = public_url(document)
            yield {
                "repository": document.repo,
                "path": document.path,
                "became": "trained on",
                **({"as": document.stands_as} if document.stands_as else {}),
                "bytes": document.size,
                "tokens": document.tokens,
                "licence": " AND ".join(document.licenses) or None,
                **({"url": url} if url else {}),
            }
        table = self._decisions.filter(is_named(self._decisions["repo"], self._decisions["path"], by, name))
        last: dict[tuple[str, str], dict[str, Any]] = {}
        for row in table.to_pylist():
            place = row["repo"], row["path"]
            if place not in seen and last.get(place, {"kept": True})["kept"]:
                last[place] = row  # the first step that left it out, else the last that kept it
        for (repo, path), row in last.items():
            entry = {"repository": repo, "path": path}
            if row["kept"]:
                became = self._split.get(row["id"])
                if became == "held-out":
                    yield {**entry, "became": "held out"}
                continue
            why = {"step": row["step"], "asked": row["threshold"], "evidence": row["witness"], "value": row["value"]}
            yield {**entry, "became": "left out", **{key: value for key, value in why.items() if value is not None}}
