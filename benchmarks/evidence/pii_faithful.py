"""`faithful` against BigCode's own code of December 2022, on every file of code of this machine.

    python benchmarks/evidence/pii_faithful.py --bigcode DIR --site-packages DIR [--seconds 500]

`--bigcode` is the folder `pii` of bigcode-dataset at 5cb43e9, with its letter-pair model; `--site-packages` is where
detect-secrets 1.4.0 and gibberish-detector 0.1.1 lie. Both sides get the same text (invalid bytes replaced) and the
same letter-pair model. Emails and addresses are compared on every file. Keys are compared on every file as well: one
file in `INDEPENDENT` is scanned by detect-secrets once for each side; for the others the scan that BigCode's call made
is handed to ours, after a check that both asked for the same plugins and filters, because that scan is the same library
on both sides and nine tenths of the time. Files on which the original itself ends with an error are counted apart.

The run takes an hour of one core for a gigabyte: it stops after `--seconds`, keeps its place in `--state` and goes on
from there; the result is written whenever it stops.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine_code import LANGUAGES, Source, sources

from kringle.machine import machine, versions
from kringle.pii import faithful, faithful_keys

RESULT = Path(__file__).resolve().parents[1] / "results" / "pii_faithful.json"
KINDS = {"EMAIL": "email", "IP_ADDRESS": "ip", "KEY": "key"}
INDEPENDENT = 20
Spans = set[tuple[int, int, str]]


class Original:
    """BigCode's functions. Their letter-pair model is read once instead of once for each key; nothing else differs."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        os.chdir(folder)  # where the model is looked for
        self._emails_and_addresses = importlib.import_module(
            "utils.emails_ip_addresses_detection"
        ).detect_email_addresses
        keys = importlib.import_module("utils.keys_detection")
        self._keys = keys.detect_keys
        detector = importlib.import_module("gibberish_detector.detector")
        detector.create_from_model = functools.cache(detector.create_from_model)
        model = detector.create_from_model("gibberish_data/big.model")
        self.gibberish: Callable[[str], bool] = lambda value: bool(model.is_gibberish(value.lower()))

    def emails_and_addresses(self, text: str) -> Spans:
        return self._spans(self._emails_and_addresses(text, {"EMAIL", "IP_ADDRESS"}))

    def keys(self, text: str) -> Spans:
        return self._spans(self._keys(text))

    def _spans(self, records: list[dict[str, Any]]) -> Spans:
        return {(record["start"], record["end"], KINDS[record["tag"]]) for record in records}


class SharedScan:
    """Lets the second scan of one file take the first one's result, if it asks for the same plugins and filters."""

    def __init__(self) -> None:
        from detect_secrets import SecretsCollection
        from detect_secrets.settings import get_settings

        self._settings = get_settings
        self._scan = SecretsCollection.scan_file
        self.last: Any = None
        self.share = False

        def scan_file(collection: Any, filename: str) -> None:
            asked = dict(self._settings().json())
            text = Path(filename).read_bytes()
            if self.share and self.last is not None:
                before, same_text, values = self.last
                if before != asked or same_text != text or Path(filename).suffix != ".txt":
                    raise AssertionError("the two sides scan differently")
                for value in values:
                    collection[filename].add(value)
                self.last = None
                return
            self._scan(collection, filename)
            self.last = (asked, text, [secret for _, secret in collection])

        SecretsCollection.scan_file = scan_file


def compare(source: Source, original: Original, scan: SharedScan, counts: Counter[str]) -> list[str]:
    """What differs on one file: one line for each kind; counts spans and files."""
    text = source.read().decode("utf-8", "replace")
    differences = []
    ours = {(s.start, s.end, s.kind) for s in faithful.find_emails(text) + faithful.find_ips(text)}
    theirs = original.emails_and_addresses(text)
    if ours != theirs:
        differences.append(f"emails and addresses: {sorted(ours ^ theirs)[:3]}")
    counts.update(kind for _, _, kind in theirs)
    scan.share, scan.last = int(source.digest[:8], 16) % INDEPENDENT != 0, None
    counts["files with two scans"] += not scan.share
    try:
        theirs = original.keys(text)
    except Exception as error:  # the original's own errors are part of what is measured
        counts[f"the original ends with {type(error).__name__}"] += 1
        return differences
    ours = {(s.start, s.end, s.kind) for s in faithful_keys.find_keys(text, original.gibberish)}
    if ours != theirs:
        differences.append(f"keys: {sorted(ours ^ theirs)[:3]}")
    counts["key"] += len(theirs)
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bigcode", type=Path, required=True, help="the folder pii of bigcode-dataset at 5cb43e9")
    parser.add_argument("--site-packages", type=Path, help="where detect-secrets and gibberish-detector lie")
    parser.add_argument("--roots", type=Path, nargs="*", default=[Path("/")], help="trees to look for code in")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], help="folders to pass over")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--state", type=Path, default=Path("/tmp/pii-faithful.json"), help="where to go on from")
    arguments = parser.parse_args()
    if arguments.site_packages:
        sys.path.append(str(arguments.site_packages))
    here = versions()
    state = json.loads(arguments.state.read_text()) if arguments.state.exists() else {"reached": "", "differences": []}
    counts = Counter(state.get("counts", {}))
    languages = Counter(state.get("languages", {}))
    started = time.monotonic()
    every = sources(arguments.roots, set(LANGUAGES.values()), arguments.leave_out)
    original, scan = Original(arguments.bigcode.resolve()), SharedScan()
    for source in every:
        if source.digest <= state["reached"]:
            continue
        if time.monotonic() - started > arguments.seconds:
            break
        different = compare(source, original, scan, counts)
        state["differences"] += [f"{source.path} {source.member} {line}" for line in different]
        state["reached"] = source.digest
        counts["files"] += 1
        counts["bytes"] += source.size
        languages[source.language] += 1
    state |= {"counts": dict(counts), "languages": dict(languages)}
    arguments.state.write_text(json.dumps(state))
    record = {
        "evidence": "pii_faithful",
        "files": counts["files"],
        "bytes": counts["bytes"],
        "files_on_this_machine": len(every),
        "languages": dict(languages),
        "spans": {kind: counts[kind] for kind in KINDS.values()},
        "files_with_two_scans": counts["files with two scans"],
        "errors_of_the_original": {k: n for k, n in counts.items() if k.startswith("the original")},
        "files_that_differ": len({line.split(" ")[0] for line in state["differences"]}),
        "machine": machine().__dict__,
        "versions": here | {"detect-secrets": "1.4.0", "gibberish-detector": "0.1.1", "bigcode-dataset": "5cb43e9"},
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
