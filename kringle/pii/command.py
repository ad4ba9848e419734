"""`kringle redact`: scan files, trees or standard input; report, and redact where asked to.

What is printed never holds a secret: place, kind, format, confidence. The exit code is 1 when something was found that
no baseline accepts, also when it was redacted (a hook must stop the commit that it changed), and when a file could not
be scanned or rewritten: nothing is known of it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from kringle.errors import UserError
from kringle.pii.baseline import Baseline, Entry, empty_baseline, read_baseline, write_baseline
from kringle.pii.candidates import Finding
from kringle.pii.files import UTF_16, files_in, is_binary, shown, write_atomically
from kringle.pii.redaction import KEY_LIMIT, findings, nothing, redact
from kringle.progress import Reporter

KEY_BYTES = 32
STANDARD_INPUT = "-"
BINARY = "binary"


class Scanned(NamedTuple):
    """One file: its path, its content, and what was found in it and is not accepted; or why it was not scanned.

    `coding`: of a file in UTF-16 (PowerShell writes them), which `data` is in UTF-8 of, without its byte-order mark.
    """

    path: Path
    data: bytes
    found: list[Finding]
    skipped: str = ""
    coding: str = ""

    def encoded(self, data: bytes) -> bytes:
        """UTF-8 as the file has it."""
        return f"\ufeff{data.decode()}".encode(self.coding) if self.coding else data


class Outcome(NamedTuple):
    """What `redact_command` did: the exit code, and the record for `--json`."""

    exit_code: int
    record: dict[str, Any]


def scan(
    paths: Sequence[Path],
    baseline: Baseline | None = None,
    leave_out: Sequence[Path | None] = (),
    reporter: Reporter | None = None,
) -> Iterator[Scanned]:
    """Every file of some files and trees, in order, with its findings; binary and unreadable files say why not.

    Files of `leave_out` are passed over. Raises UserError for a path that does not exist.
    """
    own = {path.resolve() for path in leave_out if path is not None}
    unlisted: list[Scanned] = []
    listed = list(files_in(paths, lambda folder, why: unlisted.append(Scanned(folder, b"", [], why))))
    files = [path for path in listed if path.resolve() not in own]
    with (reporter or Reporter(quiet=True)).task("redact", len(files)) as counter:
        for path in files:
            yield _scan(path, baseline)
            counter.advance()
    yield from unlisted


def _scan(path: Path, baseline: Baseline | None) -> Scanned:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Scanned(path, b"", [], error.strerror or "cannot be read")
    coding = UTF_16.get(data[:2], "")
    if coding:
        try:
            data = data[2:].decode(coding).encode()
        except UnicodeError:  # not UTF-16 after all
            coding = ""
    if not coding and is_binary(data):
        return Scanned(path, b"", [], BINARY)
    return Scanned(path, data, findings(data, baseline.accepts(path) if baseline else nothing), coding=coding)


def redact_command(
    paths: Sequence[str],
    *,
    write: bool = False,
    baseline: Path | None = None,
    update_baseline: bool = False,
    key_file: Path | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Find emails, public IP addresses and keys in files and trees ("-" is standard input) and print one line for each.

    `write` replaces them by stand-ins, in place; standard input is answered on standard output, and its findings on
    standard error. `baseline` is a file of accepted findings, which `update_baseline` writes. `key_file` holds the
    corpus key and is made if there is none; without it stand-ins differ from run to run. `reporter` shows the progress.
    Raises UserError for mistakes, before anything is written.
    """
    if update_baseline and baseline is None:
        raise UserError("--update-baseline needs --baseline FILE", hint="name the file to write")
    if update_baseline and write:
        raise UserError("--update-baseline accepts findings and --write removes them", hint="do one after the other")
    if "" in paths:
        raise UserError("a path is empty", where="redact", hint="name a file or a folder; . is the current one")
    if key_file is not None and not write:
        raise UserError("--key-file draws the stand-ins that --write puts in", hint="add --write, or leave it out")
    if STANDARD_INPUT in paths and (len(paths) > 1 or baseline is not None):
        raise UserError("standard input (-) cannot be scanned together with files or a baseline")
    accepted = None
    if baseline is not None:
        accepted = read_baseline(baseline) if baseline.exists() or not update_baseline else empty_baseline(baseline)
    key = _corpus_key(key_file) if write else b""
    if STANDARD_INPUT in paths:
        return _standard_input(key)
    files = scan([Path(path) for path in paths], None if update_baseline else accepted, (baseline, key_file), reporter)
    if update_baseline and baseline is not None and accepted is not None:
        return _accept(files, baseline, accepted)
    return _files(files, accepted, key)


