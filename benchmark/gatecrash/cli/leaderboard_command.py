"""gatecrash leaderboard."""

from __future__ import annotations

from pathlib import Path

import click

from gatecrash.cli.options import existing_store, plugins_option, store_option
from gatecrash.errors import UserError


@click.command("leaderboard")
@store_option
@click.option("--grid", default=None, metavar="GRID", help="A grid's name or YAML file: exactly its cells, missing ones shown as such.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the Markdown here instead of printing it."
)
@plugins_option
def command(store: Path | None, grid: str | None, output: Path | None, plugin_paths: tuple[Path, ...]) -> None:
    """Print the leaderboard in Markdown: of one grid, or one for each dataset, model and recipe in the store."""
    from gatecrash.host import load_plugins
    from gatecrash.leaderboard import board

    place = existing_store(store)
    if grid is not None:
        from gatecrash.grid import load_grid
        from gatecrash.run import plan_grid

        plan = plan_grid(load_grid(grid), load_plugins(plugin_paths)).plan
        found = [place.result(key) for key in plan.cells]
        text = board([result for result in found if result is not None], plan.grid)
        missing = sum(result is None for result in found)
        if missing:
            text += f"\n{missing} of {len(found)} cells have no result yet: run `gatecrash run {grid}`.\n"
    else:
        groups: dict[str, list] = {}  # type: ignore[type-arg]
        for result in place.results():
            title = f"{result.dataset.name}, {result.model.name}, {_recipe(result.recipe)}, {result.dataset_fingerprint[:8]}"
            groups.setdefault(title, []).append(result)
        if not groups:
            raise UserError(f"the store {place.root} has no results yet; run a grid first (gatecrash run quickstart)")
        text = "\n".join(board(results, title) for title, results in sorted(groups.items()))
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {output}: {error.strerror}; choose another --output") from None


def _recipe(recipe: dict[str, object]) -> str:
    """The preset's name, or what tells the recipe apart."""
    from gatecrash.recipe import PRESETS

    for name, preset in PRESETS.items():
        if preset.model_dump(mode="json") == recipe:
            return name
    return f"{recipe.get('optimizer')} lr {recipe.get('lr')}, {recipe.get('epochs')} epochs"
