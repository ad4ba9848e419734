"""Vendors' token formats: what they look like, which bytes are secret, and the checksum where a format has one.

A row gives a literal prefix, the alphabet and the length of what follows. The shapes are those that the vendors
document or that public secret scanners agree on; a checksum is tested wherever its algorithm is published (GitHub and
npm: CRC-32 of the body in base 62; Grafana: CRC-32, little endian, in hexadecimal; Atlassian: CRC-32 in hexadecimal;
age: Bech32). A token whose checksum is wrong cannot work, so it is no finding, and neither is one that is plainly made
up (`lookalikes.made_up`).

Not here: formats without any mark of their own (32 hexadecimal digits of Datadog or Twilio); `assignments` finds those
by the name they are assigned to.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

ALNUM = "A-Za-z0-9"
URL64 = "A-Za-z0-9_-"
BASE64 = "A-Za-z0-9+/"
HEX = "0-9a-f"
ANYHEX = "0-9a-fA-F"
UPPER = "A-Z0-9"
LOWER = "a-z0-9"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

# How sure a format makes us: the checksum agrees; an unmistakable prefix; a prefix that other things share.
CERTAIN, DISTINCT, LIKELY = 0.99, 0.95, 0.8

_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Format(NamedTuple):
    """One token format.

    `anchor` is a cheap pattern of fixed length `anchor_length` that the multi-pattern scan looks for; the token starts
    `lookback` bytes before the anchor. `pattern` matches the whole token; its groups are the secret segments. `check`
    is what a finding must pass; `genuine` (the same where not given) is what a stand-in must fail. A stand-in is drawn
    from `alphabet`; without one, from what the value itself shows.
    """

    name: str
    anchor: bytes
    anchor_length: int
    pattern: re.Pattern[bytes]
    confidence: float
    lookback: tuple[int, ...] = (0,)
    check: Callable[[bytes], bool] | None = None
    genuine: Callable[[bytes], bool] | None = None
    alphabet: str = ""


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
    text, lowered = token.lower(), BECH32.lower().encode()
    human, _, data = text.rpartition(b"1")
    check = 1
    for value in [c >> 5 for c in human] + [0] + [c & 31 for c in human] + [lowered.find(c) for c in data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check == 1


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


def json_payload(token: bytes) -> bool:
    """The second part is a JSON object as well."""
    return isinstance(_json_part(token, 1), dict)


def _json_part(token: bytes, part: int) -> object:
    text = token.split(b".")[part]
    try:
        return json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    except (ValueError, RecursionError):  # the latter for thousands of nested brackets
        return None


def _prefixed(
    name: str,
    prefixes: str,
    alphabet: str,
    least: int,
    most: int | None = None,
    *,
    confidence: float = DISTINCT,
    tail: str = "",
    check: Callable[[bytes], bool] | None = None,
) -> list[Format]:
    """Rows for tokens `prefix` + `least` to `most` characters of `alphabet` + `tail` (a pattern, may hold groups).

    Four characters after the prefix are enough for the anchor: prefixes are rare.
    """
    most = least if most is None else most
    marked = min(4, least)
    rows = []
    for prefix in prefixes.split():
        literal = re.escape(prefix)
        body = rf"([{alphabet}]{{{least},{most}}})" if most > least else rf"([{alphabet}]{{{least}}})"
        end = "" if tail else rf"(?![{alphabet}])"
        pattern = re.compile(f"{literal}{body}{tail}{end}".encode())
        anchor = f"{literal}[{alphabet}]{{{marked}}}".encode()
        rows.append(Format(name, anchor, len(prefix) + marked, pattern, confidence, check=check))
    return rows


def _inner(name: str, lookback: tuple[int, ...], anchor: str, length: int, pattern: str, confidence: float) -> Format:
    """A row for a token whose mark lies `lookback` bytes inside it."""
    return Format(name, anchor.encode(), length, re.compile(pattern.encode()), confidence, lookback)


def _checked(row: Format, check: Callable[[bytes], bool]) -> Format:
    return row._replace(check=check)


FORMATS: tuple[Format, ...] = (
    # Clouds
    *(row._replace(genuine=aws_base32) for row in _prefixed("aws-access-key-id", "AKIA ASIA ABIA ACCA", UPPER, 16)),
    *_prefixed("aws-bedrock-key", "ABSK", BASE64, 109, 269, tail="={0,2}"),
    *_prefixed("gcp-api-key", "AIza", URL64, 35),
    *_prefixed("gcp-oauth-secret", "GOCSPX-", URL64, 28),
    *_prefixed("gcp-access-token", "ya29.", URL64, 30, 1024),
    *_prefixed("gcp-refresh-token", "1//0", URL64, 38, 200),
    _inner(
        "azure-client-secret",
        (4,),
        "Q~[A-Za-z0-9_~.-]{8}",
        10,
        r"([A-Za-z0-9_~.]{3})[0-9]Q~([A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~-])",
        DISTINCT,
    ),
    _inner(
        "azure-devops-token",
        (76,),
        "AZDO[A-Za-z0-9]{4}",
        8,
        r"([A-Za-z0-9]{76})AZDO([A-Za-z0-9]{4})(?![A-Za-z0-9])",
        DISTINCT,
    ),
    _inner(
        "azure-key",
        (52,),
        "JQQJ9[9D][A-Za-z0-9]{4}",
        10,
        r"([A-Za-z0-9]{52})JQQJ9[9D]([A-Za-z0-9]{26})(?![A-Za-z0-9])",
        DISTINCT,
    ),
    *_prefixed("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", HEX, 64),
    *_prefixed("alibaba-access-key-id", "LTAI", ALNUM, 12, 20, confidence=LIKELY),
    *_prefixed("tencent-secret-id", "AKID", ALNUM, 32, confidence=LIKELY),
    *_prefixed("yandex-api-key", "AQVN", URL64, 35, 38, confidence=LIKELY),
    *_prefixed("heroku-key", "HRKU-AA", URL64, 58),
    *_prefixed("cloudflare-origin-key", "v1.0-", HEX, 24, tail="-([0-9a-f]{146})"),
    *_prefixed("vault-token", "hvs. hvb. hvr.", URL64, 24, 300),
    *_prefixed("doppler-token", "dp.pt. dp.st. dp.ct. dp.sa.", r"A-Za-z0-9_.-", 40, 60),
    *_prefixed("pulumi-token", "pul-", HEX, 40),
    *_prefixed("tailscale-key", "tskey-auth- tskey-api- tskey-client-", ALNUM, 8, 24, tail="-([A-Za-z0-9]{20,40})"),
    _inner(
        "terraform-token",
        (14,),
        r"\.atlasv1\.",
        9,
        r"([A-Za-z0-9]{14})\.atlasv1\.([A-Za-z0-9_-]{60,70})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *_prefixed("supabase-token", "sbp_", HEX, 40),
    *_prefixed("planetscale-token", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"A-Za-z0-9_.-", 32, 64),
    *_prefixed("netlify-token", "nfp_", ALNUM, 36),
    *_prefixed("databricks-token", "dapi", HEX, 32),
    *(
        row._replace(alphabet=BASE32)
        for row in _prefixed("dynatrace-token", "dt0c01. dt0s01.", "A-Z2-7", 24, tail=r"\.([A-Z2-7]{64})")
    ),
    # Code hosting and packages
    *_prefixed("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", ALNUM, 36, confidence=CERTAIN, check=github_checksum),
    *_prefixed("github-fine-grained-token", "github_pat_", ALNUM, 22, tail="_([A-Za-z0-9]{59})(?![A-Za-z0-9])"),
    *_prefixed(
        "gitlab-token",
        "glpat- gldt- glrt- glft- glsoat- glffct- glimt- gloas-",
        URL64,
        20,
        300,
        tail=r"(\.[0-9a-z]{2}\.[0-9a-z]{9})?",
    ),
    *_prefixed("gitlab-trigger-token", "glptt-", HEX, 40),
    *_prefixed("gitlab-job-token", "glcbt-", ALNUM, 1, 5, tail=r"_([A-Za-z0-9_-]{20,64})"),
    *_prefixed("gitlab-agent-token", "glagent-", URL64, 50, 64),
    *_prefixed("gitlab-runner-token", "GR1348941", URL64, 20),
    *_prefixed("npm-token", "npm_", ALNUM, 36, confidence=CERTAIN, check=github_checksum),
    *_prefixed("pypi-token", "pypi-AgEIcHlwaS5vcmc pypi-AgENdGVzdC5weXBpLm9yZw", URL64, 50, 1000),
    *_prefixed("rubygems-key", "rubygems_", HEX, 48),
    *_prefixed("crates-token", "cio", ALNUM, 32, confidence=LIKELY),
    *_prefixed("nuget-key", "oy2", LOWER, 43, confidence=LIKELY),
    *_prefixed("clojars-token", "CLOJARS_", LOWER, 60),
    *_prefixed("docker-token", "dckr_pat_ dckr_oat_", URL64, 27, 32),
    *_prefixed("artifactory-key", "AKCp", ALNUM, 69),
    *_prefixed("artifactory-reference-token", "cmVmdGtuOj", ALNUM, 54),
    *_prefixed(
        "atlassian-token", "ATATT3 ATCTT3", r"A-Za-z0-9_=-", 100, 300, confidence=CERTAIN, check=atlassian_checksum
    ),
    *_prefixed("bitbucket-app-password", "ATBB", ALNUM, 32, confidence=CERTAIN, check=atlassian_checksum),
    *_prefixed("circleci-token", "CCIPAT_", ALNUM, 22, tail="_([0-9a-f]{40})"),
    *_prefixed("buildkite-token", "bkua_", HEX, 40),
    *_prefixed("sonarqube-token", "sqp_ squ_ sqa_", HEX, 40),
    *_prefixed("sentry-token", "sntryu_", HEX, 64),
    *_prefixed("postman-key", "PMAK-", HEX, 24, tail="-([0-9a-f]{34})"),
    *_prefixed("readme-key", "rdme_", LOWER, 70),
    *_prefixed("prefect-key", "pnu_", ALNUM, 36),
    # Payment and commerce
    *_prefixed("stripe-key", "sk_live_ rk_live_ sk_test_ rk_test_", ALNUM, 16, 247),
    *_prefixed("stripe-webhook-secret", "whsec_", r"A-Za-z0-9+/", 32, 64, tail="={0,2}"),
    *_prefixed("square-token", "sq0atp-", URL64, 22),
    *_prefixed("square-secret", "sq0csp-", URL64, 43),
    *_prefixed("square-token", "EAAA", URL64, 60, confidence=LIKELY),
    *_prefixed("shopify-token", "shpat_ shpca_ shppa_ shpss_", ANYHEX, 32),
    *_prefixed("braintree-token", "access_token$production$", LOWER, 16, tail=r"\$([0-9a-f]{32})"),
    *_prefixed("flutterwave-key", "FLWSECK- FLWSECK_TEST-", ANYHEX, 32, tail="-X"),
    *_prefixed("shippo-token", "shippo_live_ shippo_test_", HEX, 40),
    *_prefixed("easypost-key", "EZAK EZTK", ALNUM, 54),
    # Messages and mail
    *_prefixed("slack-token", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxc- xoxd-", "A-Za-z0-9%-", 20, 255),
    *_prefixed("slack-app-token", "xapp-", "A-Za-z0-9-", 50, 255),
    *_prefixed("slack-configuration-token", "xoxe.xoxp- xoxe.xoxb-", "A-Za-z0-9-", 50, 255),
    *_prefixed(
        "slack-webhook",
        "https://hooks.slack.com/services/",
        UPPER,
        8,
        14,
        tail="/([A-Z0-9]{8,14})/([A-Za-z0-9]{20,32})(?![A-Za-z0-9])",
    ),
    *_prefixed(
        "discord-webhook",
        "https://discord.com/api/webhooks/ https://discordapp.com/api/webhooks/",
        "0-9",
        17,
        20,
        tail="/([A-Za-z0-9_-]{60,80})(?![A-Za-z0-9_-])",
    ),
    _checked(
        _inner(
            "discord-bot-token",
            (24, 25, 26, 28, 23),
            r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}",
            35,
            r"([A-Za-z0-9_-]{23,28})\.([A-Za-z0-9_-]{6})\.([A-Za-z0-9_-]{27,38})(?![A-Za-z0-9_-])",
            DISTINCT,
        ),
        discord_id,
    ),
    _inner(
        "telegram-bot-token",
        (10, 9, 8),
        ":AA[A-Za-z0-9_-]{33}",
        36,
        r"([0-9]{8,10}):AA([A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *_prefixed("twilio-key", "SK", HEX, 32),
    *_prefixed("twilio-account-sid", "AC", HEX, 32),
    _inner(
        "firebase-server-key",
        (11,),
        ":APA91b",
        7,
        r"([A-Za-z0-9_-]{11}):APA91b([A-Za-z0-9_-]{134})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *_prefixed("sendgrid-key", "SG.", URL64, 22, tail=r"\.([A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    *_prefixed("brevo-key", "xkeysib-", HEX, 64, tail="-([A-Za-z0-9]{16})"),
    *_prefixed("mailgun-key", "key-", HEX, 32, confidence=LIKELY),
    _inner("mailchimp-key", (32,), "-us[0-9]", 4, r"([0-9a-f]{32})-us[0-9]{1,2}(?![0-9a-z])", DISTINCT),
    *_prefixed("facebook-token", "EAACEdEose0cBA", ALNUM, 60, 300),
    # Models
    *_prefixed("openai-key", "sk-", ALNUM, 20, tail="T3BlbkFJ([A-Za-z0-9]{20})(?![A-Za-z0-9])"),
    *_prefixed("openai-key", "sk-proj- sk-svcacct- sk-admin- sk-None-", URL64, 40, 200),
    *_prefixed("anthropic-key", "sk-ant-api03- sk-ant-admin01- sk-ant-oat01- sk-ant-sid01-", URL64, 80, 120),
    *_prefixed("huggingface-token", "hf_ api_org_", ALNUM, 34),
    *_prefixed("openrouter-key", "sk-or-v1-", HEX, 64),
    *_prefixed("groq-key", "gsk_", ALNUM, 52),
    *_prefixed("replicate-token", "r8_", ALNUM, 37),
    *_prefixed("perplexity-key", "pplx-", ALNUM, 48),
    *_prefixed("xai-key", "xai-", ALNUM, 80),
    *_prefixed("nvidia-key", "nvapi-", URL64, 64),
    *_prefixed("langsmith-key", "lsv2_pt_ lsv2_sk_", HEX, 32, tail="_([0-9a-f]{10})"),
    # Work and observation
    *_prefixed(
        "grafana-service-account-token",
        "glsa_",
        ALNUM,
        32,
        tail="_([0-9a-fA-F]{8})(?![0-9a-zA-Z])",
        confidence=CERTAIN,
        check=grafana_checksum,
    ),
    *_prefixed("grafana-cloud-token", "glc_", BASE64, 32, 400, tail="={0,2}"),
    *_prefixed("newrelic-key", "NRAK-", UPPER, 27),
    *_prefixed("linear-key", "lin_api_", ALNUM, 40),
    *_prefixed("notion-token", "ntn_", ALNUM, 46),
    *_prefixed("notion-token", "secret_", ALNUM, 43),
    *_prefixed("airtable-token", "pat", ALNUM, 14, tail=r"\.([0-9a-f]{64})"),
    *_prefixed("figma-token", "figd_", URL64, 40),
    *_prefixed("contentful-token", "CFPAT-", URL64, 43),
    *_prefixed(
        "hubspot-token", "pat-na1- pat-eu1-", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"
    ),
    *_prefixed("typeform-token", "tfp_", URL64, 40, 60),
    *_prefixed("dropbox-token", "sl.", URL64, 130, 300),
    *_prefixed("adafruit-key", "aio_", ALNUM, 28),
    *_prefixed("mapbox-secret-token", "sk.eyJ", URL64, 60, 200, tail=r"\.([A-Za-z0-9_-]{22})"),
    *(
        row._replace(check=percent_encoded, genuine=unknown)
        for row in _prefixed("twitter-bearer-token", "AAAAAAAAAAAAAAAAAAAAA", "A-Za-z0-9%", 80, 120, confidence=LIKELY)
    ),
    # Keys
    *(
        row._replace(alphabet=BECH32, check=bech32_checksum)
        for row in _prefixed("age-secret-key", "AGE-SECRET-KEY-1", BECH32, 58, confidence=CERTAIN)
    ),
    _inner(
        "json-web-token",
        (0,),
        "eyJ[A-Za-z0-9_-]{4}",
        7,
        r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ([A-Za-z0-9_-]{5,8000})\.([A-Za-z0-9_-]{20,2000})(?![A-Za-z0-9_-])",
        DISTINCT,
    )._replace(check=json_header, genuine=json_payload),
)
