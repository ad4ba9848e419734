"""`kringle serve`: a completion server for editors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kringle.cli.app import Json, app, emit

KEY_VARIABLE = "KRINGLE_API_KEY"


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Names of the workspace's models, or folders, ours or any causal LM of transformers; NAME=FOLDER.",
            metavar="MODEL...",
        ),
    ],
    host: Annotated[str, typer.Option(help="Where to listen; not this machine alone needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8791,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with a key a line; {KEY_VARIABLE} holds a single one.", readable=False),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Let everybody in who can reach --host.")] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name by which the server is reached.")] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A page that may call it, as https://HOST[:PORT].")
    ] = None,
    rows: Annotated[int, typer.Option(help="Samples that advance together.", min=1)] = 16,
    waiting: Annotated[int, typer.Option(help="Requests that may wait for a row; more get 429.", min=1)] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds that a request may take.", min=0.1)] = 60.0,
    most_tokens: Annotated[int, typer.Option(help="New tokens of one completion.", min=1)] = 1024,
    most_body: Annotated[str, typer.Option(help="Size of a request's body.")] = "2MB",
    prefix_cache: Annotated[
        str, typer.Option(help="Memory for prompts that were read before; 0 keeps none.")
    ] = "256MB",
    fim_order: Annotated[
        str | None,
        typer.Option(help="How the middle is asked for: spm (reads less again) or psm; else as the model was trained."),
    ] = None,
    no_heal: Annotated[bool, typer.Option("--no-heal", help="Go on at the cursor even inside a token.")] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or int8, as in kringle sample.")] = "auto",
    invariant: Annotated[
        bool, typer.Option("--invariant", help="The same bits whatever else is in flight; slower, fp32.")
    ] = False,
    grace: Annotated[float, typer.Option(help="Seconds to finish what runs after SIGTERM.", min=0)] = 20.0,
    work: Annotated[
        Path | None,
        typer.Option(
            help="A workspace: its models are found by name, copies of its training data are told; else kringle-work.",
            readable=False,
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="A file for the log instead of standard error.")] = None,
    as_json: Json = False,
) -> None:
    """Serve models to editors: OpenAI's, Mistral's, llama.cpp's, TGI's and Ollama's requests on one port.

    \b
    kringle serve fim                                    the base of the study in kringle-work
    kringle serve fim mha --work /data/study --port 8080   two of its models; requests choose by name
    kringle serve ~/santacoder --host 0.0.0.0 --api-key-file keys.txt
    """
    from kringle.quantities import parse_bytes
    from kringle.serve.command import Listening, serve_models
    from kringle.serve.models import ModelOptions
    from kringle.serve.settings import Settings, check_access, read_keys

    keys = read_keys(api_key_file, os.environ.get(KEY_VARIABLE, ""))
    check_access(host, keys, no_key=no_key)
    settings = Settings(
        keys=keys,
        hosts=tuple(name.lower() for name in allow_host or ()),
        origins=tuple(origin.rstrip("/") for origin in allow_origin or ()),
        most_body=parse_bytes(most_body, "--most-body"),
        most_new_tokens=most_tokens,
        deadline=deadline,
        heal=not no_heal,
    )
    options = ModelOptions(
        rows=rows,
        waiting=waiting,
        precision=precision,
        invariant=invariant,
        order=fim_order,  # type: ignore[arg-type]  # checked there
        prefix_bytes=0 if prefix_cache.strip() == "0" else parse_bytes(prefix_cache, "--prefix-cache"),
    )

    def say(listening: Listening) -> None:
        for line in listening.lines():
            print(line, flush=True)
        emit(as_json, listening.record())

    serve_models(models, options, settings, host=host, port=port, grace=grace, log=log, work=work, say=say)
