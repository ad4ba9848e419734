"""Secrets in the files and commands that set machines up: Terraform, YAML, Kubernetes, shells, PowerShell, PuTTY.

Beside them, what stands in such places without being one.

Values are drawn here, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections.abc import Callable

import pytest

from kringle.pii import findings, redact

ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"
DRAW = random.Random(41)


@pytest.fixture(autouse=True)
def drawn_anew(request: pytest.FixtureRequest) -> None:
    """Each case draws the same values, whichever ran before it."""
    DRAW.seed(request.node.name)


def draw(alphabet: str, length: int) -> str:
    return "".join(DRAW.choices(alphabet, k=length))


def password() -> str:
    """Letters of both cases, digits and a mark, a letter first: 14 characters."""
    parts = list(draw(ALNUM, 7) + draw(string.ascii_lowercase, 2) + draw(string.ascii_uppercase, 2) + draw("!#%^*", 1))
    DRAW.shuffle(parts)
    return draw(string.ascii_letters, 1) + "".join(parts) + draw(string.digits, 1)


def letters() -> str:
    parts = draw(string.ascii_lowercase, 5) + draw(string.ascii_uppercase, 5) + draw(string.digits, 6)
    return "".join(DRAW.sample(parts, len(parts)))


def token() -> str:
    return draw(ALNUM, 32)


def identifier() -> str:
    return str(uuid.UUID(int=DRAW.getrandbits(128), version=4))


def octets() -> str:
    return base64.b64encode(DRAW.randbytes(32)).decode()


def encoded() -> str:
    return base64.b64encode(password().encode()).decode()


def registry() -> str:
    logins = {"auths": {"registry.corp.io": {"username": "ci", "password": letters()}}}
    return base64.b64encode(json.dumps(logins).encode()).decode()


def salt() -> str:
    """Like those of api.wordpress.org: 64 characters of any kind but quotes and backslashes."""
    return draw(ALNUM + "!@#$%^&*()-_ []{}<>~`+=,.;:/?|", 62) + "+)"


PLACES: list[tuple[str, Callable[[], str]]] = [
    # What a name opens
    ('variable "db_password" {\n  type    = string\n  default = "@"\n}\n', password),
    ('variable "api_key" {\n  description = "Of the shop"\n  sensitive   = true\n\n  default     = "@"\n}\n', token),
    ('"adminPassword": {\n  "value": "@"\n}', password),
    ('"apiKey": {"type": "securestring", "defaultValue": "@"}', token),
    ("password: >-\n  @\nuser: app\n", password),
    ("spec:\n  client_secret: |\n    @\n", token),
    ("api_key: |2- # of the shop\n    @\r\n", token),
    ('<string name="api_key">@</string>', token),
    ("<key>apiKey</key>\n    <string>@</string>", token),
    ("<name>fs.s3a.secret.key</name>\n  <value>@</value>", token),
    ('#define WIFI_PASSWORD "@"\n', password),
    ('#define HOME_PSK  "@"\n', password),
    ('    storePassword "@"\n', password),
    ("ENV DB_PASSWORD @\n", letters),
    ("setx API_KEY @\r\n", token),
    ('const PASSWORD: &str = "@";', password),
    ('char password[32] = "@";', password),
    # Pairs
    ('env:\n- name: SECRET_KEY\n  value: "@"\n', token),
    ("env:\n- name: API_TOKEN\n  value: @\n", identifier),
    ('[{"name": "DB_PASSWORD", "value": "@"}]', password),
    ('[{"value": "@", "name": "DB_PASSWORD"}]', password),
    ('env:\n- value: "@"\n  name: DB_PASSWORD\n', password),
    ('{"key": "access_token", "type": "string", "value": "@"}', token),
    ('[{"ParameterKey": "DBPassword", "ParameterValue": "@"}]', password),
    ('set {\n  name  = "auth.rootPassword"\n  value = "@"\n}\n', password),
    # Commands
    ("mysql -u root -p@ app < x.sql\n", letters),
    ("mysqldump -h db -u root \\\n  -p'@' app > x.sql\n", password),
    ("sshpass -p @ ssh h\n", letters),
    ('run(["sshpass", "-p", "@", "ssh"])', password),
    ("curl -uadmin:@ https://h/x\n", letters),
    ("redis-cli -h cache -a @ ping\n", letters),
    ("PGPASSWORD='@' psql -h db\n", password),
    ("docker login -u ci -p @ registry.corp.io\n", letters),
    ("mongodump -u root -p @ --db x\n", letters),
    ('ldapsearch -x -D "cn=admin" -w @ -b dc=x\n', letters),
    ('sqlcmd -S db -U sa -P "@" -Q x\n', password),
    ("rabbitmqctl add_user ci @\n", letters),
    ("htpasswd -b -c .htpasswd admin @\n", letters),
    ("keytool -genkey -storepass @ -alias x\n", letters),
    ("requirepass @\n", letters),
    ("echo '@' | sudo -S reboot\n", password),
    ('echo "root:@" | chpasswd\n', letters),
    ('echo "@" | docker login -u ci --password-stdin\n', letters),
    ("machine api.corp.io\n  login svc\n  password @\n", letters),
    # PowerShell
    ('$p = ConvertTo-SecureString "@" -AsPlainText -Force\n', password),
    ("$p = ConvertTo-SecureString -AsPlainText -Force -String '@'\n", password),
    ('$p = "@" | ConvertTo-SecureString -AsPlainText -Force\n', password),
    ('New-Object PSCredential("bob", (ConvertTo-SecureString "@" -AsPlainText -Force))\n', password),
    ('New-Object System.Net.NetworkCredential("bob", "@")\n', password),
    ('New-Object System.Net.NetworkCredential -ArgumentList "bob", "@"\n', password),
    ('[System.Net.NetworkCredential]::new("bob", "@", "corp")\n', password),
    # Others
    ("define('AUTH_KEY',         '@');\n", salt),
    ("define( 'NONCE_SALT', '@' );\n", salt),
    ("SECRET_KEY = '@'\n", lambda: draw(string.ascii_lowercase + string.digits + "!@#$%^&*-_=+", 50)),
    ('CREATE USER app IDENTIFIED BY "@";\n', password),
    ('new mysqli("localhost", "root", "@", "shop");\n', password),
    ('new PDO("mysql:host=x", "root", "@");\n', password),
    ('DBI->connect("dbi:mysql:x", "root", "@");\n', password),
    ('WiFi.begin("home", "@");\n', password),
    ("SNYK_TOKEN=@\n", identifier),
    ('dbpassword = "@"\n', password),
    ("kind: Secret\nmetadata:\n  name: x\ndata:\n  signer: @\n", octets),
    ("kind: Secret\ndata:\n  user: YWRtaW4=\n  db.conn: @\n", encoded),
    ("apiVersion: v1\ndata:\n  signer: @\nkind: Secret\nmetadata:\n  name: x\n", octets),
    ('kind: Secret\nstringData:\n  # the key\n\n  signer: "@"\n', token),
    ('{"apiVersion": "v1", "kind": "Secret", "data": {"user": "YWRtaW4=", "signer": "@"}}', octets),
    ("kind: Secret\ndata:\n  .dockerconfigjson: @\n", registry),
    ("apiVersion: v1\ndata:\n  signer: @\n  # what kind of key\nkind:  Secret\n", octets),
    ("kind: Secret\napiVersion: v1\ndata:\n  signer: @ # of the shop\n", octets),
    ("kind: Secret\nmetadata:\n  ownerReferences:\n  - kind: Deployment\n    name: x\ndata:\n  signer: @\n", octets),
    ("- kind: Secret\n  data:\n    signer: @\n- kind: ConfigMap\n  data:\n    a: b\n", octets),
    ('["htpasswd", "-b", "f", "bob", "@"]', letters),
    ("htpasswd -nbB admin @\n", letters),
    ('{"kty": "EC", "crv": "P-256", "d": "@"}', lambda: draw(ALNUM + "-_", 43)),
]


@pytest.mark.parametrize(("template", "value"), PLACES, ids=[template for template, _ in PLACES])
def test_found_where_it_stands(template: str, value: Callable[[], str]) -> None:
    """Nine of ten, as values are drawn and some look like something else; the frame stays."""
    seen = 0
    for _ in range(20):
        secret = value()
        before, after = template.split("@")
        data = f"\n{before}{secret}{after}\nz = 1\n".encode()
        start = len(before) + 1
        found = [(f.start, f.end) for f in findings(data) if f.kind == "key"]
        seen += (start, start + len(secret)) in found
        redacted, _ = redact(data, b"key")
        assert findings(redacted) == []
        assert len(redacted) == len(data)
        assert redacted.startswith(f"\n{before}".encode()[:start])
        assert redacted.endswith(f"{after}\nz = 1\n".encode())
    assert seen >= 18


@pytest.mark.parametrize(
    "text",
    [
        # What a name opens
        'variable "db_password" {\n  default = ""\n}\nvariable "kind" {\n  default = "db.t3.micro42"\n}\n',
        'variable "db_password" {\n  default = "chatbot-password"\n  description = "Password for the database"\n}\n',
        'variable "db_password" {\n  type = string\n  sensitive = true\n}\n\nlocals { default = "xK9mP2vL8qR4tB7w" }\n',
        'class Token {\n  value = "xK9mP2vL8qR4tB7w"\n}\n',
        "password: |\n  The password of the user\n",
        "token: |\n  {{ .Values.token }}\n",
        "secret: >\n  projects/my-proj/secrets/db-pass-1\n",
        "secrets: |\n  TOKEN=${{ secrets.TOKEN_42 }}\n",
        '<string name="password_hint">Mindestens 8 Zeichen</string>',
        '<string name="api_key">@string/google_api_key_2</string>',
        '#define TOKEN_NAME "xK9mP2vL8qR4tB7w"\n',
        'enter the password "xK9mP2vL8qR4tB7w" here\n',
        "ENV DB_PASSWORD $DB_PASSWORD_FILE2\n",
        # Pairs
        "- name: SECRET_KEY\n  valueFrom:\n    secretKeyRef:\n      name: brant-secrets2\n      key: secret-key\n",
        "- name: SECRET_KEY\n  value: super-secret-value\n",
        "- name: PLAIN\n  value: xK9mP2vL8qR4tB7w\n- name: DB_PASSWORD\n  valueFrom: x\n",
        '[{"name": "revision", "value": "xK9mP2vL8qR4tB7w"}, {"name": "DB_PASSWORD"}]',
        "name: SECRET_KEY,\n value: secret42,",
        # Commands
        "mysql -uroot -p -e 'CREATE DATABASE note_db CHARACTER SET utf8mb4'\n",
        "mysql -h db.prod -u app -p app_production_v2\n",
        "mysql -uroot -p${dbpass} -e 'drop database if exists web'\n",
        "mysql -u$$MYSQL_USER -p$$MYSQL_PASSWORD2 $$MYSQL_DATABASE\n",
        "mysql -uroot -p123456 accessguard\n",
        "sshpass -p ${REMOTE_PASSWD2} ssh -p 2222 h\n",
        'sshpass -p "$MASTER_SSH_PASS" ssh $U@$H -p $MASTER_PORT2\n',
        "sshpass -p YourPaSsWoRd1 ssh -q h\n",
        "redis-cli -a foobared\n",
        'redis-cli -a "$$(cat /run/secrets/platform_redis_password2)" ping\n',
        "docker login -u developer -p $(oc whoami -t) 172.30.1.1:5000\n",
        "docker run -p 8080:80 image42\n",
        'curl -u "${NAME}:${PASSWORD_2}" https://h/x\n',
        "echo $DOCKER_PASSWORD2 | docker login -u $U --password-stdin\n",
        'echo "Password123!" | sudo -S reboot\n',
        "echo xK9mP2vL8qR4tB7w | sha256sum\n",
        # PowerShell
        'ConvertTo-SecureString "P@ssw0rd1" -AsPlainText -Force\n',
        'ConvertTo-SecureString "<Put some strong password here>" -AsPlainText -Force\n',
        "ConvertTo-SecureString $env:Password2 -AsPlainText -Force\n",
        "ConvertTo-SecureString -String $xK9mP2vL8q -Key (3..16)\n",
        "[NetworkCredential]::new($user, $password2)\n",
        # Manifests
        "kind: Secret\ndata:\n  username: YWRtaW5pc3RyYXRvcjQy\n  host: ZGIxLmNvcnAuaW8=\n",
        "kind: Secret\ndata:\n  keystore.jks: ${BASE64_ENCODED_KEYSTORE}\n  greeting: aGVsbG8sIHdvcmxkIQ==\n",
        "kind: Secret\nstringData:\n  note: see-the-wiki-for-more-42\n  LEVEL: debug\n",
        "kind: ConfigMap\ndata:\n  signer: D0jUlvn+jhMucldcmQfo7G3dlG2YsnLBEpNwRil5sNo=\n",
        "kind: SecretStore\ndata:\n  signer: D0jUlvn+jhMucldcmQfo7G3dlG2YsnLBEpNwRil5sNo=\n",
        "- kind: Secret\n  x: y\n- kind: Widget\n  data:\n    signer: D0jUlvn+jhMucldcmQfo7G3dlG2YsnLBEpNwRil5sNo=\n",
        "kind: Secret\nx: y\nkind: Widget\ndata:\n  signer: D0jUlvn+jhMucldcmQfo7G3dlG2YsnLBEpNwRil5sNo=\n",
        "kind: Secret\nx: y\n---\nkind: Widget\ndata:\n  signer: D0jUlvn+jhMucldcmQfo7G3dlG2YsnLBEpNwRil5sNo=\n",
        # Others
        "define('AUTH_KEY', 'put your unique phrase here');\n",
        "define('AUTH_KEY', 'a sentence of more than sixty characters that somebody wrote here');\n",
        "ftp://user:pass1@ftp.corp.io/x",
        "http://bob:hunter2@example.com/x",
        "https://me:hunter2@localhost.test/x",
        "http://svc:${PASS2}@ftp.corp.io/x",
        "http://jane:jane42@host.name/x",
        "s3://bucket:k3y@corp.io",
        'hash = "$2b$12$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"',
        # RFC 7517, appendix A.2
        '{"kty":"EC", "crv":"P-256", "d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}',
        '{"d": "xK9mP2vL8qR4tB7wxK9mP2vL8qR4tB7wxK9mP2vL8q_"}',
        "Private-Lines: 1\n" + "A" * 64 + "\nPrivate-MAC: x\n",
    ],
)
def test_not_a_secret(text: str) -> None:
    assert findings(text.encode()) == []


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("ftp://deploy:xk7@ftp.corp.io/x", "xk7"),
        ("ftp://deploy:hunter2@ftp.corp.io/x", "hunter2"),
        ("http://svc:gx42@cam.corp.io:8080/x", "gx42"),
        ("sftp://backup:sunflower42@files.corp.io/x", "sunflower42"),
        ("mysql -u root -pS3cret app", "S3cret"),
        ("mysql -uroot -pMinMax2026! app", "MinMax2026!"),
        ("sshpass -p 'i_l0ve_b1kes!' ssh h", "i_l0ve_b1kes!"),
        ('ConvertTo-SecureString "Welkom01!" -AsPlainText -Force', "Welkom01!"),
    ],
)
def test_passwords_that_people_choose(text: str, secret: str) -> None:
    data = text.encode()
    assert [data[f.start : f.end].decode() for f in findings(data)] == [secret]
    redacted, _ = redact(data, b"key")
    assert secret not in redacted.decode()
    assert findings(redacted) == []


def test_the_token_beside_an_account_of_twilio() -> None:
    account, secret = "AC" + draw("0123456789abcdef", 32), draw("0123456789abcdef", 32)
    data = f"client = Client('{account}', '{secret}')".encode()
    assert [data[f.start : f.end].decode() for f in findings(data)] == [account, secret]


def putty(end: str) -> tuple[str, str, str]:
    """A key of PuTTY's, format 3: what precedes its private half, that half, and what follows."""
    public, private = [[draw(BASE64, 64), draw(BASE64, 30) + "=="] for _ in range(2)]
    head = ["PuTTY-User-Key-File-3: ssh-ed25519", "Encryption: none", "Comment: ci", "Public-Lines: 2", *public]
    mac = "Private-MAC: " + draw("0123456789abcdef", 64)
    return end.join([*head, "Private-Lines: 2", ""]), end.join(private), end + mac


