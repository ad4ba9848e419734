"""`kringle bench pii`: precision, recall and speed of `corrected` beside `faithful`, detect-secrets and BigCode.

    python benchmarks/bench_pii.py [--half open|sealed] [--peers] [--peer-path NAME=DIR ...] [--adversarial] [--json]

Quality is measured on one half of the labelled benchmark under `pii/`, by its matching rule: a reported span finds a
labelled one of the same kind when their overlap covers at least 80% of each. Intervals (95%) come from 1,000 resamples
of the hand-written fragments that the files were assembled from. Speed is processor time of one core on source code of
this machine: Python's standard library, and where there are some, Java's (`lib/src.zip` of a JDK) and installed
JavaScript packages. Slow peers get a part of the sample.

Peers: `faithful` (ours: emails and addresses; keys where detect-secrets can be imported), `detect-secrets` (its default
plugins and filters, keys alone) and `bigcode` (the folder `pii` of bigcode-dataset at 5cb43e9, December 2022). A peer
that is not installed is named under "absent"; `--peer-path detect-secrets=SITE_PACKAGES` and `--peer-path bigcode=DIR`
say where one lies.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import random
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "pii"))
from load import Half, LabelledFile, load

from kringle.pii import faithful, faithful_keys
from kringle.pii.corrected import find
from kringle.pii.redaction import redact
from kringle.randomness import stream

KINDS = ("email", "ip", "key")
OVERLAP = 0.8
RESAMPLES = 1000
SAMPLE_BYTES = 24_000_000
SLOW_SAMPLE_BYTES = 400_000
KEY = b"bench"
KINDS_OF_BIGCODE = {"EMAIL": "email", "IP_ADDRESS": "ip", "KEY": "key"}


class Reported(NamedTuple):
    """A span that a finder reports: offsets in characters, kind as in `KINDS`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], list[Reported]]


class Score(NamedTuple):
    """Counts of one finder for one kind, and 95% intervals of precision and recall."""

    true: int
    missed: int
    wrong: int
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]

    @property
    def precision(self) -> float:
        return self.true / (self.true + self.wrong) if self.true + self.wrong else 0.0

    @property
    def recall(self) -> float:
        return self.true / (self.true + self.missed) if self.true + self.missed else 0.0


# ---- finders


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


def detect_secrets_finder() -> Finder:
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


def bigcode_finder(folder: Path) -> Finder:
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


def finders(peers: bool, paths: dict[str, Path]) -> tuple[dict[str, Finder], list[str]]:
    """What can be run here, by name, and the names of what cannot."""
    found: dict[str, Finder] = {"corrected": corrected}
    absent: list[str] = []
    if not peers:
        return found, absent
    if "detect-secrets" in paths:
        sys.path.append(str(paths["detect-secrets"]))
    try:
        found |= {"faithful": faithful_with_keys, "detect-secrets": detect_secrets_finder()}
        faithful_keys.default_gibberish()
    except ImportError:
        found["faithful"] = faithful_without_keys
        absent.append("detect-secrets")
    if "bigcode" in paths and not absent:
        found["bigcode"] = bigcode_finder(paths["bigcode"])
    else:
        absent.append("bigcode")
    return found, absent


# ---- quality


