"""`kringle forecast`: cost, and what a study could see, before it is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Controls, Init, Json, app, emit


@app.command()
def forecast(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a YAML file.")] = "laptop",
    gpu: Annotated[
        str | None,
        typer.Option(help="v100, a100, h100 or h200; without it this machine, as fast as --work's runs were."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many devices.")] = 1,
    price: Annotated[float | None, typer.Option(help="Of one device for an hour, in any currency.")] = None,
    work: Annotated[
        Path, typer.Option(help="The workspace in which this machine's speed was measured.")
    ] = DEFAULT_WORK,
    controls: Controls = False,
    init: Init = None,
    as_json: Json = False,
) -> None:
    """Tell what a study costs and the smallest difference that it could detect, without training anything.

    \b
    kringle forecast santacoder-1b --gpu h200 --count 8 --price 3.50
    kringle forecast laptop --work kringle-work        this machine, as fast as it was in that workspace
    kringle forecast laptop --controls --gpu h100      as `kringle run --controls` would do it
    """
    from kringle.study.forecast import forecast as foresee
    from kringle.study.forecast import told

    found = foresee(recipe, gpu=gpu, count=count, price=price, work=work, controls=controls, init=init)
    for line in told(found):
        print(line)
    emit(as_json, asdict(found))
