"""gatecrash list."""

from __future__ import annotations

from pathlib import Path

import click

from gatecrash.cli.options import plugins_option, warn_of_problems
from gatecrash.host.kinds import KINDS

GRIDS = "grids"


@click.command("list")
@click.argument("kind", type=click.Choice([*(f"{kind}s" for kind in KINDS), GRIDS]), required=False)
@plugins_option
def command(kind: str | None, plugin_paths: tuple[Path, ...]) -> None:
    """List what is installed: all kinds, or one."""
    from tabulate import tabulate

    from gatecrash.host.listing import list_plugins
    from gatecrash.planning.grid import shipped_grids

    if kind != GRIDS:
        listing = list_plugins(plugin_paths)
        warn_of_problems(listing)
        for plugin_kind in KINDS:
            if kind in {None, f"{plugin_kind}s"}:
                _heading(f"{plugin_kind}s", kind)
                rows = [(plugin.name, plugin.summary) for plugin in listing.plugins if plugin.kind == plugin_kind]
                click.echo(tabulate(rows, tablefmt="plain"))
    if kind in {None, GRIDS}:
        _heading(GRIDS, kind)
        click.echo("\n".join(shipped_grids()))


def _heading(name: str, kind: str | None) -> None:
    if kind is None:
        click.echo(f"{'' if name == 'attacks' else chr(10)}{name.upper()}")
