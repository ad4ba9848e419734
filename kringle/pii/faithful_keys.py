"""Keys as BigCode found them for SantaCoder: detect-secrets with the same plugins, filters and rules.

Needs the extra `kringle[detect-secrets]` (detect-secrets 1.4.0 and gibberish-detector 0.1.1, the versions of the
time). The description is the paper's appendix C.3 and C.4 and bigcode-dataset at commit 5cb43e9. One deviation: the
letter-pair model of the gibberish test is trained on the Python language reference that comes with every Python (the
text behind `help()`, module `pydoc_data.topics`), not on gibberish-detector's example text, which its package does not
contain. Every pair counts `TEXT_WEIGHT` times, so that the constant smoothing weighs what it weighed against the
larger example text.

Kept on purpose: exact-format keys are thrown away when their letters look pronounceable, one "sha" anywhere in a file
of fewer than 50 lines switches keys off for the whole file, and private keys in PEM are not looked for. Where the
original ends with an error (a key at the very first character, of a digest's length), the key counts as no digest.
"""

from __future__ import annotations

import functools
import re
import string
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from pydoc_data.topics import topics

from kringle.errors import UserError
from kringle.pii.faithful import Span

PLUGINS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "Base64HighEntropyString",
    "HexHighEntropyString",
    "AzureStorageKeyDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "IbmCloudIamDetector",
    "IbmCosHmacDetector",
    "JwtTokenDetector",
    "MailchimpDetector",
    "NpmDetector",
    "SendGridDetector",
    "SlackDetector",
    "SoftlayerDetector",
    "StripeDetector",
    "TwilioKeyDetector",
)
FILTERS = ("is_potential_uuid", "is_likely_id_string", "is_templated_secret", "is_sequential_string")
ENTROPY_LIMITS = {"Base64HighEntropyString": 4.5, "HexHighEntropyString": 3.0}
GIBBERISH_LIMIT = 4.0
TEXT_WEIGHT = 13  # gibberish-detector's example text has 6.2 MB, the language reference 0.46 MB
DIGEST_LENGTHS = (32, 40, 64)  # MD5, SHA-1, SHA-256 in hexadecimal
DIGEST_WORDS = ("sha", "md5", "hash", "byte")
HASH_SHARE = 0.02  # more lines than this naming "sha" or "hash": no key of the file is reported

Gibberish = Callable[[str], bool]


def train_gibberish(lines: Iterable[str], weight: int = 1) -> Gibberish:
    """A test whether the letters of a string follow each other unlike those of `lines`: mean of -ln p over pairs > 4.

    `weight` is how often each line counts.
    """
    try:
        from gibberish_detector.detector import Detector
        from gibberish_detector.model import SMOOTHING_FACTOR, Model
    except ImportError:
        raise _extra_missing() from None
    model = Model(string.ascii_letters)
    for line in lines:
        model.train(line)
    for row in model.data.values():
        for letter, count in row.items():
            row[letter] = SMOOTHING_FACTOR + weight * (count - SMOOTHING_FACTOR)
    detector = Detector(model, GIBBERISH_LIMIT)
    return lambda value: bool(detector.is_gibberish(value.lower()))


@functools.cache
def default_gibberish() -> Gibberish:
    lines = (line for name in sorted(topics) for line in topics[name].splitlines())
    return train_gibberish(lines, TEXT_WEIGHT)


def _extra_missing() -> UserError:
    return UserError(
        "faithful key detection needs detect-secrets and gibberish-detector",
        hint="install the extra: pip install 'kringle[detect-secrets]'",
    )


def find_keys(text: str, gibberish: Gibberish | None = None) -> list[Span]:
    """Every occurrence of every key that the original's chain reports, in order of start; offsets in characters."""
    gibberish = gibberish or default_gibberish()
    spans = set()
    for value in _scan(text):
        if gibberish(value) and not _is_digest(text, value) and not _mentions_hashes(text):
            spans |= {Span(m.start(), m.end(), "key", value) for m in re.finditer(re.escape(value), text)}
    return sorted(spans)


def _scan(text: str) -> set[str]:
    try:
        from detect_secrets import SecretsCollection
        from detect_secrets.settings import transient_settings
    except ImportError:
        raise _extra_missing() from None
    plugins = [{"name": n} | ({"limit": ENTROPY_LIMITS[n]} if n in ENTROPY_LIMITS else {}) for n in PLUGINS]
    filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in FILTERS]
    found = SecretsCollection()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.txt"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with transient_settings({"plugins_used": plugins, "filters_used": filters}):
            found.scan_file(str(path))
    return {secret.secret_value for _, secret in found if secret.secret_value}


def _is_digest(text: str, value: str) -> bool:
    """The original looks at the last line before the value, which for a value that begins a line is the line above."""
    if len(value) not in DIGEST_LENGTHS or value not in text:  # the scanner may report what the text spells otherwise
        return False
    lines = text[: text.index(value)].splitlines()
    return bool(lines) and any(word in lines[-1].lower() for word in DIGEST_WORDS)


def _mentions_hashes(text: str) -> bool:
    limit = int(HASH_SHARE * text.count("\n"))
    lowered = text.lower()
    return lowered.count("sha") > limit or lowered.count("hash") > limit
