"""The command line: every command is a thin call of one public function.

One module a group of commands; importing it registers them, in the order in which `kringle --help` lists them.
"""

from kringle.cli.app import app, main

from kringle.cli import run, redact, sample, exchange, release, bench, doctor  # isort: skip

__all__ = ["app", "bench", "doctor", "exchange", "main", "redact", "release", "run", "sample"]
