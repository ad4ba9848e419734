"""`kringle bench`: how fast it is, beside the peers, in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark.")],
    peers: Annotated[bool, typer.Option("--peers", help="Measure the installed peers in the same run.")] = False,
    peer_path: Annotated[
        list[str] | None,
        typer.Option(help="Where a peer is installed (a virtual environment or checkout).", metavar="NAME=DIR"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run one benchmark, ours beside the installed peers in one run; rates, so larger is better.

    \b
    kringle bench pii                       ours alone
    kringle bench pii --peers --json        beside every peer that is installed here
    kringle bench pii --peers --peer-path bigcode=~/bigcode-dataset/pii
    """
    from kringle.bench import Peers, parse_peer_paths
    from kringle.bench import bench as run

    record, lines = run(name, Peers(peers, parse_peer_paths(peer_path or ())))
    for line in lines:
        print(line)
    emit(as_json, record)