@pytest.mark.parametrize("end", ["\n", "\r\n", "\\n", "\\r\\n", "\n    "])
def test_private_half_of_a_putty_key(end: str) -> None:
    head, private, tail = putty(end)
    data = f'"{head}{private}{tail}"'.encode()
    assert [data[f.start : f.end].decode() for f in findings(data)] == [private]
    redacted, _ = redact(data, b"key")
    assert findings(redacted) == []
    after = redacted.decode()
    assert after.startswith(f'"{head}')
    assert after.endswith(f'{tail}"')
    changed = after[len(head) + 1 : len(head) + 1 + len(private)]
    assert [len(line) for line in changed.split(end)] == [64, 32]
    assert changed.endswith("==")
    assert not any(a == b for a, b in zip(changed.split(end), private.split(end), strict=True))


def test_keys_in_other_armour() -> None:
    static = "\n".join(draw("0123456789abcdef", 32) for _ in range(16))
    block = f"-----BEGIN OpenVPN Static key V1-----\n{static}\n-----END OpenVPN Static key V1-----"
    assert [f.format for f in findings(block.encode())] == ["private-key"]
    redacted, _ = redact(block.encode(), b"key")
    assert re.fullmatch(rb"-----BEGIN OpenVPN Static key V1-----\n(?:[0-9a-f]{32}\n){16}-----END .*-----", redacted)
    body = "\n".join(draw(BASE64, 70) for _ in range(8))
    mark = "SSH2 ENCRYPTED PRIVATE KEY"
    block = f'---- BEGIN {mark} ----\nComment: "rsa of ci"\n{body}\n---- END {mark} ----'
    assert [(f.format, f.end - f.start) for f in findings(block.encode())] == [("private-key", len(block))]
    assert b'\nComment: "rsa of ci"\n' in redact(block.encode(), b"key")[0]


