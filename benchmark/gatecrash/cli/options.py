"""Options and small helpers that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gatecrash.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def store_option(function: F) -> F:
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=True),
        default=None,
        help="Folder for victims and results.  [default: $GATECRASH_STORE, else ./gatecrash-store]",
    )(function)


def plugins_option(function: F) -> F:
    return click.option(
        "--plugins",
        "plugin_paths",
        multiple=True,
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="A plugin file, or a folder of them. Repeatable.",
    )(function)


def warn_of_problems(host: Any) -> None:
    """Name every broken plugin on stderr; the run goes on without it."""
    for problem in host.problems:
        click.echo(f"warning: plugin {problem.origin}: {problem.message} (see `gatecrash plugins`)", err=True)


def existing_store(path: Path | None) -> Any:
    """An existing store to read from. Raises UserError where there is none."""
    from gatecrash.store import Store, default_store

    root = path or default_store()
    if not root.exists():
        raise UserError(f"no store at {root}; run a grid first (gatecrash run quickstart), or choose another with --store")
    store = Store(root)
    store.check()
    return store
