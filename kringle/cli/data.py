"""`kringle optout`, `card`: what may not be in the data, and what is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Json, Work, app, emit
from kringle.errors import UserError


@app.command()
def optout(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Repositories, owner:NAME, path:GLOB or document ids.", metavar="[REPO_OR_ID]..."),
    ] = None,
    work: Work = DEFAULT_WORK,
    copies: Annotated[
        str, typer.Option(help="What becomes of the same bytes elsewhere: keep or remove.", metavar="keep|remove")
    ] = "keep",
    as_json: Json = False,
) -> None:
    """Take documents out after the fact, and list the shards, token stores and models that hold them.

    Only the files that hold them are rewritten. The workspace remembers: every later run leaves them out too.

    \b
    kringle optout owner/project --work /data/study
    kringle optout owner:somebody 'path:*/secret.py' 5b6a1c0f4e1d9c0b8a7f6e5d4c3b2a1908070605
    kringle optout owner/project --copies remove
    kringle optout                               what is opted out so far, and what still holds it
    """
    from kringle.study.optout import opt_out, told

    if copies == "keep":
        result = opt_out(work, what or (), "keep")
    elif copies == "remove":
        result = opt_out(work, what or (), "remove")
    else:
        raise UserError(f"expected keep or remove, got {copies!r}", where="--copies")
    for line in told(result):
        print(line)
    emit(as_json, result)


@app.command()
def card(
    work: Work = DEFAULT_WORK,
    diff: Annotated[
        Path | None,
        typer.Option(help="Another workspace (or its card): tell what differs, from it to this one.", readable=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the data card of the last run: sources, licences, funnel, duplicates, hashes, cost; Markdown and HTML.

    \b
    kringle card --work /data/study
    kringle card --work /data/study --diff /data/last-month
    """
    from kringle.study.card import read_card, write_card
    from kringle.study.card_diff import compare

    page = write_card(work)
    print(page)
    lines: list[str] | None = None
    if diff is not None:
        lines = compare(read_card(diff), read_card(work))
        for line in lines or ["the cards say the same"]:
            print(line)
    emit(as_json, {"card": str(page), "differences": lines})
