"""`kringle dedup`: near-duplicates in any Parquet or JSON Lines folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def dedup(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Parquet and JSON Lines files, or folders of them.", metavar="INPUT...", readable=False),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the survivors and the decisions.", readable=False)],
    ngram: Annotated[int, typer.Option(help="Words in a row that are compared.")] = 5,
    threshold: Annotated[float, typer.Option(help="Jaccard similarity from which on a document gives way.")] = 0.7,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="SantaCoder's own steps, quirks included, over the files' order.")
    ] = False,
    content: Annotated[str | None, typer.Option(help="Name of the column of texts.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores by default.")] = None,
    as_json: Json = False,
) -> None:
    """Near-deduplicate Parquet or JSON Lines, each removal verified and listed with its witness.

    \b
    kringle dedup the-stack/python --out deduplicated            DIR/data/ and DIR/decisions.parquet
    kringle dedup a.jsonl b.jsonl.gz --out out --content code    texts in a column of your own
    kringle dedup corpus --out out --ngram 1 --threshold 0.85    by single words, as The Stack's base step
    kringle dedup corpus --out out --faithful                    as SantaCoder's stronger step did it
    """
    from kringle.data.dedup import dedup as run

    result = run(
        inputs,
        out,
        ngram=ngram,
        threshold=threshold,
        fidelity="faithful" if faithful else "corrected",
        content=content,
        workers=workers,
    )
    share = 1 - result["bytes_kept"] / max(1, result["bytes"])
    print(f"kept {result['kept']:,} of {result['documents']:,} documents; {share:.1%} of the bytes went")
    print(f"survivors {result['survivors']}: the same whatever the order of files and the number of workers")
    print(f"{result['out']}/data, {result['out']}/decisions.parquet")
    emit(as_json, result)
