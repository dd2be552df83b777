"""gatecrash check."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatecrash.cli.options import plugins_option
from gatecrash.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from gatecrash.host.kinds import PluginKind


CHECKED: tuple[PluginKind, ...] = ("attack", "defense", "trigger")


@click.command("check")
@click.argument("plugin")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Set an option, such as fewer epochs. Repeatable.")
@click.option("--quick", is_flag=True, help="Leave out what takes longest: every value of the options, and a victim trained on all digits.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True, help="Seconds that a check may take."
)
@plugins_option
@click.pass_context
def command(ctx: click.Context, plugin: str, options: tuple[str, ...], quick: bool, timeout: float, plugin_paths: tuple[Path, ...]) -> int:
    """Check that an attack, defense or trigger keeps its contract. PLUGIN is a name, or a Python file whose plugins are all checked.

    Each check runs the method on real digits and small networks, and prints a line: ok, FAILED, declared (a deviation that the plugin names
    in `deviations`) or n/a (the method raised NotApplicable). Exit code 1 if one fails.
    """
    debug = bool(ctx.find_root().params.get("debug"))
    failed = 0
    for kind, cls in _found(plugin, plugin_paths):
        click.echo(f"{kind} {cls.name}")
        failed += _check(_configured(cls, options), quick, timeout, debug)
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
    candidates = [each for kind in CHECKED for each in host.all(kind)]
    chosen = [each for each in candidates if (each.origin == str(path) if is_file else each.name == plugin)]
    if chosen:
        return [(each.kind, each.cls) for each in chosen]
    if is_file:
        raise UserError(f"{plugin} registers no attack, defense or trigger; see `gatecrash plugins --plugins {plugin}`")
    host.check_refused(plugin)
    for kind in ("dataset", "model"):
        if any(each.name == plugin for each in host.all(kind)):
            raise UserError(f"{plugin!r} is a {kind}; only attacks, defenses and triggers have checks")
    raise UserError(f"unknown attack, defense or trigger {plugin!r}; {did_you_mean(plugin, {each.name for each in candidates})}")


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


def _check(plugin: Any, quick: bool, timeout: float, debug: bool) -> int:
    """Run every check, print a line for each, and count the failures; a cause of several failures is printed once."""
    from gatecrash.testing import checks_for
    from gatecrash.testing.limits import GRACE, hard_stop

    told: dict[tuple[str, str], str] = {}
    failed = 0
    for check in checks_for(plugin, quick):
        with hard_stop(timeout + GRACE):
            finding = check.find(plugin, timeout)
        first = told.setdefault((finding.status, finding.text), check.name)
        repeated = first != check.name and finding.status in {"FAILED", "n/a"}
        text = f"see {first}" if repeated else finding.text
        click.echo(f"  {finding.status:<7} {check.name}{f': {text}' if text else ''}")
        for line in finding.printed:
            click.echo(f"          | {line}")
        failed += finding.status == "FAILED"
        if debug and finding.failure is not None:
            click.echo("".join(traceback.format_exception(finding.failure)), err=True)
    return failed
