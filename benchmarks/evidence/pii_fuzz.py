"""Long fuzzing of `kringle redact`: mutated files, no crash, no byte changed outside the findings, redaction
idempotent.

    python benchmarks/evidence/pii_fuzz.py [--inputs 1000000] [--seconds 500 --state FILE]

The seeds are the open half of the labelled benchmark and a text of fragments that the detectors care about. Each input
is a window of a seed, of 100 to 2,000 bytes, after 0 to 20 mutations (bytes changed, inserted, deleted; pieces copied,
swapped, glued in from another seed; fragments inserted). Every 400th input is scanned by both engines, which must
agree. The first violation ends the run with the seed of its input; otherwise the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kringle.bench.pii_labels import load
from kringle.machine import machine, versions
from kringle.pii.candidates import Finding
from kringle.pii.corrected import find
from kringle.pii.redaction import redact
from kringle.randomness import stream

RESULT = Path(__file__).resolve().parents[1] / "results" / "pii_fuzz.json"
KEY = b"fuzz"
DRAWS = 4 + 20 * 5  # the most that one input takes
ENGINES_EVERY = 400
FRAGMENTS = tuple(
    text.encode()
    for text in (
        *(
            "@",
            ".",
            ":",
            "::",
            "/",
            "//",
            "\\n",
            "\\u003c",
            "%40",
            "%2F",
            "'",
            '"',
            "`",
            "=",
            "=>",
            ":=",
            "(",
            ")",
            "[",
            "]",
        ),
        *("{", "}", ",", ";", "<", ">", "#", "$", "_", "-", "+", "~", "\\", "\n", "\r\n", "\x00", "é", "中", "\u2060"),
        *("password=", "token:", "'secret'", "api_key", "Authorization:", "Bearer ", "Basic ", "eyJhbGciOiJIUzI1NiJ9."),
        *(
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----END RSA PRIVATE KEY-----",
            "ghp_",
            "AKIA",
            "xoxb-",
            "sk_live_",
            "AIza",
        ),
        *("glpat-", "SG.", ":AA", "https://", "postgres://", "user:pw@", "54.12.33.9", "2a04:4976::1", "10.0.0.1"),
        *(
            "1.2.3.4",
            "/24",
            ":8080",
            "foo@corp.org",
            "@example.com",
            "icon@2x.png",
            "${x}",
            "%s",
            "<x>",
            "AZDO",
            "JQQJ99",
        ),
        *(
            "login(",
            "auth=('bob', ",
            "IDENTIFIED BY '",
            "<password>",
            "</password>",
            'value="',
            'name="password"',
            "-u bob:",
        ),
        *(
            "--password ",
            "DEPLOY_KEY=",
            "?key=",
            "jdbc:oracle:thin:scott/",
            "://tok@",
            "sk-proj-",
            "hf_",
            "eyJ",
            "base64:",
        ),
        *("T3BlbkFJ", "APA91b", "us12", "&sig=", "&se=", "PMAK-"),
        *("password: |\n  ", 'variable "token" {\n  default = "', '": {"value": "', '">', "</key><string>", "[32] = "),
        *("value: ", "name: DB_PASSWORD\n", '"name": "token"', "kind: Secret\n", "data:\n  a: ", '"data": {"a": "'),
        *("mysql -p", "sshpass -p ", "redis-cli -a ", "curl -ubob:", "docker login -p ", "requirepass ", "| sudo -S"),
        *("ConvertTo-SecureString ", "-AsPlainText ", 'Credential -ArgumentList "a", "', "Private-Lines: 2\n"),
        *("bob:$apr1$", "AUTH_KEY', '", '"kty"', '"d": "', '#define X_PASS "', "ENV TOKEN ", "xprv", "fm2_"),
    )
)


def check(data: bytes) -> int:
    """Redact one input and verify what must hold; the number of findings."""
    redacted, findings = redact(data, KEY)
    again, left = redact(redacted, KEY)
    assert again == redacted, "redacting again changed something"
    assert not left, "redacting again found something"
    assert agrees_outside(data, redacted, findings), "a byte outside the findings changed"
    return len(findings)


def agrees_outside(data: bytes, redacted: bytes, findings: Sequence[Finding]) -> bool:
    """Whether everything between the findings is still there, in order; keys keep their length, emails and
    addresses may not.
    """
    if all(finding.kind == "key" for finding in findings):  # most files; a pattern for each would take longer
        kept = [0, *(end for finding in findings for end in (finding.start, finding.end)), len(data)]
        pieces = zip(kept[::2], kept[1::2], strict=True)
        return len(data) == len(redacted) and all(data[a:b] == redacted[a:b] for a, b in pieces)
    pattern = [b"(?s)"]
    done = 0
    for finding in findings:
        size = finding.end - finding.start
        pattern += [re.escape(data[done : finding.start]), b".{%d}" % size if finding.kind == "key" else b".+?"]
        done = finding.end
    return re.fullmatch(b"".join([*pattern, re.escape(data[done:])]), redacted) is not None


def mutate(seeds: Sequence[bytes], number: int) -> bytes:
    """Input `number`: a window of a seed after some mutations; a function of the number alone."""
    numbers = iter(stream(0, "fuzz pii", number).integers(1 << 62, size=DRAWS).tolist())

    def below(limit: int) -> int:
        return next(numbers) % limit

    seed = seeds[below(len(seeds))]
    size = 100 + below(1900)
    start = below(max(1, len(seed) - size))
    data = bytearray(seed[start : start + size])
    for _ in range(below(21)):
        _mutate_at(data, below(len(data) + 1), below, seeds)
    return bytes(data)


def _mutate_at(data: bytearray, at: int, below: Callable[[int], int], seeds: Sequence[bytes]) -> None:
    length = 1 + below(29)
    match below(7):
        case 0:
            data[at : at + 1] = bytes([below(256)])
        case 1:
            del data[at : at + length]
        case 2:
            data[at:at] = data[max(0, at - length) : at]
        case 3:
            data[at : at + length] = data[at : at + length][::-1]
        case 4:
            other = seeds[below(len(seeds))]
            place = below(len(other))
            data[at:at] = other[place : place + 4 * length]
        case _:
            data[at:at] = FRAGMENTS[below(len(FRAGMENTS))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input, to repeat a violation")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--state", type=Path, help="where to keep the place; a later call goes on from there")
    arguments = parser.parse_args()
    seeds = [file.content.encode() for file in load("open")] + [b"".join(FRAGMENTS)]
    state = {"next": arguments.first, "findings": 0, "seconds": 0.0}
    if arguments.state and arguments.state.exists():
        state = json.loads(arguments.state.read_text())
    started = time.monotonic()
    for number in range(int(state["next"]), arguments.first + arguments.inputs):
        if time.monotonic() - started > arguments.seconds:
            break
        data = mutate(seeds, number)
        try:
            state["findings"] += check(data)
            if number % ENGINES_EVERY == 0:
                assert find(data) == find(data, engine="re"), "the engines disagree"
        except Exception:
            if arguments.state:
                arguments.state.write_text(json.dumps(state))
            print(f"violation at input {number}; repeat with --first {number} --inputs 1", file=sys.stderr)
            raise
        state["next"] = number + 1
    state["seconds"] = round(state["seconds"] + time.monotonic() - started, 1)
    if arguments.state:
        arguments.state.write_text(json.dumps(state))
    record = {
        "evidence": "pii_fuzz",
        "inputs": state["next"] - arguments.first,
        "violations": 0,
        "findings": state["findings"],
        "seconds": state["seconds"],
        "machine": machine().__dict__,
        "versions": versions(),
    }
    if arguments.inputs >= 1000:  # not when one input is repeated
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
