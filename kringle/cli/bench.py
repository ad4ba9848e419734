"""`kringle bench`: how fast it is, beside the peers, in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark: one of those above.")],
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

    \b
    attribution   the index of the training documents: building it, looking texts up in it
    chain         from Parquet to the token store, with all steps of cleaning
    comments      the comment-to-code ratio
    encode        a tokenizer: training it, encoding with it
    generate      sampling, from one stream to 200 samples of a prompt; on the GPU where there is one
    minhash       the signatures of near-duplicates
    pii           emails, addresses and secrets: precision, recall and speed
    score         programs judged in the jail (HumanEval and SantaCoder's infilling task from KRINGLE_BENCHMARKS)
    serve         the first token, and tokens per second, at 1, 8 and 64 clients
    train         whole steps of training; on the GPU where there is one
    """
    from kringle.bench import Peers, parse_peer_paths
    from kringle.bench import bench as run

    record, lines = run(name, Peers(peers, parse_peer_paths(peer_path or ())))
    for line in lines:
        print(line)
    emit(as_json, record)