def test_a_block_of_several_lines_is_redacted_to_its_end() -> None:
    lines = [*(draw(BASE64, 44) for _ in range(3)), draw(BASE64, 10) + "=="]
    text = "signing_key: |\n" + "".join(f"  {line}\n" for line in lines) + "name: x\n"
    redacted, found = redact(text.encode(), b"key")
    assert len(found) == 1
    assert not any(line in redacted.decode() for line in lines)
    assert redacted.startswith(b"signing_key: |\n  ")
    assert redacted.endswith(b"\nname: x\n")


@pytest.mark.parametrize(
    "hashed",
    [
        "$apr1$" + draw(ALNUM, 8) + "$" + draw(ALNUM + "./", 22),
        "$2y$05$" + draw(ALNUM + "./", 53),
        "$6$" + draw(ALNUM, 16) + "$" + draw(ALNUM + "./", 86),
        "{SHA}" + draw(BASE64, 27) + "=",
    ],
)
def test_hashed_passwords_of_a_system(hashed: str) -> None:
    for line in (f"bob:{hashed}\n", f"x:y\nbob:{hashed}:18000:0:99999:7:::\n"):
        redacted, found = redact(line.encode(), b"key")
        assert [f.format for f in found] == ["password-hash"]
        assert redacted.decode().startswith(line[: line.index(hashed) + hashed.rindex("$" if "$" in hashed else "}")])
        assert findings(redacted) == []
    assert findings(f'check("bob", "{hashed}")'.encode()) == []


def test_every_private_part_of_the_longest_json_web_key() -> None:
    """RSA of 8,192 bits: the type comes first, and the last part 5,500 bytes behind it."""
    sizes = {"n": 1366, "d": 1366, "p": 683, "q": 683, "dp": 683, "dq": 683, "qi": 683}
    parts = {name: draw(ALNUM + "-_", size) for name, size in sizes.items()}
    redacted, found = redact(json.dumps({"kty": "RSA", "e": "AQAB"} | parts).encode(), b"key")
    assert len(found) == 6
    after = json.loads(redacted)
    assert {name for name in parts if after[name] != parts[name]} == parts.keys() - {"n"}
