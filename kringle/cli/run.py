"""`kringle run`, `why`, `report`: a study, and what it has to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import DEFAULT_WORK, Controls, Init, Json, Work, app, emit


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text is not None else None


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a YAML file.")] = "laptop",
    work: Work = DEFAULT_WORK,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Train on this instead of the recipe's sources: a folder, archive, git repository, table (Parquet, "
            "JSONL) or URL of tables; or KIND:WHERE, as in recipes. Repeatable.",
        ),
    ] = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", help="Do this stage and all later ones again.", metavar="STAGE")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.", metavar="STAGE")] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these ablations, by name, separated by commas; the base always runs.")
    ] = None,
    allow_license: Annotated[
        list[str] | None,
        typer.Option(
            help="Also train on files under this SPDX licence (stamps the model); repeatable.", metavar="SPDX"
        ),
    ] = None,
    init: Init = None,
    controls: Controls = False,
    stars: Annotated[
        Path | None,
        typer.Option(help="A table (CSV, JSONL, Parquet) of repositories and their stars.", readable=False),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at a time, at most; by default one per core.")] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Do only this part's shards of the data stages: a job array's task.", metavar="I/N"),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where shards are worked on: local, or ray (a cluster).")] = "local",
    as_json: Json = False,
) -> None:
    """Run a whole study: collect, clean, train every ablation, evaluate, report. Reruns skip what is up to date.

    \b
    kringle run                                  the code on this machine, ten minutes on two cores
    kringle run --source ~/my-repos              your own code
    kringle run --source 'hf://datasets/me/code/*.parquet' --stars stars.csv
    kringle run my-study.yaml --work /data/mine  your own recipe
    kringle run adapt --init MODEL --source ~/my-repos   teach a model that exists your own code
    kringle run --until split                    only the data; stages: collect, clean, split, annotate,
                                                 tokenizer, encode, attribution, train, evaluate, score,
                                                 memorisation, report
    kringle run --part 3/16 --until collect      one of 16 machines that share a --work folder (docs/scale.md)
    """
    from kringle.study.pipeline import run_study
    from kringle.study.plan import Options

    options = Options(
        recipe=recipe,
        work=work,
        sources=tuple(source or ()),
        from_stage=from_stage,
        until=until,
        only=_names(only),
        allow_licenses=tuple(allow_license or ()),
        controls=controls,
        stars=stars,
        workers=workers,
        part=part,
        engine=engine,
        init=init,
    )
    emit(as_json, run_study(options, quiet=False))


@app.command()
def why(
    file: Annotated[str, typer.Argument(help="A path (or its end), or a document id (or its beginning).")],
    work: Work = DEFAULT_WORK,
    as_json: Json = False,
) -> None:
    """Tell one file's story: every decision taken on it, with value, threshold and witness.

    \b
    kringle why requests/adapters.py
    kringle why 5b6a1c0f --work /data/mine
    """
    from kringle.study.story import story, told

    decisions = story(work, file)
    for line in told(decisions):
        print(line)
    emit(as_json, {"file": file, "decisions": [decision._asdict() for decision in decisions]})


@app.command()
def report(
    work: Work = DEFAULT_WORK,
    diff: Annotated[
        Path | None, typer.Option(help="Another workspace: put its last report beside this one's.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of the last run again from what the workspace holds, or put two studies side by side.

    \b
    kringle report --work kringle-work
    kringle report --work now --diff before     what was set, and what came out, differently
    """
    from kringle.study.pipeline import report_again, report_difference

    path = report_again(work) if diff is None else report_difference(work, diff)
    print(path)
    emit(as_json, {"report": str(path)})
