"""gatecrash plugins."""

from __future__ import annotations

from pathlib import Path

import click

from gatecrash.cli.options import plugins_option


@click.command("plugins")
@plugins_option
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of each broken plugin.")
def command(plugin_paths: tuple[Path, ...], verbose: bool) -> int:
    """Show every plugin module, what it registers, and which ones are broken and why. Exit code 1 if one is."""
    from gatecrash.host.listing import list_plugins

    listing = list_plugins(plugin_paths)
    registered: dict[str, list[str]] = {origin: [] for origin in listing.modules}
    for plugin in listing.plugins:
        registered.setdefault(plugin.origin, []).append(f"{plugin.kind} {plugin.name}")
    for origin, names in sorted(registered.items()):
        click.echo(f"{origin}: {', '.join(names) or 'registers nothing'}")
    for problem in listing.problems:
        click.echo(f"BROKEN {problem.origin}: {problem.message}")
        if verbose and problem.details:
            click.echo(problem.details)
    return 1 if listing.problems else 0
