"""What the licences of a corpus mean for the models that were trained on it."""

from __future__ import annotations

from typing import Any

from kringle.workspace import Stage

NAMED = 3  # licences in the note; the report lists all


def summary(stage: Stage) -> dict[str, Any]:
    """What a published stage said of its work."""
    manifest = stage.manifest()
    assert manifest is not None, f"stage {stage.name} is not published"
    said: dict[str, Any] = manifest["summary"]
    return said


def release_note(collect: Stage) -> str | None:
    """The stamp on report and models where anything beyond permissive licences was collected; else None."""
    from kringle.data.licenses import is_permissive

    collected = summary(collect)
    if collected["permissive"]:
        return None
    names = [share["name"] for share in collected["licenses"] if not is_permissive(share["name"].split(" + "))]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Not for permissive release: trained on code under {', '.join(names[:NAMED])}{more}"
