"""`kringle export` and `kringle import`: models for other engines, and from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; must not be there.")],
    to: Annotated[str, typer.Option("--to", help="gpt_bigcode, santacoder, ctranslate2 or gguf.")],
    as_json: Json = False,
) -> None:
    """Write a model for another engine, run it there, and keep it only if it computes the same.

    \b
    kringle export models/fim --to ctranslate2 models/fim-ct2
    kringle export models/fim --to gguf models/fim-gguf
    """
    from kringle.model.engines import export_model

    done = export_model(model, to, out)
    print(f"{done.out}: largest logit difference {done.difference:.2g} ({done.engine}, {done.tokens} tokens, fp32)")
    emit(as_json, asdict(done))


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder in SantaCoder's layout or of gpt_bigcode.", metavar="SRC")],
    out: Annotated[Path, typer.Argument(help="The folder to write; must not be there.")],
    as_json: Json = False,
) -> None:
    """Read a model of SantaCoder's released layout, or any gpt_bigcode folder, and write it as ours.

    \b
    kringle import ~/santacoder models/santacoder
    """
    from kringle.model.engines import import_model

    done = import_model(source, out)
    print(f"{done.out}: largest logit difference {done.difference:.2g} ({done.engine}, {done.tokens} tokens, fp32)")
    emit(as_json, asdict(done))
