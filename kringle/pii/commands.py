"""Passwords on command lines, behind the option of a program that takes nothing else.

`mysql -p...`, `sshpass -p ...`, `redis-cli -a ...`, `docker login -p ...`, `ldapsearch -w ...`, `sqlcmd -P ...`,
`curl -ubob:...`, `rabbitmqctl add_user bob ...`, `htpasswd -b file bob ...`, `keytool -storepass ...`,
`requirepass ...` of redis.conf, `echo ... | sudo -S`. Also as a list of strings: `["sshpass", "-p", "..."]`.
What the options mean is in the programs' manuals. The value is judged in `named`.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import Candidate
from kringle.pii.named import PASSWORD, Written, judge
from kringle.pii.text import line_after

PROGRAM_ANCHOR = (
    rb"(?:mysql[a-z]{0,8}|mariadb(?:-[a-z]{1,8})?|sshpass|7z[ar]?|curl|redis-cli|sqlcmd|bcp|osql|zip|htpasswd|"
    rb"(?:docker|podman|nerdctl|registry|buildah|skopeo|oras|oc|az|cf)['\"]?,?[ ]['\"]?login|"
    rb"ldap(?:search|add|modify|delete|passwd|whoami|compare)|mongo(?:sh|dump|restore|export|import)?|"
    rb"rabbitmqctl|smbclient|rpcclient)['\"]?,?[ ]"
)
# What stands between the program and its option: the same command, perhaps continued on the next line
_GAP = rb"(?:[^\n|;&]|(?<=\\)\n|(?<=\\\r)\n){0,240}?(?<=[\s\"'])"
_BETWEEN = rb"""(?:['"]?,?\s{1,4}['"]?|=['"]?)"""
_VALUE = rb"""(?P<value>(?!\$[A-Za-z_({])[^\s"'`\\<>|;&]{6,200})(?=["'\s|;&<]|\Z)"""
_ARGUMENT = rb"""[^\s"'`$|;&]{1,100}"""


def _behind(options: bytes) -> bytes:
    """The argument behind one of some options."""
    return _GAP + rb"(?:" + options + rb")" + _BETWEEN + _VALUE


def _attached(option: bytes) -> bytes:
    """The value right behind an option; with a space between them it would be something else."""
    return _GAP + option + rb"['\"]?" + _VALUE


# By how the program's name begins; `login` stands for that command of several programs
_PASSWORD_OF = tuple(
    (program, re.compile(pattern))
    for program, pattern in (
        (b"mysql", _attached(rb"-p")),
        (b"mariadb", _attached(rb"-p")),
        (b"7z", _attached(rb"-p")),
        (b"sshpass", _GAP + rb"-p(?:" + _BETWEEN + rb")?['\"]?" + _VALUE),
        (b"curl", _GAP + rb"(?:-u|--user|-U|--proxy-user)(?:" + _BETWEEN + rb")?[^\s:\"'`$]{1,60}:" + _VALUE),
        (b"redis-cli", _behind(rb"-a|--pass")),
        (b"sqlcmd", _behind(rb"-P")),
        (b"osql", _behind(rb"-P")),
        (b"bcp", _behind(rb"-P")),
        (b"zip", _behind(rb"-P")),
        (b"login", _behind(rb"-p")),
        (b"ldap", _behind(rb"-w")),
        (b"mongo", _behind(rb"-p")),
        (b"smbclient", _GAP + rb"-U" + _BETWEEN + rb"[\w.@/\\-]{1,60}%" + _VALUE),
        (b"rpcclient", _GAP + rb"-U" + _BETWEEN + rb"[\w.@/\\-]{1,60}%" + _VALUE),
        (
            b"rabbitmqctl",
            rb"['\"]?(?:add_user|change_password)" + _BETWEEN + _ARGUMENT + _BETWEEN + _VALUE,
        ),
        (
            b"htpasswd",
            # A file, a user and the password; with `-n` no file
            rb"['\"]?-[a-zA-Z]{0,6}b[a-zA-Z]{0,6}(?:"
            + _BETWEEN
            + rb"-[a-zA-Z]{1,6}){0,4}"
            + _BETWEEN
            + rb"(?:"
            + _ARGUMENT
            + _BETWEEN
            + rb")?"
            + _ARGUMENT
            + _BETWEEN
            + _VALUE,
        ),
    )
)
_PROGRAM = re.compile(rb"(" + rb"|".join(program for program, _ in _PASSWORD_OF) + rb")[a-z-]{0,12}['\"]?,?[ ]\Z")
_PATTERNS = dict(_PASSWORD_OF)

# Options and settings whose name says enough: keytool's, and those of redis.conf
SETTING_ANCHOR = rb"(?:requirepass|masterauth|-(?:store|key|srcstore|deststore|srckey|destkey)pass)['\"]?,?[ ]"
_SETTING = re.compile(rb"['\"]?" + _VALUE)

PIPE_ANCHOR = rb"\|[ ]?(?:sudo -S|(?:sudo )?chpasswd|(?:docker|podman|helm registry|oras) login)"
_PRINTED = rb"""(?:echo|printf)[ ](?:-n[ ])?(?P<quote>["']?)"""
_PRINTED_VALUE = rb"""(?P<value>(?!\$[A-Za-z_({])[^\s"'`\\|]{6,200})(?P=quote)[ ]?\Z"""
_PIPED = re.compile(_PRINTED + _PRINTED_VALUE)
_PIPED_LOGIN = re.compile(_PRINTED + rb"[a-z_][a-z0-9_-]{0,31}:" + _PRINTED_VALUE)


def at_program(data: bytes, end: int) -> Candidate | None:
    """The password on the command line of a program whose name ends at `end`."""
    program = _PROGRAM.search(data, max(0, end - 32), end)
    match = _PATTERNS[program[1]].match(data, end) if program else None
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.OPTION)


def at_setting(data: bytes, end: int) -> Candidate | None:
    """The password behind an option or a setting whose name ends at `end`."""
    match = _SETTING.match(data, end)
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.OPTION)


def at_pipe(data: bytes, end: int) -> Candidate | None:
    """The password that is printed into the pipe before the program whose name ends at `end`."""
    pipe = data.rfind(b"|", max(0, end - 40), end)
    program = data[pipe:end]
    if program.endswith(b"login") and b"--password-stdin" not in line_after(data, end, 200):
        return None
    pattern = _PIPED_LOGIN if program.endswith(b"chpasswd") else _PIPED
    match = pattern.search(data, max(0, pipe - 240), pipe)
    return None if match is None else judge(data, *match.span("value"), PASSWORD, Written.OPTION)