def _files(files: Iterable[Scanned], accepted: Baseline | None, key: bytes) -> Outcome:
    count, written, binary = 0, 0, 0
    lines: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for scanned in files:
        count += not scanned.skipped
        if scanned.skipped == BINARY:
            binary += 1
        elif scanned.skipped:
            skipped.append(_passed_over(scanned.path, "not scanned", scanned.skipped))
        found = scanned.found
        if key and found:
            redacted, found = redact(scanned.data, key, accepted.accepts(scanned.path) if accepted else nothing)
            try:
                write_atomically(scanned.path, scanned.encoded(redacted))
                written += 1
            except OSError as error:
                skipped.append(_passed_over(scanned.path, "cannot be rewritten", error.strerror or ""))
        for finding in found:
            _print(line(shown(scanned.path), finding))
            lines.append(_record(shown(scanned.path), finding))
    if binary:
        print(f"{binary} binary file{'' if binary == 1 else 's'} not scanned", file=sys.stderr)
    record = {"files": count, "binary": binary, "findings": lines, "skipped": skipped, "written": written}
    return Outcome(int(bool(lines or skipped)), record)


def _passed_over(path: Path, what: str, why: str) -> dict[str, str]:
    """Say why a file was left as it is; the same for the record."""
    print(f"{shown(path)}: {what}: {why}", file=sys.stderr)
    return {"file": shown(path), "why": why}


def _print(text: str, file: TextIO | None = None) -> None:
    """Print what may hold any character, on a terminal that may not: as an escape then."""
    file = file or sys.stdout
    coding = file.encoding or "utf-8"
    print(text.encode(coding, "backslashreplace").decode(coding), file=file)


def _standard_input(key: bytes) -> Outcome:
    data = sys.stdin.buffer.read()
    redacted, found = redact(data, key) if key else (data, findings(data))
    for finding in found:
        _print(line(STANDARD_INPUT, finding), sys.stderr if key else sys.stdout)
    if key:
        sys.stdout.flush()
        sys.stdout.buffer.write(redacted)
        sys.stdout.buffer.flush()
    lines = [_record(STANDARD_INPUT, finding) for finding in found]
    return Outcome(int(bool(lines)), {"files": 1, "findings": lines, "skipped": [], "written": int(bool(key))})


def _accept(files: Iterable[Scanned], file: Path, baseline: Baseline) -> Outcome:
    places: list[Path] = []
    found: list[Entry] = []
    skipped: list[dict[str, str]] = []
    for scanned in files:
        if scanned.skipped:  # what was accepted of it stays accepted
            if scanned.skipped != BINARY:
                skipped.append(_passed_over(scanned.path, "not scanned", scanned.skipped))
            continue
        places.append(scanned.path)
        values = [(f.kind, scanned.data[f.start : f.end]) for f in scanned.found]
        found += [baseline.entry(scanned.path, kind, value) for kind, value in values]
    total = write_baseline(file, baseline, places, found)
    print(f"{file}: {total} accepted findings, {len(set(found))} of them in the {len(places)} files scanned")
    record = {"files": len(places), "findings": [], "skipped": skipped, "written": 0, "accepted": total}
    return Outcome(int(bool(skipped)), record)


def line(path: str, finding: Finding) -> str:
    """`file:line:column kind format confidence`."""
    return f"{path}:{finding.line}:{finding.column} {finding.kind} {finding.format} {finding.confidence:.2f}"


def _record(path: str, finding: Finding) -> dict[str, Any]:
    return {"file": path, **finding._asdict()}


def _corpus_key(key_file: Path | None) -> bytes:
    if key_file is None:
        return secrets.token_bytes(KEY_BYTES)
    try:
        if not key_file.exists():
            key = secrets.token_bytes(KEY_BYTES)
            descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
            return key
        key = key_file.read_bytes()
    except OSError as error:
        raise UserError(f"the key cannot be read or made: {error.strerror}", where=str(key_file)) from None
    if not 1 <= len(key) <= KEY_LIMIT:
        raise UserError(f"a corpus key has 1 to {KEY_LIMIT} bytes, this file {len(key)}", where=str(key_file))
    return key
