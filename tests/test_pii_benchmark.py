"""The labelled benchmark for secrets and personal data is what its description says."""

from __future__ import annotations

import ast
import base64
import hashlib
import ipaddress
import json
import re
import string
import zlib
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from kringle.bench.pii_labels.files import KINDS, LANGUAGES, LabelledFile, load, parse
from kringle.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "pii"


HALVES: dict[str, list[LabelledFile]] = {"open": load("open"), "sealed": load("sealed")}
FILES = [file for files in HALVES.values() for file in files]
KEYS = [(span.format, file.text(span)) for file in FILES for span in file.spans if span.kind == "key"]


def _counts(files: list[LabelledFile]) -> Counter[str]:
    return Counter(span.kind for file in files for span in file.spans)


def test_enough_of_everything() -> None:
    counts = _counts(FILES)
    assert len(FILES) >= 420
    assert counts["email"] >= 260
    assert counts["ip"] >= 130
    assert counts["key"] >= 260
    assert counts["negative"] >= 600
    assert len({form for form, _ in KEYS}) >= 25
    assert min(Counter(file.language for file in FILES).values()) >= 130
    assert all(20 <= file.content.count("\n") <= 150 for file in FILES)
    assert len({(half, file.name) for half, files in HALVES.items() for file in files}) == len(FILES)


def test_sixty_skeletons_a_language_and_none_in_both_halves() -> None:
    for language in LANGUAGES:
        opened, sealed = (
            {name for file in files if file.language == language for name in file.skeletons}
            for files in HALVES.values()
        )
        assert len(opened | sealed) >= 60
        assert not opened & sealed


def test_halves_have_the_same_mix() -> None:
    opened, sealed = HALVES["open"], HALVES["sealed"]
    assert Counter(file.language for file in opened) == Counter(file.language for file in sealed)
    first, second = _counts(opened), _counts(sealed)
    for kind in KINDS:
        assert 0.8 < first[kind] / second[kind] < 1.25, kind
    forms = [{span.format for file in files for span in file.spans if span.kind == "key"} for files in (opened, sealed)]
    assert forms[0] == forms[1]
    nothing = [sum(not file.positives for file in files) for files in (opened, sealed)]
    assert min(nothing) >= 30


def test_spans_hold_what_they_say() -> None:
    for file in FILES:
        for span in file.spans:
            text = file.text(span)
            assert text == text.strip(), (file.name, span)
            if span.kind == "email":
                assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", text, re.ASCII), text
            elif span.kind == "ip":
                address = ipaddress.ip_address(text)
                assert address.version == int(span.format[-1]), text
                assert address.is_global, text
            elif span.kind == "key":
                assert len(text) >= 12, (file.name, text)


def test_a_value_is_positive_or_negative_never_both() -> None:
    """The exact text of a positive is nowhere left unlabelled, nor labelled as something else."""
    for file in FILES:
        for wanted in file.positives:
            text = file.text(wanted)
            starts = {span.start for span in file.spans if file.text(span) == text and span.kind == wanted.kind}
            found = {m.start() for m in re.finditer(re.escape(text), file.content)}
            assert found == starts, (file.name, text)


def test_values_are_not_shared_by_the_halves() -> None:
    opened, sealed = (
        {file.text(span) for file in files for span in file.positives if span.kind in ("email", "key")}
        for files in HALVES.values()
    )
    assert not opened & sealed


def test_python_files_parse() -> None:
    for file in FILES:
        if file.language == "python":
            ast.parse(file.content, filename=file.name)


def test_no_near_duplicates() -> None:
    """Containment of token 5-grams in the smaller of two files stays below 0.6."""
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for i, file in enumerate(FILES):
        tokens = re.findall(r"\w+|[^\w\s]", file.content)
        grams = set(zip(*(tokens[k:] for k in range(5)), strict=False))
        sizes.append(len(grams))
        for gram in grams:
            holders[gram].append(i)
    shared: Counter[tuple[int, int]] = Counter()
    for files in holders.values():
        shared.update(combinations(files, 2))
    worst = max(count / min(sizes[i], sizes[j]) for (i, j), count in shared.items())
    assert worst < 0.6


def test_stored_text_holds_no_key_verbatim() -> None:
    """A scanner sees the JSON or its decoded strings, with the joiner inside every key."""
    for half in HALVES:
        raw = (FOLDER / f"files-{half}.jsonl").read_text(encoding="ascii")
        assert r"\u2060" in raw
        decoded = "\n".join(json.loads(line)["content"] for line in raw.splitlines())
        for file in HALVES[half]:
            for span in file.spans:
                if span.kind == "key":
                    assert file.text(span) not in decoded, (file.name, span)


