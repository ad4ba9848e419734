"""The command line: every command is a thin call of one public function.

Exit codes: 0 done, 1 a fault (or findings, where a command looks for something), 2 a mistake that the user can mend,
130 interrupted. Standard output carries results (with `--json`, one last machine-readable line); standard error carries
the rest.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kringle import __version__
from kringle.errors import ShardError, UserError

app = typer.Typer(
    name="kringle",
    help="From a pile of source code to a released code model, and the evidence for every choice on the way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help keeps the examples as they are typed
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Whether a path can be used is found out where it is used, and said in one line: hence `readable=False`.
Work = Annotated[
    Path,
    typer.Option("--work", help="The workspace: where everything is kept.", show_default=True, readable=False),
]
Json = Annotated[bool, typer.Option("--json", help="End with one machine-readable line on standard output.")]
DEFAULT_WORK = Path("kringle-work")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def _emit(as_json: bool, result: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(result, sort_keys=True))


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text is not None else None


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a YAML file.")] = "laptop",
    work: Work = DEFAULT_WORK,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            help="Train on this folder or git repository instead of the recipe's sources; repeatable.", readable=False
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
    workers: Annotated[int | None, typer.Option(help="Processes at a time; the default is one per core.")] = None,
    as_json: Json = False,
) -> None:
    """Run a whole study: collect, clean, train every ablation, evaluate, report. Reruns skip what is up to date.

    \b
    kringle run                                  the code on this machine, ten minutes on two cores
    kringle run --source ~/my-repos              your own code
    kringle run my-study.yaml --work /data/mine  your own recipe
    kringle run --until split                    only the data; stages: collect, clean, split, annotate,
                                                 tokenizer, encode, train, evaluate, score, report
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
        workers=workers,
    )
    _emit(as_json, run_study(options, quiet=False))


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
    _emit(as_json, {"file": file, "decisions": [decision._asdict() for decision in decisions]})


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
    from kringle.pii.command import redact_command

    outcome = redact_command(paths, write=write, baseline=baseline, update_baseline=update_baseline, key_file=key_file)
    _emit(as_json, outcome.record)
    raise typer.Exit(outcome.exit_code)


@app.command()
def report(
    work: Work = DEFAULT_WORK,
    as_json: Json = False,
) -> None:
    """Write the report of the last run again from what the workspace holds.

    \b
    kringle report --work kringle-work
    """
    from kringle.study.pipeline import report_again

    path = report_again(work)
    print(path)
    _emit(as_json, {"report": str(path)})


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
    _emit(as_json, {"findings": [finding.as_dict() for finding in findings]})


def _version(value: bool) -> None:
    if value:
        print(f"kringle {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run a command and turn every foreseen trouble into one readable line and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(f"kringle: {error}", file=sys.stderr)
        sys.exit(2)
    except ShardError as error:
        print(f"kringle: {error}; run the same command again to continue", file=sys.stderr)
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("kringle: interrupted; run the same command again to continue", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader went away, as in `kringle why x | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            print(f"kringle: {error.strerror}: {error.filename}; free some space and run again", file=sys.stderr)
            sys.exit(1)
        raise