def matches(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """BigCode's rule: the overlap covers at least 80% of both spans."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    return overlap > 0 and overlap >= OVERLAP * (a[1] - a[0]) and overlap >= OVERLAP * (b[1] - b[0])


def counts(file: LabelledFile, reported: Sequence[Reported]) -> np.ndarray:
    """True positives, missed labels and wrong reports of one file by kind, (3 kinds, 3) int64."""
    table = np.zeros((len(KINDS), 3), dtype=np.int64)
    for row, kind in enumerate(KINDS):
        labels = [(s.start, s.end) for s in file.positives if s.kind == kind]
        spans = [(r.start, r.end) for r in set(reported) if r.kind == kind]
        found = sum(any(matches(label, span) for span in spans) for label in labels)
        wrong = sum(not any(matches(label, span) for label in labels) for span in spans)
        table[row] = found, len(labels) - found, wrong
    return table


def quality(files: Sequence[LabelledFile], finder: Finder) -> dict[str, Score]:
    """Precision and recall by kind over labelled files, with intervals from resampled fragments."""
    tables = np.stack([counts(file, finder(file.content)) for file in files])  # (files, kinds, 3)
    fragments = sorted({name for file in files for name in file.skeletons})
    index = {name: i for i, name in enumerate(fragments)}
    member = np.zeros((len(files), len(fragments)))
    for row, file in enumerate(files):
        member[row, [index[name] for name in file.skeletons]] = 1 / len(file.skeletons)
    draw = stream(0, "bench pii", "resamples")
    weights = draw.multinomial(len(fragments), np.full(len(fragments), 1 / len(fragments)), size=RESAMPLES) @ member.T
    resampled = np.einsum("rf,fkc->rkc", weights, tables)  # (resamples, kinds, 3)
    total = tables.sum(axis=0)
    scores = {}
    for row, kind in enumerate(KINDS):
        true, missed, wrong = resampled[:, row].T
        intervals = [_interval(true, true + wrong), _interval(true, true + missed)]
        scores[kind] = Score(*(int(x) for x in total[row]), *intervals)
    return scores


def _interval(part: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    if not whole.any():
        return 0.0, 0.0
    shares = part[whole > 0] / whole[whole > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


# ---- speed


def sample(limit: int) -> list[bytes]:
    """Source files of this machine in a fixed order, about `limit` bytes, a third for each language that is there."""
    pools = [pool for pool in (_python(), _java(), _javascript()) if pool]
    chosen = []
    for pool in pools:
        random.Random(0).shuffle(pool)
        size = 0
        for read in pool:
            data = read()
            chosen.append(data)
            size += len(data)
            if size >= limit / len(pools):
                break
    return chosen


def _python() -> list[Callable[[], bytes]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return [path.read_bytes for path in sorted(root.rglob("*.py")) if path.stat().st_size <= 1_000_000]


def _java() -> list[Callable[[], bytes]]:
    for source in sorted(Path("/usr/lib/jvm").glob("*/lib/src.zip")):
        if source.is_file():
            archive = zipfile.ZipFile(source)
            names = sorted(i.filename for i in archive.infolist() if i.filename.endswith(".java"))
            return [functools.partial(archive.read, name) for name in names]
    return []


def _javascript() -> list[Callable[[], bytes]]:
    roots = [Path("/usr/lib/node_modules"), Path("/usr/share/nodejs")]
    paths = sorted(path for root in roots if root.is_dir() for path in root.rglob("*.js"))
    return [path.read_bytes for path in paths if path.is_file() and path.stat().st_size <= 1_000_000]


def speed(run: Callable[[bytes], Any], files: Sequence[bytes]) -> float:
    """Megabytes a second of processor time of one core; the faster of two passes."""
    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        for data in files:
            run(data)
        best = min(best, time.process_time() - started)
    return sum(map(len, files)) / 1e6 / best


def speeds(tools: dict[str, Finder]) -> dict[str, float]:
    """MB/s a core: ours on the whole sample, finding alone and with redaction; others on as much as takes seconds."""
    files = sample(SAMPLE_BYTES)
    result = {"corrected": speed(find, files), "corrected, redacting": speed(lambda data: redact(data, KEY), files)}
    small = _about(files, SLOW_SAMPLE_BYTES)
    medium = _about(files, 10 * SLOW_SAMPLE_BYTES)
    if "faithful" in tools:
        result["faithful, without keys"] = speed(_on_bytes(faithful_without_keys), medium)
    for name, finder in tools.items():
        if name != "corrected":
            result[name] = speed(_on_bytes(finder), medium if finder is faithful_without_keys else small)
    return result


def _about(files: Sequence[bytes], limit: int) -> list[bytes]:
    """Every nth file, so that about `limit` bytes remain with the same mix."""
    step = max(1, round(sum(map(len, files)) / limit))
    return list(files[::step])


def _on_bytes(finder: Finder) -> Callable[[bytes], Any]:
    return lambda data: finder(data.decode("utf-8", "replace"))


# Single lines that are made to be slow: what many anchors, near misses or overlaps look like.
ADVERSARIES: dict[str, bytes] = {
    "at signs": b"a@",
    "emails": b"a@b.com ",
    "addresses": b"54.12.33.9 ",
    "dotted numbers": b"1.1.1.1.",
    "hexadecimal groups": b"2a04:",
    "secret names": b"token=",
    "secret names and quotes": b'token(,"',
    "passwords": b'password="xK9#mP2$vL8!";',
    "logins": b"://a:bbb@",
    "PEM marks": b"-----BEGIN RSA PRIVATE KEY-----",
    "JSON Web Token headers": b"eyJhbGciOiJIUzI1NiJ9.",
    "token prefixes": b"xoxb-",
    "open quotes": b"'",
    "quoted keys": b'key="4b5d42f920c6b61022e1dbe747f61313ef19",',
    "base 64": b"QUJD",
}


def adversarial(size: int) -> dict[str, tuple[float, float]]:
    """Seconds for lines of `size / 2` and `size` bytes: twice the bytes should take twice the time."""
    result = {}
    for name, piece in ADVERSARIES.items():
        seconds = []
        for length in (size // 2, size):
            line = piece * (length // len(piece))
            started = time.process_time()
            find(line)
            seconds.append(round(time.process_time() - started, 3))
        result[name] = (seconds[0], seconds[1])
    return result


# ---- the whole


def bench(
    half: Half = "open", *, peers: bool = False, paths: dict[str, Path] | None = None, lines: int = 0
) -> dict[str, Any]:
    """The record of one run: quality and speed of ours and of the peers; `lines` bytes of adversarial lines, if any."""
    tools, absent = finders(peers, paths or {})
    files = load(half)
    scores = {name: quality(files, finder) for name, finder in tools.items()}
    wall, processor = time.perf_counter(), time.process_time()
    rates = speeds(tools)
    utilisation = (time.process_time() - processor) / (time.perf_counter() - wall)
    record = {
        "bench": "pii",
        "unit": "MB/s per core",
        "ours": round(rates["corrected"], 2),
        "peers": {name: round(rates[name], 3) for name in tools if name != "corrected"},
        "absent": absent,
        "utilisation": round(utilisation, 3),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "versions": {name: _version(name) for name in ("hyperscan", "regex", "numpy", "detect-secrets")},
        "speeds": {name: round(rate, 3) for name, rate in rates.items()},
        "half": half,
        "quality": {name: {kind: _row(score) for kind, score in table.items()} for name, table in scores.items()},
    }
    return record | ({"adversarial": adversarial(lines)} if lines else {})


def _processor() -> str:
    """The processor's own name where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(errors="replace").splitlines() if information.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _row(score: Score) -> dict[str, Any]:
    return score._asdict() | {"precision": round(score.precision, 4), "recall": round(score.recall, 4)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def table(record: dict[str, Any]) -> str:
    """The record as text for people."""
    lines = [f"quality on the {record['half']} half (95% intervals from resampled fragments)"]
    lines.append(f"{'':16}{'kind':8}{'precision':>24}{'recall':>26}{'true':>7}{'missed':>8}{'wrong':>7}")
    for name, kinds in record["quality"].items():
        for kind, row in kinds.items():
            if name == "detect-secrets" and kind != "key":
                continue  # it does not look for them
            precision = (
                f"{row['precision']:.3f} [{row['precision_interval'][0]:.3f}, {row['precision_interval'][1]:.3f}]"
            )
            recall = f"{row['recall']:.3f} [{row['recall_interval'][0]:.3f}, {row['recall_interval'][1]:.3f}]"
            lines.append(
                f"{name:16}{kind:8}{precision:>24}{recall:>26}{row['true']:7}{row['missed']:8}{row['wrong']:7}"
            )
    lines.append(f"speed, {record['unit']}")
    for name, rate in record["speeds"].items():
        lines.append(f"  {name:24}{rate:10.2f}   1 / {record['ours'] / rate:.1f}")
    lines += [f"  {name}: absent" for name in record["absent"]]
    for name, (half, whole) in record.get("adversarial", {}).items():
        lines.append(f"  adversarial line, {name:24}{half:8.2f} s for half {whole:8.2f} s for all")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--half", choices=("open", "sealed"), default="open", help="the sealed half is for final tables"
    )
    parser.add_argument("--peers", action="store_true", help="run the peers that are installed beside ours")
    parser.add_argument("--peer-path", action="append", default=[], metavar="NAME=DIR", help="where a peer lies")
    parser.add_argument(
        "--adversarial", action="store_true", help="also time lines of 5 and 10 MB that are made to be slow"
    )
    parser.add_argument("--json", action="store_true", help="end with one machine-readable line")
    arguments = parser.parse_args()
    paths = {name: Path(folder).resolve() for name, _, folder in (p.partition("=") for p in arguments.peer_path)}
    record = bench(arguments.half, peers=arguments.peers, paths=paths, lines=10_000_000 if arguments.adversarial else 0)
    print(table(record))
    if arguments.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
