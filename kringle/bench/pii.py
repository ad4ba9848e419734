"""`kringle bench pii`: precision, recall and speed of `corrected` beside `faithful`, detect-secrets and BigCode.

Quality is measured on both halves of the labelled benchmark (`benchmarks/pii` of a checkout): rules were written with
the open half in sight, the sealed half is the honest number. Speed is processor time of one core on source code of this
machine: Python's standard library, and where there are some, Java's (`lib/src.zip` of a JDK) and installed JavaScript
packages. Slow peers get a part of the sample. Lines of 0.5 and 1 MB that are made to be slow show whether time
grows with the bytes alone.

Peers: `faithful` (ours: emails and addresses; keys where detect-secrets can be imported), `detect-secrets` (its default
plugins and filters, keys alone) and `bigcode` (the folder `pii` of bigcode-dataset at 5cb43e9, November 2022).
"""

from __future__ import annotations

import functools
import random
import sysconfig
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kringle.bench import Measured, Peers
from kringle.bench.pii_labels import Finder, Half, Score, load, quality
from kringle.bench.pii_labels.finders import faithful_without_keys, finders
from kringle.pii.corrected import find
from kringle.pii.redaction import redact

HALVES: tuple[Half, ...] = ("open", "sealed")
SAMPLE_BYTES = 24_000_000
SLOW_SAMPLE_BYTES = 400_000
LINE_BYTES = 1_000_000  # `benchmarks/evidence/pii_lines.py` takes ten times as much
KEY = b"bench"


def measure(peers: Peers) -> Measured:
    """Quality and speed of ours and of the peers, and the adversarial lines."""
    tools, absent = finders(peers)
    scores = {half: {name: quality(load(half), finder) for name, finder in tools.items()} for half in HALVES}
    wall, processor = time.perf_counter(), time.process_time()
    rates = speeds(tools)
    busy = (time.process_time() - processor) / (time.perf_counter() - wall)
    lines = adversarial(LINE_BYTES)
    return Measured(
        unit="MB/s per core",
        ours=round(rates["corrected"], 2),
        peers={name: round(rates[name], 3) for name in tools if name != "corrected"},
        absent=absent,
        details={
            "busy": round(busy, 3),  # share of the wall time in which the core worked for us: 1 on a quiet machine
            "speeds": {name: round(rate, 3) for name, rate in rates.items()},
            "quality": {
                half: {name: {kind: _row(score) for kind, score in table.items()} for name, table in tables.items()}
                for half, tables in scores.items()
            },
            "adversarial": lines,
        },
        lines=[
            *(line for half, tables in scores.items() for line in _quality_lines(half, tables)),
            *_speed_lines(rates, absent),
            *_adversarial_lines(lines),
        ],
    )


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


# Inputs, most of one line, that are made to be slow: what many anchors, near misses or overlaps look like.
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
    "logins in calls": b"login(a,",
    "connections": b'.connect("a","b","',
    "pairs": b"value=aaaaaaaa",
    "options": b"--password a",
    "queries": b"?key=aaaaaaaaaaaaaaaaaaaa",
    "lines of settings": b"A_KEY=aaaaaaaa",
    "hexadecimal in quotes": b"'0123456789abcdef0123456789abcdef'api key ",
    "headers that run on": b" eyJhbGciOiJIUzI1NiJ9.aaaa.aaaaaaaaaaaaaaaa.aaaa",
    "pairs in either order": b"value=aaaaaaaa a=a name=a ",
    "pairs with wide fields": b"name=aa aa:" + b" " * 44 + b"aa:" + b" " * 44 + b"-value=aaaaaaaa ",
    "names that open something": b'variable "token" {default="',
    "blocks": b"token: |\n  aaaaaaaaaaaaaaaaaaaa\n",
    "elements behind names": b'token"aaaaaaaa>',
    "names behind a space": b'\ntoken "',
    "macros": b'#define A_KEY "',
    "manifests": b"kind: Secret\ndata:\n  a: QUJDREVGR0hJSktMTU5PUA==\n",
    "manifests in JSON": b'"kind": "Secret", "data": {"a": "QUJDREVGR0hJSktMTU5PUA=="},',
    "kinds in words": b"xkind: Secret ",
    "kinds without a colon": b"kind kind: Secret\n",
    "programs": b"mysql -p ",
    "programs and users": b"curl -ua",
    "options of programs": b"requirepass a",
    "pipes": b"echo a | sudo -S ",
    "secure strings": b"ConvertTo-SecureString -AsPlainText ",
    "credentials": b"credential -args (a,",
    "PuTTY's lines": b"Private-Lines: 1\nQUJDREVGR0hJSktMTU5P\n",
    "hashed passwords": b"a:$apr1$aaaaaaaa$",
    "salts": b"AUTH_KEY','",
    "members of keys": b'"d":"QUJDREVGR0hJSktMTU5PUUJDREVGR0hJSktMTU5PUUJD",',
    "short passwords in URLs": b"://a:b1c2d3@e.fg ",
    "base 58": b"xprv9s21ZrQH143K",
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


# ---- for people


def _row(score: Score) -> dict[str, Any]:
    return score._asdict() | {"precision": round(score.precision, 4), "recall": round(score.recall, 4)}


def _quality_lines(half: str, scores: dict[str, dict[str, Score]]) -> list[str]:
    lines = [f"quality on the {half} half (95% intervals from resampled fragments)"]
    lines.append(f"{'':16}{'kind':8}{'precision':>24}{'recall':>26}{'true':>7}{'missed':>8}{'wrong':>7}")
    for name, kinds in scores.items():
        for kind, score in kinds.items():
            if name == "detect-secrets" and kind != "key":
                continue  # it does not look for them
            low, high = score.precision_interval
            precision = f"{score.precision:.3f} [{low:.3f}, {high:.3f}]"
            low, high = score.recall_interval
            recall = f"{score.recall:.3f} [{low:.3f}, {high:.3f}]"
            lines.append(f"{name:16}{kind:8}{precision:>24}{recall:>26}{score.true:7}{score.missed:8}{score.wrong:7}")
    return lines


def _speed_lines(rates: dict[str, float], absent: Sequence[str]) -> list[str]:
    lines = ["speed, MB/s per core"]
    for name, rate in rates.items():
        lines.append(f"  {name:24}{rate:10.2f}   1 / {rates['corrected'] / rate:.1f}")
    return lines + [f"  absent: {name}" for name in absent]


def _adversarial_lines(lines: dict[str, tuple[float, float]]) -> list[str]:
    half_size, size = f"{LINE_BYTES / 2e6:g} MB", f"{LINE_BYTES / 1e6:g} MB"
    return [
        f"  adversarial line, {name:24}{half:8.2f} s for {half_size} {whole:8.2f} s for {size}"
        for name, (half, whole) in lines.items()
    ]
