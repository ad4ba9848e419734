"""What looks like a secret and is none: placeholders, documented examples, digests, UUIDs, alphabets, sequences.

These are tests of a value alone; what the place of a value says (its name, the line, the file) is the detectors' part.
"""

from __future__ import annotations

import base64
import binascii
import re

# Words that people write where a secret belongs. Matched without case, anywhere in the value.
_WORDS = re.compile(
    rb"example|sample|dummy|placeholder|change[-_.]?(?:me|it)|changed|redacted|removed|hidden|masked|insert|replace|"
    rb"your|(?<![a-z])my[-_]|foo[-_.]?bar|foobar|lorem|ipsum|deadbeef|cafebabe|baadf00d|notreal|not[-_]a[-_]|not[-_]so[-_]|"
    rb"fake|mock|testing|(?<![a-z])test(?![a-z])|(?<![a-z])todo(?![a-z])|secret|password|passwd|p@ssw|passw0rd|qwerty|"
    rb"asdf|letmein|xxxx|\*\*\*|\.\.\.|undefined|(?<![a-z])null(?![a-z])|(?<![a-z])none(?![a-z])|"
    rb"default|invalid|username|usuario|^[<\[{(].*[>\]})]$",
    re.IGNORECASE,
)
# Values that stand for another value: ${TOKEN}, {token}, %(token)s, %s, $TOKEN, {{ token }}, <%= token %>, #{token}
_TEMPLATE = re.compile(
    rb"\$\{|\{\{|#\{|%\(|<%|%[sdv](?![A-Za-z0-9])|^\$[A-Za-z_]\w*(?:$|[-./:{$])|^\{[^{}]*\}$|^%[A-Za-z_]+%$|^<[^<>]*>$|^@[A-Za-z]"
)

UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(rb"(?:0x)?[0-9a-f]+|(?:0x)?[0-9A-F]+")
# Digests of 128, 160, 224, 256, 384 and 512 bits in hexadecimal
DIGEST_LENGTHS = frozenset((32, 40, 56, 64, 96, 128))

# Runs that people type or list: every stretch of SEQUENCE_RUN characters in a row from one of these is suspicious.
_SEQUENCES = tuple(
    s + s[::-1]
    for s in (
        b"abcdefghijklmnopqrstuvwxyz",
        b"0123456789012345678901234567890",
        b"qwertyuiopasdfghjklzxcvbnm",
        b"0123456789abcdef0123456789abcdef",
    )
)
SEQUENCE_RUN = 5
_PIECES = frozenset(s[at : at + SEQUENCE_RUN] for s in _SEQUENCES for at in range(len(s) - SEQUENCE_RUN + 1))


def is_template(value: bytes) -> bool:
    """The value is filled in elsewhere: `${TOKEN}`, `%s`, `{{ token }}`, `<token>`."""
    return _TEMPLATE.search(value) is not None


def is_hexadecimal(value: bytes) -> bool:
    """Only hexadecimal digits, letters of one case, perhaps after `0x`."""
    return _HEX.fullmatch(value) is not None


def classes(value: bytes) -> int:
    """How many of the four classes small letters, capitals, digits and marks occur."""
    letters = value.translate(None, b"0123456789")
    marks = bytes(c for c in letters if not chr(c).isalpha())
    return (value.lower() != value) + (value.upper() != value) + (len(letters) < len(value)) + bool(marks)


def is_digest(value: bytes) -> bool:
    """Hexadecimal of the length of a common digest."""
    return len(value) in DIGEST_LENGTHS and is_hexadecimal(value)


_LEET = bytes.maketrans(b"4@5$01!3", b"aassoiie")


def made_up(value: bytes) -> bool:
    """A placeholder: says so in words (also as p@55w0rd), repeats itself, or runs along the alphabet or the
    keyboard.
    """
    return (
        _WORDS.search(value) is not None
        or b"passwor" in value.lower().translate(_LEET)
        or is_monotonous(value)
        or share_in_sequence(value) >= 0.4
    )


