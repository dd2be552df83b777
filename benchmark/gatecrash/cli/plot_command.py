"""gatecrash plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gatecrash.cli.options import boards_in, boards_option, existing_store, overrides_option, parse_overrides, plugins_option, store_option
from gatecrash.errors import UserError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


def _source(function: F) -> F:
    for option in (
        click.option("--output", type=click.Path(path_type=Path), default=None, help="File (.png or .svg); without suffix, both."),
        click.option("--grid", default=None, metavar="NAME", help="Only cells of this grid's last runs."),
        store_option,
    ):
        function = option(function)
    return function


def _board(function: F) -> F:
    return click.option("--board", default=None, metavar="NAME", help="A published board instead of a store.")(boards_option(function))


@click.group("plot")
def command() -> None:
    """Draw figures from stored results."""


@command.command("heatmap")
@_source
@_board
@click.option("--measure", "measures", multiple=True, type=click.Choice(["asr", "acc", "der"]), help="Repeatable.  [default: all three]")
def heatmap_command(
    store: Path | None, grid: str | None, output: Path | None, board: str | None, boards_path: Path | None, measures: tuple[Any, ...]
) -> None:
    """Attacks × defenses: ASR, ACC and DER."""
    from gatecrash.boards.plots.heatmap import heatmap

    _save(heatmap(_panel(store, grid, board, boards_path), measures or ("asr", "acc", "der")), output, "heatmap")


@command.command("tradeoff")
@_source
@_board
def tradeoff_command(store: Path | None, grid: str | None, output: Path | None, board: str | None, boards_path: Path | None) -> None:
    """ACC against ASR, one mark per defense."""
    from gatecrash.boards.plots.tradeoff import tradeoff

    _save(tradeoff(_panel(store, grid, board, boards_path)), output, "tradeoff")


@command.command("curve")
@_source
@_board
@click.option("--defense", required=True, metavar="NAME", help="Whose way, or whose options.")
@click.option("--x", default=None, metavar="NAME", help="An option that was swept, or a parameter of the defense's trajectory.")
def curve_command(
    store: Path | None, grid: str | None, output: Path | None, board: str | None, boards_path: Path | None, defense: str, x: str | None
) -> None:
    """ACC and ASR along a defense's trajectory, or over an option that was swept."""
    from gatecrash.boards.plots.curve import curve

    _save(curve(_panel(store, grid, board, boards_path), defense, x), output, "curve")


def _single(function: F) -> F:
    for option in (
        click.option("--attack", default=None, metavar="NAME", help="As in the tables.  [default: all]"),
        click.option("--defense", default=None, metavar="NAME", help="As in the tables.  [default: the first that kept any]"),
    ):
        function = option(function)
    return function


@command.command("reversed")
@_source
@_board
@_single
def reversed_command(
    store: Path | None,
    grid: str | None,
    output: Path | None,
    board: str | None,
    boards_path: Path | None,
    defense: str | None,
    attack: str | None,
) -> None:
    """Neural Cleanse's reversed triggers of every class, with norms and anomaly indices; accused classes marked."""
    from gatecrash.boards.plots.reversed import reversed_triggers

    panel = _panel(store, grid, board, boards_path)
    _save(reversed_triggers(panel, _pictures(store, board, boards_path), defense, attack), output, "reversed")


@command.command("masks")
@_source
@_board
@_single
def masks_command(
    store: Path | None,
    grid: str | None,
    output: Path | None,
    board: str | None,
    boards_path: Path | None,
    defense: str | None,
    attack: str | None,
) -> None:
    """Histogram of the masks that ANP gives its neurons, those that it pruned, and the threshold."""
    from gatecrash.boards.plots.masks import masks

    _save(masks(_panel(store, grid, board, boards_path), defense, attack), output, "masks")


@command.command("triggers")
@_source
@overrides_option
@plugins_option
def triggers_command(
    store: Path | None, grid: str | None, output: Path | None, overrides: tuple[str, ...], plugin_paths: tuple[Path, ...]
) -> None:
    """Clean, triggered and magnified difference, for each attack with a victim in the store (of its lowest seed)."""
    from gatecrash.boards.plots.triggers import dataset_of, stored_triggers, triggers
    from gatecrash.host.loading import load_plugins

    table_position, panel = existing_store(store), _panel(store, grid, None, None)
    dataset = dataset_of(panel, load_plugins(plugin_paths), parse_overrides(overrides))
    _save(triggers(stored_triggers(panel, table_position, dataset)), output, "triggers")


def _panel(store: Path | None, grid: str | None, board: str | None, boards_path: Path | None) -> Any:
    """The results to draw: they must share dataset, model and recipe."""
    from gatecrash.boards.panel import panel, table_position
    from gatecrash.boards.spec import ground_of

    if board is not None and (store is not None or grid is not None):
        raise UserError("--board excludes --store and --grid")
    if boards_path is not None and board is None:
        raise UserError("--boards needs --board NAME")
    results = boards_in(boards_path).results(board) if board is not None else list(existing_store(store).results())
    grids = {result.grid for result in results}
    if grid is not None:
        results = [result for result in results if result.grid == grid]
    if not results:
        raise UserError(
            f"no results of a grid {grid!r}; {did_you_mean(grid, grids)}" if grid else "the store has no results yet; run a grid first"
        )
    if len({ground_of(result) for result in results}) > 1:
        raise UserError(f"the results are of several datasets, models or recipes; choose one with --grid ({', '.join(sorted(grids))})")
    return panel(sorted(results, key=table_position))


def _pictures(store: Path | None, board: str | None, boards_path: Path | None) -> Path:
    """The folder below which the results' pictures lie."""
    folder: Path = boards_in(boards_path).folder(board) if board is not None else existing_store(store).root
    return folder


def _save(figure: Any, output: Path | None, name: str) -> None:
    from gatecrash.boards.plots.style import save

    for path in save(figure, output or Path(name)):
        click.echo(str(path))
