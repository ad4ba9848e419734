"""What proves a token or refutes it: checksums, and structure that a vendor documents.

GitHub and npm: CRC-32 of the body in base 62; Grafana: CRC-32, little endian, in hexadecimal; Atlassian: CRC-32 in
hexadecimal; age: Bech32; Bitcoin: a double SHA-256 in base 58; Discord: a number in base 64; JSON Web Tokens: a JSON
object that names its algorithm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def _base62(number: int, width: int) -> bytes:
    digits = bytearray()
    while number:
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return bytes(reversed(digits)).rjust(width, b"0")


def github_checksum(token: bytes) -> bool:
    """The last six characters are the CRC-32 of the 30 before them, in base 62 (also npm, which uses GitHub's
    scheme).
    """
    body = token[4:]
    return _base62(zlib.crc32(body[:-6]), 6) == body[-6:]


def grafana_checksum(token: bytes) -> bool:
    """`glsa_` + 32 characters, `_`, and the little-endian CRC-32 of what stands before the underscore."""
    return zlib.crc32(token[:-9]).to_bytes(4, "little") == bytes.fromhex(token[-8:].decode())


def atlassian_checksum(token: bytes) -> bool:
    """The last eight characters are the CRC-32, in hexadecimal, of all before them."""
    return b"%08X" % zlib.crc32(token[:-8]) == token[-8:].upper()


def bech32_checksum(token: bytes) -> bool:
    """The checksum of BIP 173, which age's secret keys use."""
    text = token.lower()
    human, _, data = text.rpartition(b"1")
    check = 1
    for value in [c >> 5 for c in human] + [0] + [c & 31 for c in human] + [_BECH32.find(c) for c in data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check == 1


def base58_bytes(text: bytes) -> bytes | None:
    """What base 58 with a checksum stands for (wallet import format, BIP 32), or None where the checksum disagrees: the
    last four bytes are the first of a double SHA-256 of the others, which are returned.
    """
    number = 0
    for c in text:
        digit = _BASE58.find(c)
        if digit < 0:
            return None
        number = number * 58 + digit
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return raw[:-4] if hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:] else None


def base58_checksum(token: bytes) -> bool:
    """Whether the checksum of a text in base 58 agrees."""
    return base58_bytes(token) is not None


def discord_id(token: bytes) -> bool:
    """The first part is the bot's number in base 64."""
    head = token.split(b".", 1)[0]
    try:
        decoded = base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4))
    except binascii.Error:
        return False
    return 15 <= len(decoded) <= 20 and decoded.isdigit()


def aws_base32(token: bytes) -> bool:
    """Access key ids are base 32: the digits 0, 1, 8 and 9 do not occur in real ones."""
    return not set(token) & set(b"0189")


def unknown(_token: bytes) -> bool:
    """Nothing in the token tells a genuine one."""
    return False


def percent_encoded(token: bytes) -> bool:
    """Twitter hands its tokens out percent-encoded, with at least one escape; a row of As alone is data in base 64."""
    return b"%" in token


def json_header(token: bytes) -> bool:
    """The first part of a JSON Web Token is a JSON object that names its algorithm (RFC 7515)."""
    header = _json_part(token, 0)
    return isinstance(header, dict) and "alg" in header


def encrypted_header(token: bytes) -> bool:
    """The first part of an encrypted token names the algorithm of its content as well (RFC 7516)."""
    header = _json_part(token, 0)
    return isinstance(header, dict) and "enc" in header


def json_payload(token: bytes) -> bool:
    """The second part is a JSON object as well."""
    return isinstance(_json_part(token, 1), dict)


def _json_part(token: bytes, part: int) -> object:
    text = token.split(b".")[part]
    try:
        return json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    except (ValueError, RecursionError):  # the latter for thousands of nested brackets
        return None
