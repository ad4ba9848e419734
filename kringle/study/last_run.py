"""What a workspace remembers of its last run: enough to find its stages again, whatever becomes of the sources and of
Kringle's version. What was given on the command line is found from any folder; relative paths in the recipe itself are
taken from the current one, as they were then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.study.plan import Options, Plan, make_plan, resolve
from kringle.workspace import Workspace, write_atomically

LAST_RUN = "last-run.json"


def remember(workspace: Workspace, options: Options, plan: Plan, outside: Mapping[str, Any]) -> None:
    """Keep what `recall` needs."""
    asked = {
        "recipe": options.recipe,
        "text": plan.recipe.text,
        "sources": [_absolute(str(source)) for source in options.sources],
        "stars": str(options.stars.expanduser().absolute()) if options.stars else None,
        "only": options.only,
        "allow_licenses": options.allow_licenses,
        "init": str(options.init.expanduser().absolute()) if options.init else None,
        "controls": options.controls,
        "outside": outside,
        "stages": {stage.name: stage.fingerprint for _, stage in plan.stages()},
    }
    write_atomically(workspace.root / LAST_RUN, json.dumps(asked, indent=1))


def _absolute(source: str) -> str:
    """A source that means the same from any folder: a path is made absolute, a URL and `KIND:WHERE` stay."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source


def recall(workspace: Workspace) -> tuple[Options, Plan]:
    """What the workspace's last run was asked for, and its plan. `UserError` where there was none, and where the
    file is damaged."""
    try:
        asked = json.loads((workspace.root / LAST_RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "run one with kringle run"
        raise UserError("no run has been made in this workspace yet", where=str(workspace.root), hint=hint) from None
    except (OSError, ValueError) as error:
        raise _damaged(workspace, error) from None
    try:
        options, outside, stages, text = _asked(asked, workspace)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(workspace, error) from None
    plan = make_plan(resolve(options, text), workspace, **outside)
    return options, plan.as_published(stages)


def _damaged(workspace: Workspace, error: Exception) -> UserError:
    where, hint = str(workspace.root / LAST_RUN), "make the run again: what is up to date stays"
    return UserError(f"is damaged: {type(error).__name__} {error}", where=where, hint=hint)


def _asked(asked: Any, workspace: Workspace) -> tuple[Options, dict[str, Any], dict[str, str], str]:
    """What `remember` wrote: options, keywords of `make_plan`, fingerprints of the stages, the recipe's text."""
    options = Options(
        recipe=asked["recipe"],
        work=workspace.root,
        sources=tuple(asked["sources"]),
        stars=Path(asked["stars"]) if asked.get("stars") else None,
        only=tuple(asked["only"]) if asked["only"] is not None else None,
        allow_licenses=tuple(asked["allow_licenses"]),
        init=Path(asked["init"]) if asked.get("init") else None,
        controls=asked.get("controls", False),
    )
    return options, dict(asked["outside"]), dict(asked["stages"]), asked["text"]
