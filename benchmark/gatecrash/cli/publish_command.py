"""gatecrash publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import (
    boards_option,
    overrides_option,
    parse_overrides,
    parse_seeds,
    plugins_option,
    store_option,
    warn_of_problems,
)
from gatecrash.errors import UserError

LARGE = 5_000_000
"""Bytes of a board above which `publish` warns."""


@click.command("publish")
@click.argument("grid")
@click.option("--board", required=True, metavar="NAME", help="The board: a new one, or one to which these cells are added.")
@store_option
@boards_option
@click.option("--seeds", default=None, metavar="N,N,...", help="Seeds to publish instead of the grid's.")
@overrides_option
@click.option("--partial", is_flag=True, help="Publish although cells failed or are missing; the board shows them as such.")
@click.option("--allow-dirty", is_flag=True, help="Publish although the code had uncommitted changes; the board says so.")
@plugins_option
def command(
    grid: str,
    board: str,
    store: Path | None,
    boards_path: Path | None,
    seeds: str | None,
    overrides: tuple[str, ...],
    partial: bool,
    allow_dirty: bool,
    plugin_paths: tuple[Path, ...],
) -> None:
    """Copy the results of GRID from a store into a published board, and generate its Markdown.

    Cells that the board already has are replaced. Nothing is written if cells failed or are missing, if the board would mix datasets,
    models, recipes, plugin versions or trainings, or if the code had uncommitted changes when the cells were run.
    """
    from gatecrash.boards.published import default_boards
    from gatecrash.boards.published.generated import regenerate
    from gatecrash.boards.published.publishing import publish
    from gatecrash.boards.source import ResultSource
    from gatecrash.planning.grid import load_grid
    from gatecrash.planning.planned import plan_grid

    seed_list = parse_seeds(seeds)
    parsed = load_grid(grid, parse_overrides(overrides))
    source = ResultSource(store, boards_path=boards_path or default_boards(to_write=True), plugin_paths=plugin_paths)
    boards, root, host = source.boards, source.store.root, source.host
    warn_of_problems(host)
    planned = plan_grid(parsed, host, seeds=seed_list)
    found = source.cells(planned.plan)
    there = [result for result in found.values() if result is not None]
    lost = [
        f"{planned.plan.cells[key].title}: {'missing' if result is None else result.status}"
        for key, result in found.items()
        if result is None or result.status not in {"ok", "not-applicable"}
    ]
    if lost and not partial:
        raise UserError(f"{len(lost)} of {len(found)} cells have no scores ({lost[0]}); run `gatecrash run {grid}`, or --partial")
    if not there:
        raise UserError(f"the store {root} has no results of {parsed.name}; run `gatecrash run {grid}`")
    total = publish(boards, board, there, host, pictures=root, allow_dirty=allow_dirty)
    _draw(boards, board, source.store, planned.prepared)
    regenerate(boards, board, host)
    size = sum(path.stat().st_size for path in boards.folder(board).rglob("*") if path.is_file())
    if size > LARGE:
        click.echo(f"warning: the results of {board} take {size / 1e6:.1f} MB; a repository keeps every version of them", err=True)
    click.echo(f"{board}: {len(there)} cells published, {total} in the board: {boards.root / board}.md")


def _draw(boards: Any, board: str, store: Any, dataset: Any) -> None:
    """Draw the board's pictures from its results and this store's victims; where one cannot be drawn, warn and remove the older file."""
    from gatecrash.boards.panel import arrange
    from gatecrash.boards.plots.heatmap import heatmap
    from gatecrash.boards.plots.style import save
    from gatecrash.boards.plots.triggers import stored_triggers, triggers

    panel = arrange(boards.results(board))
    makers: dict[str, Callable[[], Any]] = {
        "heatmap": lambda: heatmap(panel),
        "triggers": lambda: triggers(panel, stored_triggers(panel, store, dataset)),
    }
    for kind, make in makers.items():
        path = boards.figure(board, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save(make(), path, boards.digest(board))
        except UserError as error:
            path.unlink(missing_ok=True)
            click.echo(f"warning: no {kind}: {error}", err=True)
