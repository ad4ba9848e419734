"""`kringle doctor`: what this machine offers."""

from __future__ import annotations

from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def doctor(
    attack: Annotated[
        bool, typer.Option("--attack", help="Try to break out of the jail with every shipped attack; about a minute.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what this machine offers: cores, memory, jail level, languages; and what will be skipped, and why.

    \b
    kringle doctor
    kringle doctor --attack    what is blocked here, and by what; exit code 1 if anything is not
    """
    from kringle.study.doctor import attack_findings, examine

    findings = []
    for finding in attack_findings() if attack else examine():
        print(finding.line(), flush=True)
        findings.append(finding)
    emit(as_json, {"findings": [finding.as_dict() for finding in findings]})
    if attack and not all(finding.ok for finding in findings):
        raise typer.Exit(1)
