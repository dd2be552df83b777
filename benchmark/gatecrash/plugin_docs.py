"""What is written about plugins comes from the plugins: option tables for `gatecrash show`, and plugins/README.md.

`python -m gatecrash.plugin_docs FILE` writes the page; `make docs` does it for the one in the repository.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from gatecrash.host import Host, Plugin

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_TITLES = {"attack": "Attacks", "defense": "Defenses", "dataset": "Datasets", "model": "Models"}


@dataclass(frozen=True)
class Option:
    """One field of a plugin's Config, as a person reads it."""

    name: str
    type: str
    default: str
    """JSON, or "required"."""
    limits: tuple[tuple[str, Any], ...]
    """(sign, value), such as (">=", 0)."""
    description: str
    is_number: bool
    """An int or float (perhaps optional), which should have limits."""

    @property
    def bounds(self) -> str:
        return ", ".join(f"{sign} {value}" for sign, value in self.limits)


def options_of(config: type[BaseModel]) -> list[Option]:
    """The options of a Config, in the order of definition."""
    return [
        Option(
            name=name,
            type=_type_name(info.annotation),
            default="required" if info.is_required() else json.dumps(info.get_default(call_default_factory=True), default=str),
            limits=tuple(_limits(info.metadata)),
            description=info.description or "",
            is_number=_is_number(info.annotation),
        )
        for name, info in config.model_fields.items()
    ]


def needs_of(plugin: Plugin) -> str:
    """What an attack controls or a defense must be given, as one sentence; empty for other kinds."""
    cls = plugin.cls
    if plugin.kind == "attack":
        benign = "; needs the benign victim" if cls.needs_benign else ""
        return f"Controls: {cls.controls}; {'clean' if cls.clean_label else 'dirty'} label{benign}"
    if plugin.kind == "defense":
        return f"Needs: {', '.join(sorted(cls.needs)) or 'nothing'}.  Gives: {', '.join(sorted(cls.gives)) or 'nothing'}."
    return ""


def page(host: Host) -> str:
    """Markdown on every plugin of the host: summary, paper, needs, options with defaults and bounds."""
    from gatecrash.host import KINDS

    lines = [
        "# Plugins",
        "",
        "Everything that ships, one file each. This page is made by `make docs` from the plugins themselves; edit those. "
        "`gatecrash show NAME` prints the same with the full description. How to add one: [CONTRIBUTING.md](../CONTRIBUTING.md).",
    ]
    for kind in KINDS:
        plugins = host.all(kind)
        lines += ["", f"## {_TITLES[kind]}", "", "| name | what it is |", "| --- | --- |"]
        lines += [f"| [{plugin.name}](#{_anchor(plugin)}) | {_cell(plugin.cls.summary)} |" for plugin in plugins]
        for plugin in plugins:
            lines += ["", *_section(plugin)]
    return "\n".join(lines) + "\n"


def _section(plugin: Plugin) -> Iterator[str]:
    cls = plugin.cls
    yield f"### {plugin.kind} {plugin.name}"
    yield ""
    yield f"{cls.summary[:1].upper()}{cls.summary[1:]}."
    facts = [needs_of(plugin).replace("  ", " ")]
    if getattr(cls, "reference", None):
        facts.append(f"Paper: {cls.reference.paper}, {cls.reference.year}, <{cls.reference.url}>")
    for fact in filter(None, facts):
        yield ""
        yield fact if fact.endswith((".", ">")) else f"{fact}."
    options = options_of(cls.Config)
    yield ""
    if not options:
        yield "No options."
        return
    yield "| option | type | default | bounds | what it does |"
    yield "| --- | --- | --- | --- | --- |"
    for option in options:
        default = option.default.replace("|", "\\|")
        cells = (f"`{option.name}`", _cell(option.type), f"`{default}`", _cell(option.bounds), _cell(option.description))
        yield f"| {' | '.join(cells)} |"


def _anchor(plugin: Plugin) -> str:
    return f"{plugin.kind}-{plugin.name}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _limits(metadata: list[Any]) -> Iterator[tuple[str, Any]]:
    for mark in metadata:
        for attribute, sign in _BOUNDS.items():
            value = getattr(mark, attribute, None)
            if value is not None:
                yield sign, value


def _is_number(annotation: Any) -> bool:
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return any(_is_number(part) for part in typing.get_args(annotation))
    return annotation in {int, float}


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return " | ".join("none" if part is type(None) else _type_name(part) for part in typing.get_args(annotation))
    if origin is not None:
        inner = ", ".join("..." if part is ... else _type_name(part) for part in typing.get_args(annotation))
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def main(path: Path) -> None:
    """Write the page of the shipped plugins to `path`."""
    from gatecrash.host import load_plugins

    path.write_text(page(load_plugins(installed=False)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
