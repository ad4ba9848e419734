"""Secrets without a format, found by the place where they stand; and what stands in such places without being one.

Values are drawn here, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable

import pytest

from kringle.pii import findings, redact

ALNUM = string.ascii_letters + string.digits
MARKS = "!#$%^*-_+=~"
DRAW = random.Random(20)


def draw(alphabet: str, length: int) -> str:
    return "".join(DRAW.choices(alphabet, k=length))


def password(length: int = 16) -> str:
    """Letters of both cases, digits and a mark, in any order but with a letter first."""
    parts = [draw(string.ascii_lowercase, 2), draw(string.ascii_uppercase, 2), draw(string.digits, 2), draw("!#%^*", 1)]
    rest = list("".join(parts) + draw(ALNUM, length - 8))
    DRAW.shuffle(rest)
    return draw(string.ascii_letters, 1) + "".join(rest)


def letters() -> str:
    parts = draw(string.ascii_lowercase, 5) + draw(string.ascii_uppercase, 5) + draw(string.digits, 6)
    return "".join(DRAW.sample(parts, len(parts)))


def hexadecimal() -> str:
    return draw("0123456789abcdef", 32)


def bytes_in_base64() -> str:
    return base64.b64encode(DRAW.randbytes(30)).decode()


def encoded_login() -> str:
    return base64.b64encode(f"ci-user:{letters()}".encode()).decode()


PLACES: list[tuple[str, Callable[[], str]]] = [
    ("AWS_SECRET_ACCESS_KEY={}\n", bytes_in_base64),
    ('new BasicAWSCredentials("AKIA5HX4VQ2LJ7KPMW3D", "{}")', bytes_in_base64),
    ("require('twilio')('AC1f5a8b3c9d7e2f4a6b8c0d1e3f5a7b9c', '{}')", hexadecimal),
    ("algoliasearch('APPID12345', '{}')", hexadecimal),
    ("//registry.npmjs.org/:_authToken={}\n", lambda: str(uuid.UUID(int=DRAW.getrandbits(128), version=4))),
    ("//nexus.corp.io/npm/:_auth={}\n", encoded_login),
    ('{{"auths": {{"docker.corp.io": {{"auth": "{}"}}}}}}', encoded_login),
    ("curl -H 'Authorization: Basic {}' https://x", encoded_login),
    ("APP_KEY=base64:{}\n", bytes_in_base64),
    ("DATABASE_URL=postgres://app:{}@db.corp.io:5432/prod\n", letters),
    ("redis://:{}@cache.corp.io:6379/0", letters),
    ("https://{}@github.com/acme/private.git", hexadecimal),
    ("https://{}:x-oauth-basic@github.com/acme/private.git", hexadecimal),
    ("jdbc:mysql://db.corp.io:3306/app?user=app&password={}", letters),
    ("jdbc:oracle:thin:scott/{}@//db.corp.io:1521/orcl", letters),
    ('getConnection("jdbc:postgresql://db/app", "app", "{}")', password),
    ("Server=db;User Id=sa;Password={};Encrypt=true", letters),
    ("DB_PASSWORD={}\n", password),
    ("requests.get(url, auth=('svc-deploy', '{}'))", password),
    ("HTTPBasicAuth('svc-deploy', '{}')", password),
    ("smtp.login('mailer@corp.io', '{}')", password),
    ('new UsernamePasswordCredentials("svc", "{}")', password),
    ('new PasswordAuthentication("mailer", "{}".toCharArray())', password),
    ("auth: {{ user: 'mailer', pass: '{}' }}", password),
    ("$config['db_pass'] = '{}';", password),
    ("CREATE USER app WITH PASSWORD '{}';", password),
    ("CREATE USER 'app'@'%' IDENTIFIED BY '{}';", password),
    ("<password>{}</password>", letters),
    ('<property name="password" value="{}"/>', password),
    ('- name: DB_PASSWORD\n  value: "{}"\n', password),
    ("machine api.corp.io login svc password {}\n", letters),
    ("curl -u admin:{} https://api.corp.io/x", letters),
    ("vault login --password {} x", letters),
    ("sshpass -p '{}' ssh root@host", password),
    ('payload = "{{\\"api_key\\": \\"{}\\"}}"', lambda: draw(ALNUM, 32)),
    ("https://api.corp.io/weather?q=x&appid={}", hexadecimal),
    ("AZURE_PAT={}\n", lambda: draw(string.ascii_lowercase + "234567", 52)),
    ("cipher = Fernet('{}')", lambda: base64.urlsafe_b64encode(DRAW.randbytes(32)).decode()),
    ("accounts: ['{}'], // deployer private key", lambda: "0x" + draw("0123456789abcdef", 64)),
    ("data:\n  password: {}\n", lambda: base64.b64encode(password().encode()).decode()),
]


@pytest.mark.parametrize(("template", "value"), PLACES, ids=[template for template, _ in PLACES])
def test_found_where_it_stands(template: str, value: Callable[[], str]) -> None:
    """Nine of ten, as passwords are drawn and some look like something else; the stand-in keeps the frame."""
    seen = 0
    for _ in range(20):
        secret = value()
        data = f"import x\n{template.format(secret)}\nz = 1\n".encode()
        start = data.index(secret.encode())
        spans = [(f.start, f.end) for f in findings(data) if f.kind == "key"]
        whole = (start, start + len(secret))
        overlaps = [min(s[1], whole[1]) - max(s[0], whole[0]) for s in spans]
        seen += any(o >= 0.8 * len(secret) and o >= 0.8 * (s[1] - s[0]) for o, s in zip(overlaps, spans, strict=True))
        redacted, _ = redact(data, b"key")
        assert findings(redacted) == []
        assert redacted.startswith(b"import x\n")
        assert redacted.endswith(b"\nz = 1\n")
    assert seen >= 18


@pytest.mark.parametrize("secret", ["Copper" + "Tiger77#", "Gr33n" + "Tr33s_81!", "m0nk3y" + "B1ke$9x"])
@pytest.mark.parametrize("frame", ['password = "{}"', "DB_PASSWORD={}\n", "postgres://app:{}@db.corp.io/prod"])
def test_passwords_that_people_choose(frame: str, secret: str) -> None:
    secret = secret.replace("#", "!")  # which begins the fragment of a URL
    text = frame.format(secret)
    assert [text[f.start : f.end] for f in findings(text.encode())] == [secret]


@pytest.mark.parametrize(
    "text",
    [
        "create_vpn_connection('ipsec.1', 'cgw-b4dc3961', 'vgw-8db04f81')",
        "      PLUGGABLE_AUTHENTICATION_MODULES: T1556.003",
        "connect('localhost', 'utf8mb4_general_ci')",
        "signal.connect(sender, 'on_value_changed_42')",
        "login(user, 'remember_me_30_days')",
        "auth = ('username', 'password')",
        "<NextToken>2YgYW55IGNhcm5hbCBwbGVhc3VyZS4</NextToken>",
        "Next page token: eav1OzQB0OM8rLdGXOEsyQWSG",
        "http://cdn.corp.io/calc.html?key=cf-2e351785-e821-450c-9d58-625e1e1ebfb6",
        'md5_of_api_key = "0f343b0931126a20f133d67c2b018a3b"',
        "docker run -u 1000:1000 image",
        "IDENTIFIED BY 'changeme'",
        "<password>${db.password}</password>",
        '<property name="password" value="@database.password@"/>',
        '<input name="password" value="Password123!">',
        "vault login --password $VAULT_PASSWORD",
        "SORT_KEY=createdAtDescending",
        "https://github.com/kubernetes-sigs/controller-runtime-builder",
        "https://2f1b8a0c9d3e4f5a6b7c8d9e0f1a2b3c@o12345.ingest.sentry.io/67",
        "jdbc:oracle:thin:scott/${password}@//db:1521/orcl",
    ],
)
def test_not_a_secret(text: str) -> None:
    assert findings(text.encode()) == []
