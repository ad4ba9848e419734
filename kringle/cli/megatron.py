"""`kringle megatron`: a study's tokens as Megatron-LM reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Json, Work, app, emit


@app.command()
def megatron(
    prefix: Annotated[Path, typer.Argument(help="Where to write: PREFIX.bin and PREFIX.idx.")],
    work: Work = DEFAULT_WORK,
    as_json: Json = False,
) -> None:
    """Write the training documents of the workspace's last run as Megatron-LM's .bin and .idx.

    \b
    kringle run --until encode
    kringle megatron /data/code_document
    """
    from kringle.study.stores import export_megatron

    result = export_megatron(work, prefix)
    print(f"{result['documents']:,} documents, {result['tokens']:,} tokens: {result['bin']} and {result['idx']}")
    emit(as_json, result)
