"""gatecrash new."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gatecrash.errors import UserError

if TYPE_CHECKING:
    from gatecrash.authoring.scaffold import NewKind


KINDS = ("attack", "training-attack", "trigger", "defense", "filter", "input-detector", "model-detector", "dataset", "model")


@click.command("new")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--package", is_flag=True, help="Write a small installable package instead of a file.")
def command(kind: NewKind, name: str, package: bool) -> None:
    """Write the files of a new plugin called NAME: one that works, to be replaced by yours, and its test.

    KIND is what you want to do: change the data (attack), control the training (training-attack), change images in a new way (trigger),
    repair a victim (defense), sort out training data (filter), reject inputs (input-detector), accuse models (model-detector), or add
    images (dataset) or a network (model).

    In a checkout of Gatecrash the files go beside the shipped ones, elsewhere into the current folder. Nothing is overwritten.
    """
    from gatecrash.authoring.scaffold import PLUGIN_KINDS, check_name, checkout, files, write
    from gatecrash.host.loading import load_plugins

    names, plugin_kind = check_name(name), PLUGIN_KINDS[kind]
    here = Path.cwd()
    contents = files(kind, names, here, package=package)
    for plugin in load_plugins().all(plugin_kind):
        if plugin.name == name and not any(path.exists() for path in contents):
            raise UserError(f"the {plugin_kind} {name!r} exists already ({plugin.origin}); choose another name")
    write(contents)
    for path in contents:
        click.echo(f"wrote {os.path.relpath(path, here)}")
    code, test = (os.path.relpath(path, here) for path in contents if path.suffix == ".py")
    checked = plugin_kind not in {"dataset", "model"}
    if package:
        home = os.path.relpath(next(iter(contents)).parent, here)
        click.echo(f"next: pip install --editable {home}, then {f'gatecrash check {name}, and ' if checked else ''}pytest {home}")
    elif checkout(here) is not None:
        click.echo(f"next: {f'gatecrash check {name}' if checked else f'pytest {test}'}, and make docs")
    else:
        first = f"gatecrash check {code}" if checked else f"pytest {test}"
        click.echo(f"next: {first}, then gatecrash run quickstart --plugins {code} -o '{_asked(kind, name)}' -o recipe=adaptive")


def _asked(kind: NewKind, name: str) -> str:
    """What a grid says to have the plugin in it."""
    if kind == "dataset":
        return f"dataset={{{name}: {{path: images.npz}}}}"
    if kind == "model":
        return f"model={name}"
    if kind == "trigger":
        return f"attacks=[none, {{dirty-label: {{trigger: {name}}}}}]"
    return f"{'attacks' if kind.endswith('attack') else 'defenses'}=[none, {name}]"