def test_loader_refuses_labels_that_do_not_fit() -> None:
    span = {"start": 2, "end": 5, "kind": "email", "format": "string", "label": ""}
    good = {"name": "a.py", "language": "python", "content": "x = 1", "spans": [span], "skeletons": []}
    assert parse(json.dumps(good)).spans[0].end == 5
    for change in ({"end": 6}, {"start": 5}, {"kind": "phone"}):
        with pytest.raises(ValueError, match=r"a\.py"):
            parse(json.dumps({**good, "spans": [{**span, **change}]}))
    with pytest.raises(ValueError, match="overlaps"):
        parse(json.dumps({**good, "spans": [span, {**span, "start": 4}]}))
    with pytest.raises(ValueError, match="language"):
        parse(json.dumps({**good, "language": "cobol"}))
    with pytest.raises(ValueError, match="half"):
        load("both")  # type: ignore[arg-type]


# ---- checksums: each is computed here from its public description, not from the program that made the values

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def _number(text: str, alphabet: str) -> int:
    value = 0
    for letter in text:
        value = value * len(alphabet) + alphabet.index(letter)
    return value


def _crc_base62(token: str) -> bool:
    """GitHub and npm: the last six letters are the CRC-32 of the thirty before them, in base 62."""
    body = token.split("_", 1)[1]
    return len(body) == 36 and zlib.crc32(body[:30].encode()) == _number(body[30:], BASE62)


def _crc_grafana(token: str) -> bool:
    """Grafana service accounts: CRC-32 of all before the last underscore, least significant byte first."""
    body, _, check = token.rpartition("_")
    return zlib.crc32(body.encode()).to_bytes(4, "little").hex() == check


def _bech32(text: str) -> bool:
    """BIP 173: the polynomial of prefix and data leaves the remainder 1."""
    prefix, _, data = text.lower().rpartition("1")
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [BECH32.index(c) for c in data]
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            remainder ^= factor if top >> bit & 1 else 0
    return remainder == 1


def _base58check(text: str) -> bool:
    """Bitcoin's wallet import format: version byte 128, 32 bytes, 1, then four bytes of the double SHA-256."""
    raw = _number(text, BASE58).to_bytes(38, "big")
    twice = hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()
    return raw[0] == 0x80 and raw[33] == 1 and twice[:4] == raw[-4:]


def _jwt(text: str) -> bool:
    """RFC 7519: header and payload are JSON objects in base 64; the signature is bytes."""
    header, payload, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
    return "alg" in json.loads(header) and "iss" in json.loads(payload) and len(signature) in (32, 64, 128)


def _crc_armour(text: str) -> bool:
    """RFC 4880, section 6.1: CRC-24 of the bytes, in the line that begins with an equals sign."""
    lines = [line.strip() for line in text.splitlines()[2:-1]]
    remainder = 0xB704CE
    for byte in base64.b64decode("".join(lines[:-1])):
        remainder ^= byte << 16
        for _ in range(8):
            remainder = remainder << 1 ^ (0x1864CFB if remainder & 0x800000 else 0)
    return (remainder & 0xFFFFFF).to_bytes(3, "big") == base64.b64decode(lines[-1][1:])


CHECKS = {
    "github_personal_token": _crc_base62,
    "github_oauth_token": _crc_base62,
    "github_server_token": _crc_base62,
    "npm_token": _crc_base62,
    "grafana_service_token": _crc_grafana,
    "age_secret_key": _bech32,
    "bitcoin_wif": _base58check,
    "jwt": _jwt,
    "pgp_private": _crc_armour,
}


@pytest.mark.parametrize("form", sorted(CHECKS))
def test_checksums(form: str) -> None:
    values = {text for name, text in KEYS if name == form}
    assert len(values) >= 4
    for value in values:
        assert CHECKS[form](value), value
        if form == "jwt":
            broken = "e30." + value.split(".", 1)[1]  # an empty header
        else:
            place = 80 if form == "pgp_private" else len(value) - 1
            broken = value[:place] + ("Q" if value[place] != "Q" else "R") + value[place + 1 :]
        assert not CHECKS[form](broken)


def test_private_keys_are_armoured_base64() -> None:
    """Between the two marks lies the base 64 of a key, whatever the language needs to join its lines."""
    joins = re.compile(r"\\n|[\"']\s*[+,]\s*[\"']|[ \t]*\r?\n[ \t]*")
    seen: Counter[str] = Counter()
    for form, text in KEYS:
        if not form.startswith(("pem_", "pgp_")):
            continue
        found = re.fullmatch(r"-----BEGIN ([A-Z ]+)-----(.*)-----END \1-----", text, re.DOTALL)
        assert found, text[:40]
        letters = "".join(line for line in joins.split(found[2]) if ":" not in line)
        assert re.fullmatch(r"[A-Za-z0-9+/]{100,}={0,2}(?:=[A-Za-z0-9+/]{4})?", letters), letters
        seen[form] += 1
    assert {"pem_rsa", "pem_ec", "pem_pkcs8", "pem_openssh", "pem_rsa_encrypted", "pgp_private"} == set(seen)


def test_without_a_checkout_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kringle.bench.pii_labels.files.FOLDER", tmp_path)
    with pytest.raises(UserError, match="not part of the installed package"):
        load("open")
