"""`kringle sample`: completions of a suite by any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def sample(
    model: Annotated[Path, typer.Argument(help="A model's folder: one of ours or any causal LM of transformers.")],
    out: Annotated[Path, typer.Option("--out", help="The file (or, for multipl-e, folder) to write.", readable=False)],
    suite: Annotated[str, typer.Option(help="A shipped suite's name, or the path of a suite file.")] = "starter",
    n: Annotated[int, typer.Option("--n", help="Samples of each problem.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Nucleus: 1 keeps every token.")] = 0.95,
    top_k: Annotated[int | None, typer.Option(help="Keep this many tokens at most.")] = None,
    seed: Annotated[int, typer.Option(help="Each sample is a function of model, prompt, seed and its number.")] = 0,
    max_new_tokens: Annotated[int | None, typer.Option(help="Instead of the suite's own limit.", min=1)] = None,
    format: Annotated[str, typer.Option(help="human-eval, bigcode or multipl-e.")] = "human-eval",
    data: Annotated[Path | None, typer.Option(help="A folder with the suites' problems.", readable=False)] = None,
    precision: Annotated[
        str, typer.Option(help="auto (bf16 where the processor has it, else fp32), fp32, bf16 or int8.")
    ] = "auto",
    rows: Annotated[int, typer.Option(help="Samples that advance together.", min=1)] = 256,
    invariant: Annotated[
        bool, typer.Option("--invariant", help="The same bits at any --rows, order and threads; slower, fp32.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sample completions of a suite's problems, in the format of the harness that will score them.

    Run the same command again after a break: it draws only what is missing.

    \b
    kringle sample models/fim --suite humaneval --n 200 --temperature 0.8 --out samples.jsonl
    kringle sample ~/starcoderbase-1b --suite humaneval --n 20 --format bigcode --out generations.json
    kringle sample models/fim --suite starter --n 10 --invariant --out samples.jsonl
    """
    from kringle.evaluation.sampling import Settings, sample_suite
    from kringle.progress import Reporter

    settings = Settings(n, temperature, top_p, top_k, seed, max_new_tokens, precision, invariant)
    record = sample_suite(
        model,
        suite,
        out,
        settings,
        format=format,  # type: ignore[arg-type]  # checked there
        rows=rows,
        data_dir=data,
        reporter=Reporter(),
    )
    print(f"{record['samples']:,} samples of {record['problems']} problems in {record['out']} ({record['precision']})")
    emit(as_json, record)
