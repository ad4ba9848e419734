"""The command line's frame: the application, what commands share, and how trouble becomes one line and an exit code.

Exit codes: 0 done, 1 a fault (or findings, where a command looks for something), 2 a mistake that the user can mend,
130 interrupted. Standard output carries results (with `--json`, one last machine-readable line); standard error carries
the rest.
"""

from __future__ import annotations

import errno
import json
import os
import signal
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
Init = Annotated[
    Path | None,
    typer.Option(
        help="The checkpoint to start from, for a recipe that continues one (adapt).", metavar="DIR", readable=False
    ),
]
Controls = Annotated[
    bool,
    typer.Option(
        "--controls", help="Add the controls: another seed, a planted harm, a control by size for each filter."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="End with one machine-readable line on standard output.")]
DEFAULT_WORK = Path("kringle-work")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_MENDED_BY = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "see to its permissions or choose another folder"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "choose another name or move what is there"),
}


def emit(as_json: bool, result: dict[str, Any]) -> None:
    if as_json:
        print(json.dumps(result, sort_keys=True, allow_nan=False))


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
        _run()
    finally:
        # What is left is to end, a fifth of a second with everything loaded: Ctrl-C would only hide how it went.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run() -> None:
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(f"kringle: {error}", file=sys.stderr)
        sys.exit(2)
    except ShardError as error:
        mend = _MENDED_BY.get(error.cause.errno or 0) if isinstance(error.cause, OSError) else None
        first = f"{mend} and " if mend else ""
        print(f"kringle: {error}; {first}run the same command again to continue", file=sys.stderr)
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("kringle: interrupted; run the same command again to continue", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader went away, as in `kringle why x | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _MENDED_BY:
            raise
        path = error.filename2 or error.filename  # of two, as in a renaming, the one that was to be made
        where = f"{path}: " if path else ""
        print(f"kringle: {where}{error.strerror}; {_MENDED_BY[error.errno]} and run again", file=sys.stderr)
        sys.exit(1)
