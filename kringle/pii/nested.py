"""Values that stand inside what a secret's name opens, and not right behind it.

The default of a Terraform variable (`variable "db_password" { default = "..." }`), the value or default of a parameter
(`"adminPassword": {"value": "..."}`), a YAML block (`password: |`, and the value on the next lines), the text of an
element that follows the name (`<string name="api_key">...</string>`, `<key>apiKey</key><string>...`,
`<name>fs.s3a.secret.key</name><value>...`), and a value behind a space alone, where a line says that it is one
(`#define WIFI_PASSWORD "..."`, `storePassword "..."`, `ENV DB_PASSWORD ...`, `setx API_KEY ...`).

Whether the value is a secret is judged in `named`.
"""

from __future__ import annotations

import re

from kringle.pii.candidates import Candidate, Segment
from kringle.pii.named import Written, judge
from kringle.pii.stand_ins import carries_mark
from kringle.pii.text import line_before

_STRING = rb"""(?P<quote>["'])(?P<value>[^\s"'`\\]{6,600})(?P=quote)"""
# HashiCorp's language: `variable "name" { ... default = "..." }`; ARM templates, schemas: `"name": {"value": "..."}`
_OPENED = re.compile(
    rb"""["']?(?P<assigned>\s{0,4}[:=])?\s{0,40}\{[^{}]{0,600}?(?<![\w-])(?:default|value|defaultValue)["']?"""
    rb"\s{0,20}[:=]\s{0,20}" + _STRING
)
_VARIABLE = re.compile(rb"""variable[ ]{1,4}["']?\Z""")
# YAML 1.2, chapter 8: an indicator, perhaps with how to chomp and indent, and the lines below it
_BLOCK = re.compile(
    rb"""["']?[ ]?:[ \t]{1,20}[|>][-+1-9]{0,2}[ \t]{0,20}(?:\#[^\n]{0,80})?\r?\n(?P<indent>[ \t]{1,40})"""
    rb"""(?P<value>[^\s"'`\\]{6,600})[ \t]{0,20}(?=\r?\n|\Z)"""
)
_BLOCK_LINE = re.compile(rb"[ \t]{0,20}\r?\n[ \t]{1,40}(?P<value>[A-Za-z0-9+/_-]{16,600}={0,2})[ \t]{0,20}(?=\r?\n|\Z)")
_BLOCK_END = re.compile(rb"[ \t]{0,20}\r?\n[ \t]{1,40}(?P<value>[A-Za-z0-9+/_-]{1,600}={0,2})[ \t]{0,20}(?=\r?\n|\Z)")
_WRAPPED = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")  # base 64 that is broken into lines; the last may be short
BLOCK_LINES = 200  # a key of 16,384 bits in base 64 has that many
_ELEMENT = re.compile(
    rb"""(?:["'][^<>\n]{0,60}>|</(?:key|name)>\s{0,40}<(?:string|value)>)(?P<value>[^\s<>"'`\\]{8,600})</"""
)
_SPACED_STRING = re.compile(rb"[ \t]{1,20}" + _STRING + rb"[ \t]{0,20}(?=\r?\n|\Z|//|/\*)")
_SPACED = re.compile(rb"""[ \t]{1,4}(?P<value>[^\s"'`\\=]{8,200})[ \t]{0,20}(?=\r?\n|\Z)""")
_STATEMENT = re.compile(rb"\s*(?:#[ ]?define[ \t]{1,8})?")  # alone on its line, or a macro of C
_SETTING = re.compile(rb"\s*(?:ENV|setx|set -g?x|setenv)[ \t]{1,4}", re.IGNORECASE)


def at_name(data: bytes, start: int, stop: int, name: bytes) -> Candidate | None:
    """The value that the name `data[start:stop]` opens; None where it opens nothing, or nothing secret."""
    if (match := _BLOCK.match(data, stop)) is not None:
        found = judge(data, *match.span("value"), name, Written.QUOTED)
        return None if found is None else _continued(data, found, len(match["indent"]))
    if (match := _OPENED.match(data, stop)) is not None and (
        match["assigned"] or _VARIABLE.search(data, max(0, start - 20), start)
    ):
        return judge(data, *match.span("value"), name, Written.QUOTED)
    if (match := _ELEMENT.match(data, stop)) is not None:
        return judge(data, *match.span("value"), name, Written.BARE)
    if data[stop : stop + 1] in (b" ", b"\t"):
        before = line_before(data, start, 40)
        if (match := _SPACED_STRING.match(data, stop)) is not None and _STATEMENT.fullmatch(before):
            return judge(data, *match.span("value"), name, Written.QUOTED)
        if (match := _SPACED.match(data, stop)) is not None and _SETTING.fullmatch(before):
            return judge(data, *match.span("value"), name, Written.BARE)
    return None


def _continued(data: bytes, found: Candidate, indent: int) -> Candidate:
    """A block's value with the lines that continue it at the same indentation."""
    lines: list[Segment] = []
    end = found.end
    wrapped = _WRAPPED.fullmatch(data, found.start, found.end) is not None
    while len(lines) < BLOCK_LINES:
        match = _BLOCK_LINE.match(data, end) or (_BLOCK_END.match(data, end) if wrapped else None)
        if match is None:
            break
        at = match.start("value")
        if at - data.rfind(b"\n", end, at) - 1 != indent:
            break
        lines.append(match.span("value"))
        end = match.end("value")
    if not lines:
        return found
    whole = found._replace(end=end, groups=((*found.groups[0], *lines),))
    return whole._replace(confidence=0.0) if carries_mark(data, whole) else whole