def is_monotonous(value: bytes) -> bool:
    """Few different characters, or one short piece again and again."""
    n = len(value)
    if len(set(value)) <= max(3, min(6, n // 6)):
        return True
    return any(value == (value[:period] * (n // period + 1))[:n] for period in range(1, min(n // 2, 16) + 1))


def share_in_sequence(value: bytes) -> float:
    """Share of the value that lies in runs of an alphabet, of digits, of keyboard rows or of one repeated character."""
    lowered = value.lower()
    covered = reached = 0
    for at in range(len(value) - SEQUENCE_RUN + 1):
        piece = lowered[at : at + SEQUENCE_RUN]
        if piece in _PIECES or value.count(value[at], at, at + SEQUENCE_RUN) == SEQUENCE_RUN:
            covered += at + SEQUENCE_RUN - max(at, reached)
            reached = at + SEQUENCE_RUN
    return covered / max(1, len(value))


# Values that issuers publish as examples; whoever finds them has found the documentation.
_DOCUMENTED = (
    b"eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9l",  # jwt.io's payload: subject 1234567890, John Doe
    b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",  # the storage emulator
    b"C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==",  # Cosmos DB's
    b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==",  # RFC 7617: Aladdin:open sesame
    b"QWxhZGRpbjpPcGVuU2VzYW1l",
    # OAuth's examples: RFC 5849 (1.0), RFC 6749 (2.0) and RFC 6750; RFC 7519's token of Joe
    *(b"kkk9d7dh3k39sjv7", b"ad180jjd733klru7", b"h480djs93hd8", b"9djdj82h48djs9d2", b"dh893hdasih9"),
    *(b"hh5s93j4hdidpola", b"hdhd0244k9j7ao03", b"nnch734d00sl2jdk", b"pfkkdhi9sl3r4s00", b"j49sk3j29djd"),
    *(b"SplxlOBeZQQYbYS6WxSbIA", b"2YotnFZFEjr1zCsicMWpAA", b"tGzv3JOkF0XG5Qx2TlKWIA", b"7Fjfp0ZBr1KtDRbnfVdmIw"),
    *(b"czZCaGRSa3F0MzpnWDFmQmF0M2JW", b"gX1fBat3bV", b"mF_9.B5f-4.1JqM"),
    b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAs",
    b"2b7e151628aed2a6abf7158809cf4f3c",  # AES keys of NIST SP 800-38A, appendix F
    b"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
    b"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
    b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",  # Ed25519, RFC 8032
    # JSON Web Keys of RFC 7517 (appendix A), RFC 7518 (appendix C) and RFC 8037 (appendix A)
    *(b"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE", b"X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9"),
    *(
        b"0_NxaRPUMQoAJt50Gz8YiTr8",
        b"VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
        b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    ),
    b"77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a",  # X25519, RFC 7748
)

_DOCUMENTED_LOWERED = tuple(example.lower() for example in _DOCUMENTED)

_PUBLIC_KEY = re.compile(  # SubjectPublicKeyInfo of EC, RSA and Ed25519 keys, X.509 certificates, OpenSSH public keys
    rb"M(?:FkwEwYHKoZIzj0CAQ|FYwEAYHKoZIzj0CAQ|IGfMA0GCSqGSIb3DQEBAQUAA4GN|II[BC]IjANBgkqhkiG9w0BAQEFAAOCA|CowBQYDK2V|"
    rb"II[A-Za-z0-9+/]{3}CCA|II[A-Za-z0-9+/]{5}gAwIBAgI)|AAAA[BCE][23]N[lz]"
)
_CLIENT_ID = re.compile(rb"\.apps\.googleusercontent\.com\Z")
_PATH = re.compile(rb"(?:\.{1,2}|~)?/[\w./-]*|[\w.@-]+(?:/[\w.@-]+)*\.[a-z]{1,5}|[A-Za-z]:[\\/].*")
_FORMAT = re.compile(rb"%[-+#0]?[0-9.]*[A-Za-z]")


def is_encoded_text(value: bytes) -> bool:
    """Base 64 of readable text: an encoded message or a serialised record, but no random key."""
    if len(value) < 12:
        return False
    padded = value.translate(bytes.maketrans(b"-_", b"+/")).strip(b"=.")
    try:
        decoded = base64.b64decode(padded[: len(padded) // 4 * 4], validate=True)
    except binascii.Error:
        return False
    readable = sum(0x20 <= c < 0x7F or c in b"\t\r\n" for c in decoded)
    return readable >= 0.95 * len(decoded)


_PART = re.compile(rb"[A-Za-z]{0,20}[0-9]{0,3}[A-Za-z]{0,2}")
_CAPITALISED = re.compile(rb"(?:[A-Z][a-z]{2,}|[0-9]{1,2}|_)+")


def is_identifier(value: bytes) -> bool:
    """Words, perhaps numbered, capitalised or joined by marks: `s3_host`, `us-east-2`, `Phi3ForCausalModel`."""
    if _CAPITALISED.fullmatch(value):
        return True
    parts = re.split(rb"[-_./:]", value)
    return len(parts) > 1 and all(_PART.fullmatch(part) for part in parts)


def is_path(value: bytes) -> bool:
    """A file's path or name: it begins at a folder or ends in an extension."""
    return _PATH.fullmatch(value) is not None


def is_format(value: bytes) -> bool:
    """Three or more fields such as %Y or %-20s."""
    return len(_FORMAT.findall(value)) >= 3 and b"%2" not in value and b"%3" not in value


def is_public_identifier(value: bytes) -> bool:
    """What looks like a key and is published: client ids of Google's OAuth, public keys, certificates."""
    return _CLIENT_ID.search(value) is not None or _PUBLIC_KEY.match(value) is not None


def is_documented(value: bytes) -> bool:
    """A published example."""
    lowered = value.lower()
    return any(example in lowered for example in _DOCUMENTED_LOWERED)
