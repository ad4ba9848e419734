"""Values whose place says that they are secrets, without an assignment to a name.

The password among the arguments of a login (`login("bob", "...")`, `auth=("bob", "...")`, `PasswordAuthentication`,
`getConnection(url, "bob", "...")`), in SQL (`IDENTIFIED BY '...'`), in an XML element (`<password>...</password>`), on
a command line (`--password ...`, `-u bob:...`; programs with options of their own: `commands`), in .netrc, in a query
(`?appid=...`), in a line of a .env file (`DEPLOY_PAT=...`), WordPress's keys, and random hexadecimal on a line that
speaks of a service's key. Pairs of name and value: `pairs`.

Every anchor ends in one place only for a given beginning, as `prefilter` asks.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import RANK_NAMED, Candidate, whole
from kringle.pii.lookalikes import UUID, is_monotonous, made_up
from kringle.pii.named import KEY, PASSWORD, Written, judge
from kringle.pii.rarity import randomness
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import line_after, line_before

LOGIN_ANCHOR = (
    rb"(?:login|auth|credentials|authentication|getconnection|[. >:_]connect|mysqli|pdo|wifi\.begin)[ ]?=?[ ]?\("
)
_ARGUMENT = rb"""(?:"[^"\n]{0,120}"|'[^'\n]{0,120}'|[A-Za-z_][\w.]{0,60}),\s{0,40}"""
_LOGIN = re.compile(
    rb"\s{0,40}(?P<first>"
    + _ARGUMENT
    + rb")(?P<second>"
    + _ARGUMENT
    + rb""")?[bBrRuU]?(?P<quote>["'`])(?P<value>[^\s"'`\\]{6,200})(?P=quote)\s{0,4}(?:[,)\]]|\.to|\.enc|\.get)"""
)

_CONNECTION = re.compile(rb"connect|mysqli|pdo", re.IGNORECASE)

SQL_ANCHOR = rb"(?:identified by|with password|for password) ['\"A-Za-z0-9]"
_SQL = re.compile(rb"(?P<quote>['\"]?)(?P<value>[^\s'\"\\;]{6,200})(?P=quote)(?=[\s;,)'\"]|\Z)")

ELEMENT_ANCHOR = rb"<[A-Za-z:._-]{0,30}(?:password|passwd|passphrase|pwd|secret|token|key)>"
_ELEMENT_NAME = re.compile(rb"<([A-Za-z:._-]{1,50})>\Z")
_ELEMENT = re.compile(rb"(?P<value>[^\s<>\"'`\\]{6,600})</")

OPTION_ANCHOR = (
    rb"(?:--(?:password|passwd|token|api-key|secret)|[A-Za-z0-9_.@-]\s{1,12}password) ['\"]?[A-Za-z0-9!#$%^&*_]"
)
_OPTION_BEFORE = re.compile(
    rb"(?:--(?:password|passwd|token|api-key|secret)|login\s{1,12}[^\s]{1,64}\s{1,12}password) ['\"]?\Z"
)

USER_ANCHOR = rb"(?:-u|--user)[ =]['\"]?[A-Za-z0-9_.@-]{1,40}:[A-Za-z0-9!#$%^&*_]"

_WORD = re.compile(rb"""(?P<value>[^\s"'`\\<>]{6,600})(?=["'\s<]|\Z)""")

QUERY_ANCHOR = rb"[?&](?:key|appid|app_id|app_key|appkey|auth)=[A-Za-z0-9_-]{20}"
_QUERY = re.compile(rb"(?P<value>[A-Za-z0-9_-]{20,200})(?![A-Za-z0-9_%{-])")

LINE_ANCHOR = rb"[A-Z0-9]_(?:KEY|PAT|PASS|PW|AUTH|SALT|CREDS)=['\"]?[A-Za-z0-9+/_-]{8}"
_LINE_NAME = re.compile(rb"(?:\A|\s)(?P<name>[A-Z][A-Z0-9_]{2,60})=['\"]?\Z")
_LINE = re.compile(rb"""(?P<value>[A-Za-z0-9+/_.=~-]{16,600})(?=['"]?(?:\s|\Z))""")

