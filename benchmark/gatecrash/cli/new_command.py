"""gatecrash new."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from gatecrash.errors import UserError


@click.command("new")
@click.argument("kind", type=click.Choice(["attack", "defense"]))
@click.argument("name")
@click.option("--package", is_flag=True, help="Write a small installable package instead of a file.")
def command(kind: Literal["attack", "defense"], name: str, package: bool) -> None:
    """Write the files of a new attack or defense called NAME: a simple method that works, to be replaced by yours, and its test.

    In a checkout of Gatecrash the files go beside the shipped ones, elsewhere into the current folder. Nothing is overwritten.
    """
    from gatecrash.authoring.scaffold import check_name, checkout, files, write
    from gatecrash.host.loading import load_plugins

    names = check_name(name)
    here = Path.cwd()
    contents = files(kind, names, here, package=package)
    for plugin in load_plugins().all(kind):
        if plugin.name == name and not any(path.exists() for path in contents):
            raise UserError(f"the {kind} {name!r} exists already ({plugin.origin}); choose another name")
    write(contents)
    for path in contents:
        click.echo(f"wrote {os.path.relpath(path, here)}")
    code, *_ = (path for path in contents if path.suffix == ".py")
    shown = os.path.relpath(code, here)
    if package:
        home = os.path.relpath(next(iter(contents)).parent, here)
        click.echo(f"next: pip install --editable {home}, then gatecrash check {name}, and pytest {home}")
    elif checkout(here) is not None:
        click.echo(f"next: gatecrash check {name}, and make docs")
    else:
        grid = f"{kind}s=[none, {name}]"
        click.echo(f"next: gatecrash check {shown}, then gatecrash run quickstart --plugins {shown} -o '{grid}' -o recipe=adaptive")
