"""The finders that `kringle bench pii` compares: ours and the peers', each a function from a text to its spans."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kringle.bench import Peers
from kringle.bench.pii_labels import Finder, Reported
from kringle.errors import UserError
from kringle.pii import faithful, faithful_keys
from kringle.pii.corrected import find

KINDS_OF_BIGCODE = {"EMAIL": "email", "IP_ADDRESS": "ip", "KEY": "key"}


def corrected(text: str) -> list[Reported]:
    """Ours; byte offsets become offsets in characters."""
    data = text.encode("utf-8", "surrogatepass")
    spans = find(data)
    if text.isascii():
        return [Reported(f.start, f.end, f.kind) for f in spans]
    return [Reported(_characters(data[: f.start]), _characters(data[: f.end]), f.kind) for f in spans]


def _characters(data: bytes) -> int:
    return len(data.decode("utf-8", "replace"))


def faithful_without_keys(text: str) -> list[Reported]:
    """BigCode's emails and addresses; those that it finds and leaves in place are not counted."""
    spans = faithful.find_emails(text) + faithful.find_ips(text)
    return [Reported(s.start, s.end, s.kind) for s in spans if faithful.is_replaced(s)]


def faithful_with_keys(text: str) -> list[Reported]:
    """BigCode's emails, addresses and keys."""
    return [*faithful_without_keys(text), *(Reported(s.start, s.end, s.kind) for s in faithful_keys.find_keys(text))]


def detect_secrets() -> Finder:
    """detect-secrets as its command runs it, all plugins, default filters; each occurrence of a value counts."""
    collection = importlib.import_module("detect_secrets").SecretsCollection
    default_settings = importlib.import_module("detect_secrets.settings").default_settings

    def finder(text: str) -> list[Reported]:
        found = collection()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "document.txt"
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            with default_settings():
                found.scan_file(str(path))
        values = {secret.secret_value for _, secret in found if secret.secret_value}
        return [Reported(start, start + len(value), "key") for value in values for start in _occurrences(text, value)]

    return finder


def _occurrences(text: str, value: str) -> Iterator[int]:
    at = text.find(value)
    while at >= 0:
        yield at
        at = text.find(value, at + len(value))


def bigcode(folder: Path) -> Finder:
    """The scripts of December 2022: emails, addresses and keys. Their model is read from the working directory."""
    sys.path.insert(0, str(folder))
    before = Path.cwd()
    os.chdir(folder)
    addresses = importlib.import_module("utils.emails_ip_addresses_detection").detect_email_addresses
    keys = importlib.import_module("utils.keys_detection").detect_keys
    os.chdir(before)

    def finder(text: str) -> list[Reported]:
        os.chdir(folder)
        try:
            records = addresses(text, {"EMAIL", "IP_ADDRESS"}) + keys(text)
        finally:
            os.chdir(before)
        spans = [faithful.Span(r["start"], r["end"], KINDS_OF_BIGCODE[r["tag"]], r["value"]) for r in records]
        return [Reported(s.start, s.end, s.kind) for s in spans if faithful.is_replaced(s)]

    return finder


def finders(peers: Peers) -> tuple[dict[str, Finder], list[str]]:
    """What can be run here, by name, ours first, and what cannot, with the reason.

    Peers run in this process, so that all are timed alike. `--peer-path detect-secrets=DIR` names a virtual environment
    or a folder of packages, `--peer-path bigcode=DIR` the folder `pii` of bigcode-dataset.
    """
    found: dict[str, Finder] = {"corrected": corrected}
    absent: list[str] = []
    if not peers.wanted:
        return found, absent
    if folder := peers.paths.get("detect-secrets"):
        inside = sorted(folder.glob("lib/python*/site-packages"))
        sys.path += [str(path) for path in inside or [folder]]
    try:
        faithful_keys.default_gibberish()
        found |= {"faithful": faithful_with_keys, "detect-secrets": detect_secrets()}
    except (ImportError, UserError) as error:
        found["faithful"] = faithful_without_keys
        absent.append(f"detect-secrets: {error}")
    if "bigcode" not in peers.paths:
        absent.append("bigcode: name the folder pii of bigcode-dataset with --peer-path bigcode=DIR")
    elif absent:
        absent.append("bigcode: needs detect-secrets")
    else:
        found["bigcode"] = bigcode(peers.paths["bigcode"].resolve())
    return found, absent
