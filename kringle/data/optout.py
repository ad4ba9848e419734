"""Opt-outs: which repositories, owners, paths and documents may not be in a corpus, whatever their licence says.

A rule is one line of text:

    id:HASH        one document, by the git blob SHA-1 of its bytes, wherever it lies; a bare hash of 40 digits is one
    owner:NAME     every repository below NAME/, or the repository NAME itself; `NAME/` is one too
    path:GLOB      files whose path, or repository/path, the pattern matches; a path without `*` or `?` means all below
                   it too; `*` crosses slashes; a bare text with `*` in it is one
    repo:NAME      one repository; any other bare text is one

Names of repositories and owners are compared without regard to case, as GitHub does; paths and ids as they are.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kringle.errors import UserError

STEP = "opt-out"
THRESHOLD = "not opted out"
_HASH = re.compile(r"[0-9a-f]{40}", re.I)
_KINDS = ("id", "owner", "path", "repo")


class Rule(NamedTuple):
    """One opt-out; `kind` is one of id, owner, path and repo."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def parse_rule(text: str, where: str = "opt-out") -> Rule:
    """A rule from its text. Raises `UserError` when it says nothing, or an id is no hash."""
    text = text.strip()
    kind, colon, value = text.partition(":")
    if colon and kind.isalpha() and kind not in _KINDS and not value.startswith("//"):  # as in https://..
        raise UserError(f"no kind of opt-out: {kind!r}", where=where, hint=f"known: {', '.join(_KINDS)}")
    if not colon or kind not in _KINDS:
        value = text
        kind = "id" if _HASH.fullmatch(text) else "path" if "*" in text else "owner" if text.endswith("/") else "repo"
    value = value.strip()
    if kind == "id":
        value = value.lower()
        if not _HASH.fullmatch(value):
            raise UserError(f"not a document's id: {value!r}", where=where, hint="an id has 40 hexadecimal digits")
    if kind in ("owner", "repo"):
        value = value.rstrip("/")
    if not value:
        raise UserError(f"an opt-out without a name: {text!r}", where=where, hint="write repo:NAME, owner:NAME, ...")
    return Rule(kind, value)


def read_rules(path: Path, where: str) -> tuple[str, ...]:
    """The rules of a text file, one a line; empty lines and what follows a `#` at the start or after a space are not
    read. Raises `UserError`."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise UserError(f"cannot be read: {reason}", where=f"{where}: {path}") from None
    rules = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in lines)
    return tuple(str(parse_rule(rule, f"{path}, line {n}")) for n, rule in enumerate(rules, 1) if rule)


class OptOuts:
    """Rules, ready to be asked about one file after the other."""

    def __init__(self, rules: Iterable[str]) -> None:
        parsed = [parse_rule(rule) for rule in rules]
        self.rules = tuple(dict.fromkeys(str(rule) for rule in parsed))
        self._ids = {rule.value for rule in parsed if rule.kind == "id"}
        self._repos = {rule.value.casefold(): str(rule) for rule in parsed if rule.kind == "repo"}
        self._owners = {rule.value.casefold(): str(rule) for rule in parsed if rule.kind == "owner"}
        self._paths = [(_path_pattern(rule.value), str(rule)) for rule in parsed if rule.kind == "path"]

    def __bool__(self) -> bool:
        return bool(self.rules)

    def place(self, repo: str, path: str) -> str | None:
        """The first rule (repository, owner, path) that names this place; None when none does."""
        name = repo.casefold()
        if rule := self._repos.get(name):
            return rule
        if self._owners:
            parts = name.split("/")
            for end in range(1, len(parts) + 1):
                if rule := self._owners.get("/".join(parts[:end])):
                    return rule
        for pattern, rule in self._paths:
            if pattern.fullmatch(path) or pattern.fullmatch(f"{repo}/{path}"):
                return rule
        return None

    def document(self, id: str | None, repo: str, path: str) -> str | None:
        """The first rule that names this document, by id or by place."""
        return f"id:{id}" if id in self._ids else self.place(repo, path)


def _path_pattern(value: str) -> re.Pattern[str]:
    value = value.removeprefix("./")
    if "*" in value or "?" in value:
        return re.compile(fnmatch.translate(value))
    return re.compile(re.escape(value.rstrip("/")) + r"(?:/.*)?", re.S)
