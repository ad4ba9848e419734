"""Personal data and secrets in source code: found, told apart from look-alikes, and replaced.

Two behaviours. `faithful` is what BigCode ran on SantaCoder's corpus in December 2022, span for span. `corrected` (the
default of `redact` and `scan`) is ours. The room depends on numpy, `regex` and, where its wheel exists, `hyperscan`.
"""

from kringle.pii.candidates import Finding
from kringle.pii.command import redact_command, scan
from kringle.pii.redaction import findings, redact

__all__ = ["Finding", "findings", "redact", "redact_command", "scan"]
