"""gatecrash check."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import plugins_option
from gatecrash.errors import UserError, did_you_mean, one_line


@click.command("check")
@click.argument("plugin")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Set an option, such as fewer epochs. Repeatable.")
@plugins_option
@click.pass_context
def command(ctx: click.Context, plugin: str, options: tuple[str, ...], plugin_paths: tuple[Path, ...]) -> int:
    """Check that an attack or defense keeps its contract. PLUGIN is a name, or a Python file whose plugins are all checked.

    Each check runs the method on some of the real digits and a small network, and prints a line. Exit code 1 if one fails.
    """
    debug = bool(ctx.find_root().params.get("debug"))
    failed = 0
    for kind, cls in _found(plugin, plugin_paths):
        click.echo(f"{kind} {cls.name}")
        failed += _check(_configured(cls, options), debug)
    if failed:
        click.echo(f"{failed} {'check' if failed == 1 else 'checks'} failed", err=True)
    return 1 if failed else 0


def _found(plugin: str, plugin_paths: tuple[Path, ...]) -> list[tuple[str, type[Any]]]:
    """The classes to check; raises UserError where there are none."""
    from gatecrash.host.loading import load_plugins

    path = Path(plugin)
    is_file = path.suffix == ".py"
    host = load_plugins([*plugin_paths, path] if is_file else plugin_paths)
    if is_file:
        for problem in host.problems:
            if problem.origin == str(path):
                click.echo(plugin)
                click.echo(f"  FAILED  can-be-registered: {problem.message}")
                raise click.exceptions.Exit(1)
    candidates = [each for kind in ("attack", "defense") for each in host.all(kind)]
    chosen = [each for each in candidates if (each.origin == str(path) if is_file else each.name == plugin)]
    if chosen:
        return [(each.kind, each.cls) for each in chosen]
    if is_file:
        raise UserError(f"{plugin} registers no attack or defense; see `gatecrash plugins --plugins {plugin}`")
    host.check_refused(plugin)
    for kind in ("dataset", "model"):
        if any(each.name == plugin for each in host.all(kind)):
            raise UserError(f"{plugin!r} is a {kind}; only attacks and defenses have checks")
    raise UserError(f"unknown attack or defense {plugin!r}; {did_you_mean(plugin, {each.name for each in candidates})}")


def _configured(cls: type[Any], options: tuple[str, ...]) -> Any:
    from pydantic import ValidationError

    from gatecrash.planning.yaml_text import read_yaml

    values = {}
    for text in options:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise UserError(f"-o {text}: write NAME=VALUE, as in -o epochs=2")
        values[name.strip()] = read_yaml(value, f"the value of -o {name}")
    try:
        return cls(cls.Config.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "options"
        raise UserError(f"{cls.name}: {place}: {first['msg']}; see `gatecrash show {cls.name}`") from None


def _check(plugin: Any, debug: bool) -> int:
    """Run every check, print a line for each, and count the failures; a cause of several failures is printed once."""
    from gatecrash.testing import CheckFailed, checks_for

    told: dict[str, str] = {}
    failed = 0
    for check in checks_for(plugin):
        try:
            note = check(plugin)
        except CheckFailed as failure:
            message = one_line(failure).removeprefix("CheckFailed: ")
            cause = told.setdefault(message, check.name)
            click.echo(f"  FAILED  {check.name}: {message if cause == check.name else f'see {cause}'}")
            failed += 1
            if debug:
                click.echo("".join(traceback.format_exception(failure)), err=True)
        else:
            click.echo(f"  ok      {check.name}{f': {note}' if note else ''}")
    return failed
