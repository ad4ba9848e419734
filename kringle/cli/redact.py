"""`kringle redact`: personal data and secrets in any tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def redact(
    paths: Annotated[list[str], typer.Argument(help="Files and folders; - is standard input.", metavar="PATH...")],
    write: Annotated[bool, typer.Option("--write", help="Replace what is found by stand-ins, in place.")] = False,
    baseline: Annotated[Path | None, typer.Option(help="A file of accepted findings.")] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Accept what is found now: write the baseline.")
    ] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="The key that stand-ins are drawn with; made if it is not there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find emails, public IP addresses and secrets in source code; exit code 1 when there are any.

    \b
    kringle redact src/                                 list findings: file, line, kind, confidence
    kringle redact src/ --write --key-file corpus.key   replace them, the same value always alike
    kringle redact . --baseline accepted.json --update-baseline
    kringle redact - --write < a.py > b.py              standard input, redacted, on standard output
    """
    from kringle.errors import UserError
    from kringle.pii.command import STANDARD_INPUT, redact_command
    from kringle.progress import Reporter

    if as_json and write and STANDARD_INPUT in paths:
        raise UserError("--json and redacted standard input would both go to standard output", hint="ask for one")

    outcome = redact_command(
        paths,
        write=write,
        baseline=baseline,
        update_baseline=update_baseline,
        key_file=key_file,
        reporter=Reporter(quiet=as_json),
    )
    emit(as_json, outcome.record)
    raise typer.Exit(outcome.exit_code)
