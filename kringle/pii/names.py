"""What the name of a value says about it: a secret, perhaps a secret, or certainly something else.

Names are cut into words (`apiKeyHash` -> api, key, hash), so that `sign` is not found in `equalsIgnoreCase`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Keywords that the multi-pattern scan looks for, without case. Each ends where a name is read from.
KEYWORD = (
    rb"passw(?:or)?d|passwort|passphrase|pass[_-]?key|pwd|secret|token|credential|authorization|authentication|"
    rb"(?:api|app|access|auth|account|shared|signing|encryption|private|master|server|license|subscription|storage|client|"
    rb"service|sharedaccess)[_-]?key"
)
NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$-"

_WORD = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# A name with one of these speaks of something public or derived, whatever else it says.
_DERIVED = _words(
    """hash hashed hashes sha md5 digest checksum fingerprint thumbprint public verifier tokenizer tokenize
    tokenized tokenization tokenizers keyword keywords csrf xsrf bos eos pad unk cls sep mask stop continuation
    page next nmtoken nmtokens cancellation lock max min num"""
)
# A name that ends in one of these is about a secret: its type, place, lifetime.
_ABOUT = _words(
    """type types name names field fields label title url uri urls path paths file files filename endpoint header
    headers param params parameter prefix suffix regex pattern format length len size count limit expires expiry
    expiration expired ttl lifetime policy hint message msg error placeholder version index idx alias provider
    class separator delimiter list map kind scope audience issuer algorithm alg id ids arn exception test layer
    model config manager factory handler store reader writer service request response input output locker"""
)
_ABOUT_ENDINGS = tuple(word for word in _ABOUT if len(word) >= 4)  # of names without capitals: `secretsmanager`
_DIGEST = re.compile(rb"md5|sha-?[0-9]|crc-?32", re.IGNORECASE)
# Ends in one of those, and counts all the same: identifiers that scanners commonly treat as secrets.
_COUNTED = (b"private_key_id", b"privatekeyid", b"access_key_id", b"accesskeyid")
# Names that make even a UUID a secret
_CERTAIN = re.compile(
    rb"(?i:api[_-]?key|secret|passw|(?:auth|access|refresh|bearer)[_-]?token|(?:auth|access)[_-]?key)|"
    rb"\A(?:[A-Z0-9]+_)+TOKEN\Z"  # SNYK_TOKEN, CODECOV_TOKEN: settings in capitals
)
_PASSWORD = _words(
    """pass password passwd passphrase passwort passkey pwd pw psw psk pin credential credentials authentication"""
)
_PASSWORD_ENDINGS = (b"password", b"passwd", b"passphrase", b"pwd")  # of names without capitals: `dbpassword`
# For strings at large: words that lean towards a secret, and words for what is random and public.
_LEANING = _words(
    """key keys auth sign signing sig cred creds pin otp totp mfa seed wif sid private bearer session cookie
    jwt hmac encrypt encryption fernet login hook webhook account license dsn sas pw pass password passwd secret
    secrets token pat authorization apikey authkey credential credentials"""
)
_PUBLIC = _DERIVED | _words(
    """crc integrity etag commit revision rev oid guid uuid trace span request correlation nonce iv vector expected
    actual cert certificate image img icon font src href color colour serial isbn blob block txid genesis
    message batch video partition idempotency cache primary foreign sort row version alphabet charset chars
    digits site publishable id ids run pretrained model example sample"""
)


def words(name: bytes) -> list[bytes]:
    """The words of a name, in small letters."""
    return [word.lower() for word in _WORD.findall(name)]


def is_about_secret(name: bytes) -> bool:
    """The name speaks of a secret without holding it: `token_type`, `password_hash`, `secretName`, `max_tokens`."""
    parts = words(name)
    if not parts or _is_derived(name, parts):
        return True
    last = parts[-1]
    return (last in _ABOUT or last.endswith(_ABOUT_ENDINGS)) and not name.lower().endswith(_COUNTED)


def _is_derived(name: bytes, parts: Sequence[bytes]) -> bool:
    return not _DERIVED.isdisjoint(parts) or _DIGEST.search(name) is not None


def is_certain(name: bytes) -> bool:
    """The name leaves no doubt: `api_key`, `clientSecret`, `access_token`."""
    return _CERTAIN.search(name) is not None


def is_password(name: bytes) -> bool:
    """The name is a password's, where short values of any character are usual."""
    parts = words(name)
    return not _PASSWORD.isdisjoint(parts) or any(part.endswith(_PASSWORD_ENDINGS) for part in parts)


def may_hold_marks(name: bytes) -> bool:
    """The value may hold any mark: passwords and secrets may, tokens and keys are letters, digits and a few signs."""
    return is_password(name) or b"secret" in name.lower()


def leans(name: bytes) -> bool:
    """The name could be a secret's: `key`, `signature`, `account`."""
    return not _LEANING.isdisjoint(words(name))


def is_public(name: bytes) -> bool:
    """The name is that of something random and public: a digest, a commit, a trace."""
    return not _PUBLIC.isdisjoint(words(name)) or _DIGEST.search(name) is not None
