"""`kringle doctor`: what this machine offers."""

from __future__ import annotations

from kringle.cli.app import Json, app, emit


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine offers: cores, memory, jail level, languages; and what will be skipped, and why.

    \b
    kringle doctor
    """
    from kringle.study.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding.line())
    emit(as_json, {"findings": [finding.as_dict() for finding in findings]})
