"""Values whose place says that they are secrets, without an assignment to a name.

The password among the arguments of a login (`login("bob", "...")`, `auth=("bob", "...")`, `PasswordAuthentication`,
`getConnection(url, "bob", "...")`), in SQL (`IDENTIFIED BY '...'`), in an XML element (`<password>...</password>`), on
a command line (`--password ...`, `-u bob:...`, `sshpass -p`), in a .netrc line, in a pair of name and value
(`name="password" value="..."`), in a query (`?appid=...`), in a line of a .env file (`DEPLOY_PAT=...`), and random
hexadecimal on a line that speaks of a service's key.

Every anchor ends in one place only for a given beginning, as `prefilter` asks.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import Candidate
from kringle.pii.lookalikes import UUID, made_up
from kringle.pii.named import Written, judge
from kringle.pii.text import line_after, line_before

_PASSWORD, _KEY = b"password", b"api_key"  # names under which a value without one is judged

LOGIN_ANCHOR = rb"(?:login|auth|credentials|authentication|getconnection|[. ]connect)[ ]?=?[ ]?\("
_ARGUMENT = rb"""(?:"[^"\n]{0,120}"|'[^'\n]{0,120}'|[A-Za-z_][\w.]{0,60}),\s{0,40}"""
_LOGIN = re.compile(
    rb"\s{0,40}(?P<first>"
    + _ARGUMENT
    + rb")(?P<second>"
    + _ARGUMENT
    + rb""")?[bBrRuU]?(?P<quote>["'`])(?P<value>[^\s"'`\\]{6,200})(?P=quote)\s{0,4}(?:[,)\]]|\.to|\.enc|\.get)"""
)

SQL_ANCHOR = rb"(?:identified by|with password|for password) '"
_SQL = re.compile(rb"(?P<value>[^\s'\\]{6,200})'")

ELEMENT_ANCHOR = rb"<[A-Za-z:._-]{0,30}(?:password|passwd|passphrase|pwd|secret|token|key)>"
_ELEMENT_NAME = re.compile(rb"<([A-Za-z:._-]{1,50})>\Z")
_ELEMENT = re.compile(rb"(?P<value>[^\s<>\"'`\\]{6,600})</")

PAIR_ANCHOR = rb"value['\"]?[ ]?[=:][ ]?['\"]?[A-Za-z0-9+/=_!@#$%^&*~?.-]{8}"
_PAIR_NAME = re.compile(
    rb"""(?:name|key)['"]?[ ]?[=:][ ]?['"]?(?P<name>[A-Za-z0-9_.-]{2,60})['"]?,?\s{1,40}['"]?(?:default|string)?"""
    rb"""value['"]?[ ]?[=:][ ]?['"]?\Z""",
    re.IGNORECASE,
)
_PAIR_SECRET = re.compile(
    rb"passw(?:or)?d|passphrase|pwd|secret|token|api[_.-]?key|access[_.-]?key|_pass\Z", re.IGNORECASE
)

OPTION_ANCHOR = (
    rb"(?:--(?:password|passwd|token|api-key|secret)|sshpass -p|[A-Za-z0-9_.@-] password) ['\"]?[A-Za-z0-9!#$%^&*_]"
)
_OPTION_BEFORE = re.compile(
    rb"(?:--(?:password|passwd|token|api-key|secret)|sshpass -p|login [^\s]{1,64} password) ['\"]?\Z"
)

USER_ANCHOR = rb"(?:-u|--user)[ =]['\"]?[A-Za-z0-9_.@-]{1,40}:[A-Za-z0-9!#$%^&*_]"

_WORD = re.compile(rb"""(?P<value>[^\s"'`\\<>]{6,600})(?=["'\s<]|\Z)""")

QUERY_ANCHOR = rb"[?&](?:key|appid|app_id|app_key|appkey|auth)=[A-Za-z0-9_-]{20}"
_QUERY = re.compile(rb"(?P<value>[A-Za-z0-9_-]{20,200})(?![A-Za-z0-9_%{-])")

LINE_ANCHOR = rb"[A-Z0-9]_(?:KEY|PAT|PASS|PW|AUTH|SALT|CREDS)=['\"]?[A-Za-z0-9+/_-]{8}"
_LINE_NAME = re.compile(rb"(?:\A|\s)(?P<name>[A-Z][A-Z0-9_]{2,60})=['\"]?\Z")
_LINE = re.compile(rb"""(?P<value>[A-Za-z0-9+/_.=~-]{16,600})(?=['"]?(?:\s|\Z))""")

