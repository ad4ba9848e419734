"""HTML and SVG that are escaped by construction.

`tag` takes text and markup; whatever is not `Markup` is escaped, so forgetting to escape cannot happen. Reports show
other people's code: text may hold `</script>`, control characters, lone surrogates or bidirectional overrides (which
reorder what a reader sees: CVE-2021-42574). `visible` spells such characters out as <U+202E> instead of passing them
on. This is no HTML library: it writes what this project needs and parses nothing.
"""

from __future__ import annotations

import html
import re
import unicodedata

_VOID = frozenset({"meta", "link", "br", "hr", "col"})
# Control, format (bidirectional, zero width), surrogate, private use, not assigned, line and paragraph separator.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")


class Markup(str):
    """Text that is already HTML or SVG."""

    __slots__ = ()


def _spell(match: re.Match[str]) -> str:
    character = match[0]
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in _HIDDEN else character


def visible(text: str) -> str:
    """`text` with every invisible or reordering character spelled out; newline and tab stay."""
    return _SUSPECT.sub(_spell, text)


def escape(text: str) -> Markup:
    """`text` (or markup, unchanged) as markup for element content and quoted attributes."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text), quote=True))


def tag(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """`<name ...>children</name>`. Attribute names lose a trailing underscore and turn inner ones into hyphens
    (`class_`, `data_value`). None and False leave an attribute out, True writes it with an empty value.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        text = "" if value is True else value if isinstance(value, str) else f"{value:.6g}"
        written.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    if name in _VOID:
        return Markup(f"<{name}{''.join(written)}/>")
    return Markup(f"<{name}{''.join(written)}>{''.join(escape(child) for child in children)}</{name}>")


def join(*parts: str, between: str = "") -> Markup:
    """Parts one after the other as markup."""
    return Markup(escape(between).join(escape(part) for part in parts))
