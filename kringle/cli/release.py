"""`kringle release`: the models of a study, ready for the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Json, Work, app, emit


@app.command()
def release(
    out: Annotated[Path, typer.Argument(help="The folder to write; must not be there.")],
    work: Work = DEFAULT_WORK,
    license: Annotated[str, typer.Option(help="The models' licence: openrail-m or apache-2.0.")] = "openrail-m",
    owner: Annotated[str | None, typer.Option(help="Your name on the Hub, for the cards and the upload.")] = None,
    despite_notice: Annotated[
        bool, typer.Option("--despite-notice", help="Also where data under non-permissive licences went in.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one folder per ablation in Hugging Face layout, each with a model card; print how to upload them.

    \b
    kringle release release/ --work kringle-work
    kringle release release/ --license apache-2.0 --owner my-name
    """
    from kringle.progress import Reporter
    from kringle.study.release import release as write

    say = Reporter().say
    released = write(work, out, license=license, owner=owner, despite_notice=despite_notice, say=say)  # type: ignore[arg-type]
    for one in released:
        print(f"{one.folder}\n    {one.upload}")
    emit(as_json, {"released": [asdict(one) for one in released]})
