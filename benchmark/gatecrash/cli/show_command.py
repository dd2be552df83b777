"""gatecrash show."""

from __future__ import annotations

import inspect
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
    from gatecrash.host.kinds import KINDS
    from gatecrash.host.loading import load_plugins
    from gatecrash.planning.grid import shipped_grids

    host = load_plugins(plugin_paths)
    warn_of_problems(host)
    found = [plugin for kind in KINDS for plugin in host.all(kind) if plugin.name == name]
    if name in shipped_grids():
        click.echo(resources.files("gatecrash.grids").joinpath(f"{name}.yaml").read_text(encoding="utf-8").rstrip())
    elif not found:
        host.check_refused(name)
        known = [plugin.name for kind in KINDS for plugin in host.all(kind)] + shipped_grids()
        raise UserError(f"nothing is called {name!r}; {did_you_mean(name, known)}")
    for index, plugin in enumerate(found):
        click.echo(("\n" if index else "") + _describe(plugin))


def _describe(plugin: Any) -> str:
    from tabulate import tabulate

    from gatecrash.authoring.plugin_docs import needs_of, options_of

    cls = plugin.cls
    lines = [f"{plugin.name} ({plugin.kind}, version {getattr(cls, 'version', 1)})", cls.summary]
    if getattr(cls, "reference", None):
        lines.append(f"Reference: {cls.reference}")
    lines.append(f"From: {plugin.origin}")
    if needs_of(plugin):
        lines.append(needs_of(plugin))
    if plugin.kind == "defense":
        from gatecrash.contracts.defense import access_class

        lines.append(f"Access class: {access_class(frozenset(cls.needs), frozenset(cls.gives))}")
    documentation = inspect.getdoc(cls)
    if documentation:
        lines += ["", documentation]
    options = [(option.name, option.type, option.default, option.bounds, option.description) for option in options_of(cls.Config)]
    if options:
        lines += [
            "",
            tabulate(options, headers=["option", "type", "default", "bounds", "what it does"], maxcolwidths=[None, 30, 20, 16, 60]),
        ]
    else:
        lines += ["", "No options."]
    return "\n".join(lines)