HEXADECIMAL_ANCHOR = rb"['\"](?:0x)?[0-9a-f]{32}"
_HEXADECIMAL = re.compile(rb"['\"](?P<value>(?:0x)?[0-9a-f]{32,64})['\"]")
_SERVICE = re.compile(
    rb"twilio|algolia|rapidapi|(?:private|deployer|wallet)[ _-]?key|auth[ _-]?token|api[ _-]?key", re.IGNORECASE
)
_PUBLIC_LINE = re.compile(
    rb"md5|sha-?[0-9]|hash|digest|checksum|fingerprint|uuid|guid|commit|etag|expected|vector|test|example|public",
    re.IGNORECASE,
)


def at_login(data: bytes, end: int) -> Candidate | None:
    """The second argument of a login, or the third of a connection, whose anchor ends at `end`."""
    match = _LOGIN.match(data, end)
    if match is None:
        return None
    connection = b"connect" in data[max(0, end - 16) : end].lower()
    if connection != (match["second"] is not None) or (b"://" in match["first"] and not connection):
        return None
    return judge(data, *match.span("value"), _PASSWORD, Written.BARE)


def at_sql(data: bytes, end: int) -> Candidate | None:
    """The password of a statement that makes or changes a user."""
    match = _SQL.match(data, end)
    return None if match is None else judge(data, *match.span("value"), _PASSWORD, Written.QUOTED)


def at_element(data: bytes, end: int) -> Candidate | None:
    """The text of an XML element that is called like a secret."""
    name = _ELEMENT_NAME.search(data, max(0, end - 60), end)
    match = _ELEMENT.match(data, end)
    if name is None or match is None or name[1].lower() in (b"key", b"token"):
        return None
    return judge(data, *match.span("value"), name[1], Written.QUOTED)


def at_pair(data: bytes, end: int) -> Candidate | None:
    """The value beside a name: an element of XML, an entry of YAML, an object of JSON."""
    start = end - 8
    name = _PAIR_NAME.search(data, max(0, start - 160), start)
    match = _WORD.match(data, start)
    if name is None or match is None or not _PAIR_SECRET.search(name["name"]):
        return None
    quoted = data[start - 1 : start] in (b"'", b'"')
    return judge(data, *match.span("value"), name["name"], Written.QUOTED if quoted else Written.BARE)


def at_option(data: bytes, end: int) -> Candidate | None:
    """The password of a command's option, or of a line of .netrc."""
    start = end - 1
    match = _WORD.match(data, start)
    if match is None or _OPTION_BEFORE.search(data, max(0, start - 90), start) is None:
        return None
    return judge(data, *match.span("value"), _PASSWORD, Written.BARE)


def at_user(data: bytes, end: int) -> Candidate | None:
    """The password behind a user's name: `curl -u bob:...`."""
    match = _WORD.match(data, end - 1)
    return None if match is None else judge(data, *match.span("value"), _PASSWORD, Written.BARE)


def at_query(data: bytes, end: int) -> Candidate | None:
    """The key of a query whose name alone says little."""
    match = _QUERY.match(data, end - 20)
    return (
        None if match is None or UUID.search(match["value"]) else judge(data, *match.span("value"), _KEY, Written.BARE)
    )


def at_line(data: bytes, end: int) -> Candidate | None:
    """A line of settings in capitals: `DEPLOY_PAT=...`."""
    start = end - 8
    name = _LINE_NAME.search(data, max(0, start - 70), start)
    match = _LINE.match(data, start)
    if name is None or match is None:
        return None
    return judge(data, *match.span("value"), name["name"], Written.BARE)


def at_hexadecimal(data: bytes, end: int) -> Candidate | None:
    """Hexadecimal in quotes on a line that speaks of a service's key."""
    start = max(data.rfind(b"'", end - 35, end), data.rfind(b'"', end - 35, end))
    match = _HEXADECIMAL.match(data, start)
    if match is None:
        return None
    before, after = line_before(data, start, 120), line_after(data, match.end(), 60)
    if not _SERVICE.search(before + b" " + after) or _PUBLIC_LINE.search(before + after) or made_up(match["value"]):
        return None
    if after.lstrip(b" ,").startswith((b"'", b'"')) and before.rstrip(b" ,").endswith((b"'", b'"')):
        return None  # one of several in a row
    return judge(data, *match.span("value"), _KEY, Written.QUOTED)
