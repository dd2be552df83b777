"""YAML as a person means it: names, numbers, lists and mappings. Whatever else YAML can say is an error that names the line.

A key that stands twice is a mistake, not the last one. Dates are texts. Anchors are read, and what they expand to is bounded; merges are
refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from gatecrash.errors import UserError

MAX_DEPTH = 30
"""Levels of nesting; a grid needs eight."""
MAX_VALUES = 200_000
"""Values after anchors are expanded."""
MAX_BYTES = 2**20
"""Of a file."""


def read_yaml(text: str, origin: str) -> Any:
    """What the text says. Raises UserError with `origin` and the line for anything that is not plain YAML."""
    try:
        value = yaml.load(text, _PlainLoader)  # a SafeLoader: it makes plain values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{origin} is not valid YAML{where}: {getattr(error, 'problem', None) or 'a character is not allowed'}") from None
    except (ValueError, OverflowError):  # PyYAML's scanner does not check the numbers of escapes and directives
        raise UserError(f"{origin} is not valid YAML: the number of a character or of a version is out of range") from None
    size, depth = _extent(value, {}, origin)
    if size > MAX_VALUES or depth > MAX_DEPTH:
        raise UserError(f"{origin} holds more than {MAX_VALUES:,} values, or {MAX_DEPTH} levels of them; use fewer, or fewer anchors")
    return value


def read_yaml_file(path: Path) -> str:
    """The file's text. Raises UserError for what is no readable text file, or a large one."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read grid {path}: it is not a regular file")
        if os.path.getsize(path) > MAX_BYTES:
            raise UserError(f"cannot read grid {path}: it is larger than {MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read grid {path}: {getattr(error, 'strerror', None) or error}") from None


class _PlainLoader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MAX_DEPTH} levels", self._mark())
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _mark(self) -> Any:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag.endswith((":merge", ":value")):
                raise ConstructorError(None, None, "a key must be a plain name", key.start_mark)
            if (key.tag, key.value) in seen:
                raise ConstructorError(None, None, f"the key {key.value[:60]!r} stands twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _number(make: Callable[[Any, Any], Any], what: str) -> Callable[[yaml.SafeLoader, Node], Any]:
    def construct(loader: yaml.SafeLoader, node: Node) -> Any:
        try:
            return make(loader, node)
        except (ValueError, IndexError, KeyError, OverflowError):
            raise ConstructorError(None, None, f"{str(node.value)[:40]!r} is no {what}, or too long for one", node.start_mark) from None

    return construct


def _whole(loader: yaml.SafeLoader, node: ScalarNode) -> Any:
    """A whole number. YAML 1.1 reads 00014 as 12 and 1:30 as 90, which nobody means."""
    digits = str(node.value).lstrip("+-")
    if ":" in digits or (digits[:1] == "0" and digits[1:2].isdigit()):
        reason = f"{digits[:40]!r} is a number in another notation; write it in quotes if it is a text, else without leading zeros"
        raise ConstructorError(None, None, reason, node.start_mark)
    construct: Any = yaml.SafeLoader.construct_yaml_int  # has types in some versions of the stubs
    return construct(loader, node)


def _refused(_loader: yaml.SafeLoader, node: Node) -> Any:
    raise ConstructorError(None, None, f"{node.tag.rpartition(':')[2]!r} is no kind of value that is used here", node.start_mark)


for _kind, _make, _what in (
    ("int", _whole, "whole number"),
    ("float", yaml.SafeLoader.construct_yaml_float, "number"),
    ("bool", yaml.SafeLoader.construct_yaml_bool, "true or false"),
):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number(_make, _what))
for _kind in ("binary", "timestamp", "omap", "pairs", "set"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _refused)
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _extent(value: Any, known: dict[int, tuple[int, int]], origin: str) -> tuple[int, int]:
    """(values, levels) with every anchor expanded; more than is allowed for a value that contains itself."""
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{origin} holds half a character (\\ud800 to \\udfff), which no file can")
    if not isinstance(value, dict | list):
        return 1, 0
    if id(value) not in known:
        known[id(value)] = (MAX_VALUES + 1, MAX_DEPTH + 1)  # until it is known: met again below itself
        children = [*value, *value.values()] if isinstance(value, dict) else value
        found = [_extent(child, known, origin) for child in children]
        known[id(value)] = (1 + sum(size for size, _ in found), 1 + max((depth for _, depth in found), default=0))
    return known[id(value)]