# wp-config.php: 64 characters of any kind but quotes and backslashes, spaces among them (api.wordpress.org/secret-key)
SALT_ANCHOR = rb"(?:AUTH|LOGGED_IN|NONCE)_(?:KEY|SALT)['\"],"
_SALT = re.compile(rb"""\s{0,20}(?P<quote>['"])(?P<value>[^'"\\\n]{60,70})(?P=quote)""")
LEAST_OF_SALT = 40.0  # see `rarity.randomness`: the phrase that stands there first, or a sentence, has less

HEXADECIMAL_ANCHOR = rb"['\"](?:0x)?[0-9a-f]{32}"
_HEXADECIMAL = re.compile(rb"['\"](?P<value>(?:0x)?[0-9a-f]{32,64})['\"]")
_SERVICE = re.compile(  # an account of Twilio's tells as much as its name
    rb"twilio|(?-i:AC[0-9a-f]{32})|algolia|rapidapi|(?:private|deployer|wallet)[ _-]?key|auth[ _-]?token|api[ _-]?key",
    re.IGNORECASE,
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
    connection = _CONNECTION.search(data, max(0, end - 16), end) is not None
    if connection != (match["second"] is not None) or (b"://" in match["first"] and not connection):
        return None
    return judge(data, *match.span("value"), PASSWORD, Written.BARE)


def at_sql(data: bytes, end: int) -> Candidate | None:
    """The password of a statement that makes or changes a user; Oracle takes it without quotes too."""
    match = _SQL.match(data, end - 1)
    if match is None:
        return None
    return judge(data, *match.span("value"), PASSWORD, Written.QUOTED if match["quote"] else Written.BARE)


def at_element(data: bytes, end: int) -> Candidate | None:
    """The text of an XML element that is called like a secret."""
    name = _ELEMENT_NAME.search(data, max(0, end - 60), end)
    match = _ELEMENT.match(data, end)
    if name is None or match is None or name[1].lower() in (b"key", b"token"):
        return None
    return judge(data, *match.span("value"), name[1], Written.QUOTED)


def at_option(data: bytes, end: int) -> Candidate | None:
    """The password of a command's option, or of a line of .netrc."""
    start = end - 1
    match = _WORD.match(data, start)
    if match is None or _OPTION_BEFORE.search(data, max(0, start - 90), start) is None:
        return None
    return judge(data, *match.span("value"), PASSWORD, Written.BARE)


def at_user(data: bytes, end: int) -> Candidate | None:
    """The password behind a user's name: `curl -u bob:...`."""
    match = _WORD.match(data, end - 1)
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.BARE)


def at_query(data: bytes, end: int) -> Candidate | None:
    """The key of a query whose name alone says little."""
    match = _QUERY.match(data, end - 20)
    return (
        None if match is None or UUID.search(match["value"]) else judge(data, *match.span("value"), KEY, Written.BARE)
    )


def at_line(data: bytes, end: int) -> Candidate | None:
    """A line of settings in capitals: `DEPLOY_PAT=...`."""
    start = end - 8
    name = _LINE_NAME.search(data, max(0, start - 70), start)
    match = _LINE.match(data, start)
    if name is None or match is None:
        return None
    return judge(data, *match.span("value"), name["name"], Written.BARE)


def at_salt(data: bytes, end: int) -> Candidate | None:
    """One of WordPress's keys and salts, whose name ends at `end`."""
    match = _SALT.match(data, end)
    if match is None or is_monotonous(match["value"]) or randomness(match["value"]) <= LEAST_OF_SALT:
        return None
    start, stop = match.span("value")
    found = Candidate(start, stop, "key", "secret", 0.9, RANK_NAMED, whole(start, stop))
    return found._replace(confidence=0.0) if carries_mark(data, found) else found


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
    return judge(data, *match.span("value"), KEY, Written.QUOTED)
