"""YAML that people write: read with safe types only, and every mistake in it answered with one line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from kringle.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML's safe types; a key that comes twice is refused instead of the first being forgotten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):  # PyYAML's own converters, of 2024-13-01 or !!bool 3
            what = f"{getattr(node, 'value', '')!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text holds; `UserError` with the line for what is none. `where` names the text."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}, line {mark.line + 1}" if mark else where
        raise UserError(f"not valid YAML: {getattr(error, 'problem', error)}", where=line) from None
    except RecursionError:
        raise UserError("not valid YAML: nested too deeply", where=where) from None
