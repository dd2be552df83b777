"""gatecrash show."""

from __future__ import annotations

import inspect
import json
from importlib import resources
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import plugins_option, warn_of_problems
from gatecrash.errors import UserError, did_you_mean


@click.command("show")
@click.argument("name")
@plugins_option
def command(name: str, plugin_paths: tuple[Path, ...]) -> None:
    """Show the attack, defense, dataset, model or grid called NAME: what it does, its paper, its options with defaults and bounds."""
    from gatecrash.grid import shipped_grids
    from gatecrash.host import KINDS, load_plugins

    host = load_plugins(plugin_paths)
    warn_of_problems(host)
    found = [plugin for kind in KINDS for plugin in host.all(kind) if plugin.name == name]
    if name in shipped_grids():
        click.echo(resources.files("gatecrash.grids").joinpath(f"{name}.yaml").read_text(encoding="utf-8").rstrip())
    elif not found:
        known = [plugin.name for kind in KINDS for plugin in host.all(kind)] + shipped_grids()
        raise UserError(f"nothing is called {name!r}; {did_you_mean(name, known)}")
    for index, plugin in enumerate(found):
        click.echo(("\n" if index else "") + _describe(plugin))


def _describe(plugin: Any) -> str:
    from tabulate import tabulate

    cls = plugin.cls
    lines = [f"{plugin.name} ({plugin.kind}, version {getattr(cls, 'version', 1)})", cls.summary]
    if getattr(cls, "reference", None):
        lines.append(f"Reference: {cls.reference}")
    lines.append(f"From: {plugin.origin}")
    if plugin.kind == "defense":
        from gatecrash.defense import access_class

        lines.append(f"Needs: {', '.join(sorted(cls.needs)) or 'nothing'}.  Gives: {', '.join(sorted(cls.gives)) or 'nothing'}.")
        lines.append(f"Access class: {access_class(frozenset(cls.needs), frozenset(cls.gives))}")
    if plugin.kind == "attack":
        needs = "; needs the benign victim" if cls.needs_benign else ""
        lines.append(f"Controls: {cls.controls}; {'clean' if cls.clean_label else 'dirty'} label{needs}")
    documentation = inspect.getdoc(cls)
    if documentation:
        lines += ["", documentation]
    options = [_option(name, info) for name, info in cls.Config.model_fields.items()]
    if options:
        lines += [
            "",
            tabulate(options, headers=["option", "type", "default", "bounds", "what it does"], maxcolwidths=[None, 30, 20, 16, 60]),
        ]
    else:
        lines += ["", "No options."]
    return "\n".join(lines)


def _option(name: str, info: Any) -> tuple[str, str, str, str, str]:
    bounds = [
        f"{sign} {value}"
        for mark in info.metadata
        for sign, value in ((sign, getattr(mark, attribute, None)) for attribute, sign in _BOUNDS.items())
        if value is not None
    ]
    default = "required" if info.is_required() else json.dumps(info.get_default(call_default_factory=True), default=str)
    return name, _type_name(info.annotation), default, ", ".join(bounds), info.description or ""


_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _type_name(annotation: Any) -> str:
    import types
    import typing

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
