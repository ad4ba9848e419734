"""`kringle attribution`, `membership`: where a text comes from, and what became of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Json, Work, app, emit


@app.command()
def attribution(
    file: Annotated[
        Path, typer.Argument(help="A text, or - for standard input.", metavar="FILE", readable=False, allow_dash=True)
    ],
    work: Work = DEFAULT_WORK,
    min_characters: Annotated[int, typer.Option(help="The shortest span to tell, 50 or more.", metavar="N")] = 50,
    exact: Annotated[bool, typer.Option("--exact", help="Leave out spans that differ in white space.")] = False,
    as_json: Json = False,
) -> None:
    """Tell which spans of a text occur in the training data of the last run, with file, line and licence.

    Exit code 1 if there are any, as with `kringle redact`, so that a script or a hook can stop there; 0 if there are
    none.

    \b
    kringle attribution answer.py --work /data/study
    git diff --cached | kringle attribution -
    kringle attribution answer.py --min-characters 150 --exact
    """
    from kringle.study.attributing import attribute_file, told

    result = attribute_file(work, file, min_characters, exact)
    for line in told(result):
        print(line)
    emit(as_json, result)
    if result["spans"]:
        raise typer.Exit(1)


@app.command()
def membership(
    name: Annotated[str, typer.Argument(help="A repository, as the report or `kringle why` names it.", metavar="NAME")],
    work: Work = DEFAULT_WORK,
    by: Annotated[str, typer.Option(help="What NAME is: repository, owner or path.", metavar="WHAT")] = "repository",
    as_json: Json = False,
) -> None:
    """Is my repository in it? What became of each of its files in the last run, and the command that opts them out.

    \b
    kringle membership owner/project --work /data/study
    kringle membership somebody --by owner
    kringle membership src/vendored --by path
    """
    from kringle.study.attributing import membership_of, told_membership

    result = membership_of(work, name, by)
    for line in told_membership(result):
        print(line)
    emit(as_json, result)
