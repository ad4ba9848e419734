"""The command line: every command is a thin call of one public function.

One module a group of commands; importing it registers them, in the order in which `kringle --help` lists them.
"""

from kringle.cli.app import app, main

from kringle.cli import (  # isort: skip  # the order of `kringle --help`
    run,
    data,
    attribution,
    forecast,
    train,
    megatron,
    dedup,
    redact,
    sample,
    score,
    exchange,
    release,
    serve,
    bench,
    doctor,
)

__all__ = ["app", "main"]
_ = (
    *(run, data, attribution, forecast, train, megatron, dedup, redact, sample, score, exchange, release, serve),
    *(bench, doctor),
)
