"""Keys of the default detectors. Secrets are put together here, so that no scanner takes this file for a leak."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
import zlib

import pytest

from kringle.pii import findings
from kringle.pii.format_checks import bech32_checksum, github_checksum, grafana_checksum
from kringle.pii.rarity import randomness
from kringle.pii.strings import is_wallet_key

ALNUM = string.ascii_letters + string.digits
URL64 = ALNUM + "-_"
HEX = "0123456789abcdef"
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def draw(alphabet: str, length: int, seed: int = 0) -> str:
    source = random.Random(seed)
    return "".join(source.choice(alphabet) for _ in range(length))


def identifier(seed: int) -> str:
    return str(uuid.UUID(int=random.Random(seed).getrandbits(128), version=4))


def keys(text: str) -> list[tuple[str, str]]:
    data = text.encode()
    return [(f.format, data[f.start : f.end].decode()) for f in findings(data) if f.kind == "key"]


def base62(number: int) -> str:
    return "".join(BASE62[number // 62**place % 62] for place in range(5, -1, -1))


def with_checksum(prefix: str) -> str:
    body = draw(ALNUM, 30)
    return prefix + body + base62(zlib.crc32(body.encode()))


def grafana() -> str:
    head = "glsa_" + draw(ALNUM, 32)
    return f"{head}_{zlib.crc32(head.encode()).to_bytes(4, 'little').hex()}"


def atlassian() -> str:
    head = "ATATT3" + "xFfGF0" + draw(URL64, 160) + "="
    return f"{head}{zlib.crc32(head.encode()):08X}"


def base58_with_checksum(payload: bytes) -> str:
    """BIP 32: base 58 of the payload and the first four bytes of its double SHA-256."""
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    raw = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(raw), ""
    while number:
        number, digit = divmod(number, 58)
        text = digits[digit] + text
    return text


def extended_key() -> str:
    """Version "xprv", depth 0, no parent, index 0, a chain code, a zero byte, a key."""
    source = random.Random(3)
    return base58_with_checksum(
        bytes.fromhex("0488ade4") + bytes(9) + source.randbytes(32) + b"\0" + source.randbytes(32)
    )


def json_web_token() -> str:
    def part(record: dict[str, str]) -> str:
        return base64.urlsafe_b64encode(json.dumps(record).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part({'sub': 'u4711', 'aud': 'shop'})}.{draw(URL64, 43)}"


TOKENS = {
    "aws-access-key-id": "AKIA" + draw(string.ascii_uppercase + "234567", 16),
    "gcp-api-key": "AIza" + draw(URL64, 35),
    "gcp-oauth-secret": "GOCSPX-" + draw(URL64, 28),
    "azure-client-secret": draw(ALNUM, 3) + "8Q~" + draw(ALNUM, 34),
    "azure-devops-token": draw(ALNUM, 76) + "AZDO" + draw(ALNUM, 4),
    "github-token": with_checksum("ghp_"),
    "github-fine-grained-token": "github_pat_" + draw(ALNUM, 22) + "_" + draw(ALNUM, 59),
    "gitlab-token": "glpat-" + draw(URL64, 20),
    "npm-token": with_checksum("npm_"),
    "pypi-token": "pypi-" + "AgEIcHlwaS5vcmc" + draw(URL64, 120),
    "slack-token": "xoxb-" + draw(string.digits, 12) + "-" + draw(string.digits, 13) + "-" + draw(ALNUM, 24),
    "slack-webhook": "https://hooks.slack.com/services/" + "T0CG01O5Z/B0KMNY4KC7N/" + draw(ALNUM, 24),
    "discord-webhook": "https://discord.com/api/webhooks/" + "703573405465514414/" + draw(URL64, 68),
    "stripe-key": "sk_live_" + draw(ALNUM, 24),
    "openai-key": "sk-" + draw(ALNUM, 20) + "T3Blbk" + "FJ" + draw(ALNUM, 20),
    "anthropic-key": "sk-ant-api03-" + draw(URL64, 93) + "AA",
    "huggingface-token": "hf_" + draw(string.ascii_letters, 34),
    "sendgrid-key": "SG." + draw(URL64, 22) + "." + draw(URL64, 43),
    "twilio-key": "SK" + draw(HEX, 32),
    "telegram-bot-token": "4911924003" + ":AA" + draw(URL64, 33),
    "discord-bot-token": base64.b64encode(b"457004612825335557").decode()
    + "."
    + draw(URL64, 6)
    + "."
    + draw(URL64, 38),
    "grafana-service-account-token": grafana(),
    "atlassian-token": atlassian(),
    "json-web-token": json_web_token(),
    "mailchimp-key": draw(HEX, 32) + "-us17",
    "digitalocean-token": "dop_v1_" + draw(HEX, 64),
    "shopify-token": "shpat_" + draw(HEX, 32),
    "databricks-token": "dapi" + draw(HEX, 32),
    "vault-token": "hvs." + draw(URL64, 90),
    "terraform-token": draw(ALNUM, 14) + ".atlasv1." + draw(URL64, 67),
    "encrypted-web-token": base64.urlsafe_b64encode(b'{"alg":"dir","enc":"A256GCM"}').decode().rstrip("=")
    + f"..{draw(URL64, 16, 1)}.{draw(URL64, 120, 2)}.{draw(URL64, 22, 3)}",
    "azure-key": draw(ALNUM + "+/", 76) + "+AS" + "t" + draw(ALNUM, 6) + "==",
    "facebook-token": "EA" + "A" + draw(ALNUM, 180),
    "launchdarkly-key": "sdk-" + identifier(5),
    "sentry-token": "sntrys_" + base64.b64encode(b'{"iat":1690000000.1,"org":"acme"}').decode() + "_" + draw(ALNUM, 43),
    "onepassword-token": "ops_" + "ey" + "J" + draw(ALNUM, 300),
    "openshift-token": "sha256~" + draw(URL64, 43),
    "supabase-token": "sb_secret_" + draw(URL64, 22) + "_" + draw(ALNUM, 8),
    "maxmind-key": draw(ALNUM, 6) + "_" + draw(ALNUM, 29, 1) + "_mmk",
    "grafana-key": "eyJrIjoi" + draw(ALNUM, 80),
    "plaid-token": "access-production-" + identifier(6),
    "zoho-token": f"1000.{draw(HEX, 32)}.{draw(HEX, 32, 1)}",
    "pinecone-key": "pcsk_" + draw(ALNUM, 6) + "_" + draw(ALNUM, 63),
    "polar-token": "polar_oat_" + draw(ALNUM, 43),
    "fly-token": "fm2_" + draw(ALNUM + "+/", 220),
    "aws-bedrock-key": "bedrock-api-key-" + base64.b64encode(b"bedrock.amazonaws.com").decode() + draw(ALNUM, 400),
    "doppler-token": "dp.scim." + draw(ALNUM, 43),
    "clickup-token": "pk_" + draw(string.digits, 8) + "_" + draw(string.ascii_uppercase + string.digits, 32),
    "mailgun-key": f"{draw(HEX, 32)}-{draw(HEX, 8, 1)}-{draw(HEX, 8, 2)}",
    "extended-private-key": extended_key(),
    "newrelic-key": draw(HEX, 36) + "NR" + "AL",
}
MORE = {
    "slack-webhook": "https://hooks.slack.com/workflows/"
    + f"T0CG01O5Z/A0KMNY4KC7N/387264512233445566/{draw(ALNUM, 24)}",
    "discord-webhook": "https://canary.discord.com/api/v10/webhooks/" + "703573405465514414/" + draw(URL64, 68),
    "telegram-bot-token": "491192400" + ":AF" + draw(URL64, 33),
    "stripe-key": "sk_org_live_" + draw(ALNUM, 40),
    "json-web-token": ".".join(
        base64.urlsafe_b64encode(text).decode().rstrip("=")
        for text in (b'{\n  "alg": "HS256",\n  "typ": "JWT"\n}', b'{\r\n "sub": "4711"\n}', draw(ALNUM, 32).encode())
    ),
    "gitlab-token": "glpat-" + draw(URL64, 27) + ".01." + draw("0123456789abcdefghijklmnopqrstuvwxyz", 9),
    "fly-token": "fo1_" + draw(URL64, 43),
    "doppler-token": "dp.st.dev_eu." + draw(ALNUM, 43),
    "openai-key": "sk-proj-" + draw(URL64, 74) + "T3Blbk" + "FJ" + draw(URL64, 74, 1),
    "teams-webhook": "https://acme.webhook.office.com/webhookb2/"
    + f"{identifier(7)}@{identifier(8)}/IncomingWebhook/{draw(HEX, 32)}/{identifier(9)}",
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("frame", ['x = "{}"', "export X={} # old", "call('{}', 1);", "`{}`", r'"\n{}\n"', "see {}."])
def test_formats(name: str, frame: str) -> None:
    assert keys(frame.format(TOKENS[name])) == [(name, TOKENS[name])]


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("frame", ['x = "{}"', "export X={} # old", "`{}`"])
def test_other_forms(name: str, frame: str) -> None:
    assert keys(frame.format(MORE[name])) == [(name, MORE[name])]


def test_a_refresh_token_of_github_is_longer() -> None:
    body = draw(ALNUM, 70)
    token = "ghr_" + body + base62(zlib.crc32(body.encode()))
    assert keys(f'x = "{token}"') == [("github-token", token)]
    assert keys(f'x = "{token[:-1]}-"') == []


@pytest.mark.parametrize("prefix", ["glrtr-", "glwt-"])
def test_other_tokens_of_gitlab(prefix: str) -> None:
    assert keys(f"x = '{prefix}{draw(URL64, 20)}'") == [("gitlab-token", prefix + draw(URL64, 20))]


@pytest.mark.parametrize(
    "name",
    ["github-token", "npm-token", "grafana-service-account-token", "atlassian-token", "extended-private-key"],
)
def test_a_wrong_checksum_is_no_finding(name: str) -> None:
    token = TOKENS[name]
    wrong = token[:20] + ("a" if token[20] != "a" else "b") + token[21:]
    assert keys(f'token = "{wrong}"') == []


def test_checksums_agree_with_published_values() -> None:
    # An expired token that GitHub's engineers gave as an example, BIP 173's vector, age's specification, Bitcoin's wiki
    assert github_checksum(b"ghp_" + b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq17")
    assert bech32_checksum(b"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw")
    assert bech32_checksum(b"AGE-SECRET-KEY-1" + b"GFPYYSJZ" * 6 + b"GFPQ4EGAEX")
    assert is_wallet_key(b"5HueCGU8rMjxEXxiPuD5BDku4MkFqe" + b"Zyd4dZ1jvhTVqvbTLvyTJ")
    assert not bech32_checksum(b"AGE-SECRET-KEY-1" + b"GFPYYSJZ" * 6 + b"GFPQ4EGAEY")
    assert not is_wallet_key(b"5HueCGU8rMjxEXxiPuD5BDku4MkFqe" + b"Zyd4dZ1jvhTVqvbTLvyTK")
    assert not grafana_checksum(b"glsa_" + b"a" * 32 + b"_00000000")


GENERIC = draw(ALNUM, 32, 3)
HEXADECIMAL = draw(HEX, 40, 4)
PASSWORD = "xK9#mP2$" + "vL8!qw"


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "{}"',
        "const apiKey = '{}';",
        '{{"apiKey": "{}"}}',
        "config['client_secret'] = '{}'",
        'private static final String SECRET = "{}";',
        'setAccessToken("{}")',
        'token: str = "{}"',
        'os.environ.setdefault("API_KEY", "{}")',
        'const token = process.env.TOKEN || "{}";',
        "https://corp.org/x?access_token={}&page=2",
        "export AUTH_TOKEN={}",
        "Authorization: Bearer {}",
        'password = b"{}"',
        'SIGNING_KEY = bytes.fromhex("{}")',
    ],
)
@pytest.mark.parametrize("value", [GENERIC, HEXADECIMAL])
def test_values_of_secret_names(text: str, value: str) -> None:
    assert [found for _, found in keys(text.format(value))] == [value]


@pytest.mark.parametrize(
    "text", ['password = "{}"', "pass: '{}'", 'BIND_PW = "{}"', 'new PasswordAuthentication("jane", "{}")', 'pwd="{}"']
)
def test_random_passwords(text: str) -> None:
    assert [found for _, found in keys(text.format(PASSWORD))] == [PASSWORD]


@pytest.mark.parametrize(
    "text",
    [
        # placeholders and templates
        *(
            'api_key = "your-api-key-here"',
            'token = "xxxxxxxxxxxxxxxxxxxx"',
            'secret = "changeme123"',
            'token = "${TOKEN}"',
        ),
        *('password = "P@55w0rd!"', 'token="{{ token }}"', 'secret = "%(secret)s"', 'key = "AKIAIOSFODNN7EXAMPLE"'),
        *('api_key = "0123456789abcdef0123456789abcdef"', 'secret = "abcdefghijklmnopqrstuvwxyz0123456789"'),
        # look-ups, names and words
        *(
            'token = os.environ["GITHUB_TOKEN_2"]',
            'api_key = getenv("S3_API_KEY2")',
            'password = getpass("Password2: ")',
        ),
        *('secretName = "prod/db-credentials-2"', 'tokenizer = "layoutlmv3-base"', 'token_type = "Zq3vT9xLwB7kPn2sQ"'),
        *('password_hash = "Zq3vT9xLwB7kPn2sQhVx"', 'token = "CKM_BLAKE2B_256_KEY_GEN"', "secret: 'us-east-2'"),
        *('from_pretrained("meta-phi/Phi-2-7b-hf")', "for shape in shares: token = shape.share2"),
        # digests, identifiers, encoded things
        *(
            f'sha256 = "{draw(HEX, 64)}"',
            f'commit = "{draw(HEX, 40)}"',
            f'"md5": "{draw(HEX, 32)}"',
            f"etag: '{draw(HEX, 32)}'",
        ),
        *('request_id = "a321f9ec-3962-48c5-854f-f1d3949fdbf5"', f'trace = "{draw(HEX, 32)}"'),
        *(f'integrity: "sha512-{draw(ALNUM, 86)}=="', f'src="data:image/png;base64,{draw(ALNUM, 200)}"'),
        *(
            f'secret = "{base64.b64encode(b"hello there, this is text").decode()}"',
            f'x = ["{draw(ALNUM, 60)}", "{GENERIC}"]',
        ),
        *(
            f'ssh_key = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ{draw(ALNUM, 80)}"',
            'id = "12345-abc.apps.googleusercontent.com"',
        ),
        # logins without a secret
        *(
            "amqp://guest:guest@host/",
            "postgres://user:password@db/x",
            "https://user:${PASSWORD}@host/",
            "http://a.b/x:y@z",
        ),
    ],
)
def test_not_seen(text: str) -> None:
    assert keys(text) == []


def test_the_password_of_a_url_alone() -> None:
    assert keys("postgres://app:xK9mP2vL8q@db.corp.org:5432/x") == [("url-password", "xK9mP2vL8q")]
    assert keys("redis://:p%40xK9mP2vL8q@cache/0") == [("url-password", "p%40xK9mP2vL8q")]


def test_basic_credentials() -> None:
    value = base64.b64encode(b"jane:" + PASSWORD.encode()).decode()
    assert keys(f"Authorization: Basic {value}") == [("basic-credentials", value)]
    documented = base64.b64encode(b"Aladdin:open sesame").decode()
    assert keys(f"Authorization: Basic {documented}") == []


def pem(join: str) -> str:
    body = [draw(ALNUM + "+/", 64, seed) for seed in range(10)]
    return join.join(["-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----"])


@pytest.mark.parametrize("join", ["\n", "\r\n    ", "\\n", '\\n" +\n    "', '",\n  "', "\n * "])
def test_private_keys(join: str) -> None:
    assert keys(f'KEY = "{pem(join)}"') == [("private-key", pem(join))]


def test_what_is_no_private_key() -> None:
    assert keys(pem("\n").replace("PRIVATE", "PUBLIC")) == []
    assert keys("-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----") == []
    assert keys("-----BEGIN RSA PRIVATE KEY-----\n" + "x" * 400 + "\n-----END RSA PRIVATE KEY-----") == []
    assert keys("if line == '-----BEGIN RSA PRIVATE KEY-----': pass") == []


def test_a_wallet_key_proves_itself() -> None:
    value = "5HueCGU8rMjxEXxiPuD5BDku4MkFqe" + "Zyd4dZ1jvhTVqvbTLvyTJ"
    assert keys(f"const x = '{value}'") == [("bitcoin-private-key", value)]


def test_signed_links() -> None:
    signature = draw(ALNUM, 40) + "%2Fa%3D"
    assert keys(f"?sv=2021-06-08&se=2025-01-01&sig={signature}") == [("azure-shared-access-signature", signature)]
    assert keys(f"?page=2&sig={signature}") == []


def test_randomness_tells_names_from_random_strings() -> None:
    names = ["getUserName", "MODEL_FOR_AUDIO_XVECTOR_MAPPING", "correct-horse-battery-staple", "HTTP_X_FORWARDED_FOR"]
    assert all(randomness(name.encode()) < 0 for name in names)
    random_strings = [draw(ALNUM, 32, seed).encode() for seed in range(200)]
    assert sum(randomness(value) > 7 for value in random_strings) >= 196
    assert all(randomness(draw(HEX, 32, seed).encode()) > 7 for seed in range(200))
