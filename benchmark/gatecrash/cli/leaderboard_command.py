"""gatecrash leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import boards_in, boards_option, existing_store, plugins_option, store_option
from gatecrash.errors import UserError


@click.command("leaderboard")
@store_option
@click.option("--grid", default=None, metavar="GRID", help="A grid's name or YAML file: exactly its cells, missing ones shown as such.")
@click.option("--board", default=None, metavar="NAME", help="A published board: generate its files again, and print it.")
@click.option("--check", is_flag=True, help="Only say whether published boards agree with their results; exit code 1 where not.")
@boards_option
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the Markdown here instead of printing it."
)
@plugins_option
def command(
    store: Path | None,
    grid: str | None,
    board: str | None,
    check: bool,
    boards_path: Path | None,
    output: Path | None,
    plugin_paths: tuple[Path, ...],
) -> int:
    """Print the leaderboard in Markdown: of one grid, or one for each dataset, model and recipe in the store, or a published one."""
    if (board is not None or check) and (grid is not None or store is not None):
        raise UserError("--board and --check are about published boards; leave --grid and --store out")
    if check:
        return _check(boards_in(boards_path), board, plugin_paths)
    if board is not None:
        from gatecrash.host.loading import load_plugins

        text = boards_in(boards_path).regenerate(board, load_plugins(plugin_paths))
    elif boards_path is not None:
        raise UserError("--boards needs --board NAME or --check")
    elif grid is not None:
        text = _of_grid(existing_store(store), grid, plugin_paths)
    else:
        text = _of_store(existing_store(store), plugin_paths)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {output}: {error.strerror}; choose another --output") from None
    return 0


def _check(boards: Any, board: str | None, plugin_paths: tuple[Path, ...]) -> int:
    from gatecrash.host.loading import load_plugins

    names = boards.names() if board is None else [board]
    faults = boards.check(names, load_plugins(plugin_paths))
    for fault in faults:
        click.echo(fault)
    if not faults:
        click.echo(f"{len(names)} {'board agrees with its' if len(names) == 1 else 'boards agree with their'} results")
    return 1 if faults else 0


def _of_grid(store: Any, name: str, plugin_paths: tuple[Path, ...]) -> str:
    from gatecrash.boards.leaderboard import board
    from gatecrash.boards.outdated import with_traits
    from gatecrash.host.loading import load_plugins
    from gatecrash.planning.grid import load_grid
    from gatecrash.planning.planned import plan_grid

    host = load_plugins(plugin_paths)
    plan = plan_grid(load_grid(name), host).plan
    found = [store.result(key) for key in plan.cells]
    text = board(with_traits([result for result in found if result is not None], host), plan.grid)
    missing = sum(result is None for result in found)
    if missing:
        text += f"\n{missing} of {len(found)} cells have no result yet: run `gatecrash run {name}`.\n"
    return text


def _of_store(store: Any, plugin_paths: tuple[Path, ...]) -> str:
    from gatecrash.boards.leaderboard import board
    from gatecrash.boards.outdated import with_traits
    from gatecrash.boards.panel import table_position
    from gatecrash.boards.spec import ground_of
    from gatecrash.host.loading import load_plugins

    groups: dict[tuple[str, ...], list[Any]] = {}
    for result in with_traits(sorted(store.results(), key=table_position), load_plugins(plugin_paths)):
        groups.setdefault(ground_of(result), []).append(result)
    if not groups:
        raise UserError(f"the store {store.root} has no results yet; run a grid first (gatecrash run quickstart)")
    titles = {ground: title_of(results[0]) for ground, results in groups.items()}
    return "\n".join(board(groups[ground], titles[ground]) for ground in sorted(groups, key=lambda one: (titles[one], one)))


def title_of(result: Any) -> str:
    """What tells the groups of a store apart, for a person."""
    return f"{result.dataset.name}, {result.model.name}, {_recipe(result.recipe)}, {result.dataset_fingerprint[:8]}"


def _recipe(recipe: dict[str, object]) -> str:
    """The preset's name, or what tells the recipe apart."""
    from gatecrash.contracts.recipe import PRESETS

    for name, preset in PRESETS.items():
        if preset.model_dump(mode="json") == recipe:
            return name
    return f"{recipe.get('optimizer')} lr {recipe.get('lr')}, {recipe.get('epochs')} epochs"
