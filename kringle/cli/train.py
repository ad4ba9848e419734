"""`kringle train`: one arm of a prepared study on several GPUs or machines."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kringle.cli.app import DEFAULT_WORK, Json, Work, app, emit


@app.command()
def train(
    arm: Annotated[str, typer.Argument(help="Which ablation of the workspace's last run.")],
    work: Work = DEFAULT_WORK,
    seed: Annotated[
        int | None, typer.Option(help="Which seed, where the arm has several; the first by default.")
    ] = None,
    strategy: Annotated[
        Literal["ddp", "fsdp"], typer.Option(help="ddp: every GPU holds the model; fsdp: each holds a part of it.")
    ] = "ddp",
    as_json: Json = False,
) -> None:
    """Train one ablation with all processes that torchrun started; without torchrun, on this machine's GPU or CPU.

    \b
    kringle train fim                                              the GPU or CPU of this machine, no torchrun
    kringle run santacoder-1b --work /data/study --until encode
    torchrun --nproc-per-node 8 -m kringle train fim --work /data/study
    torchrun --nnodes 12 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
             -m kringle train fim --work /data/study --strategy fsdp
    """
    from kringle.study.together import train_together

    result = train_together(work, arm, seed, strategy)
    emit(as_json, result)
    if result["processes"] > 1:
        from kringle.training.parallel import end

        end()
