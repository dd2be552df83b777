"""gatecrash report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import boards_in, boards_option, existing_store, plugins_option, store_option
from gatecrash.errors import UserError, did_you_mean


@click.command("report")
@click.argument("board", required=False)
@store_option
@click.option("--grid", default=None, metavar="NAME", help="Only cells of this grid's last runs.")
@boards_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file to write.  [default: report.html, or BOARD.html]",
)
@plugins_option
def command(
    board: str | None,
    store: Path | None,
    grid: str | None,
    boards_path: Path | None,
    output: Path | None,
    plugin_paths: tuple[Path, ...],
) -> None:
    """Write one HTML page of a store's results, or of the published BOARD: tables to sort, plots, and every cell's details.

    The page needs no network: everything is in the file.
    """
    from gatecrash.boards.report import report

    if board is not None and (store is not None or grid is not None):
        raise UserError("a board is a published one; leave --store and --grid out")
    if boards_path is not None and board is None:
        raise UserError("--boards needs the name of a BOARD")
    if board is not None:
        title, sections = board, [_of_board(boards_in(boards_path), board)]
    else:
        title, sections = "Gatecrash results", _of_store(existing_store(store), grid, plugin_paths)
    path = output if output is not None else Path(f"{board or 'report'}.html")
    try:
        path.write_text(report(title, sections), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --output") from None
    for section in sections:
        for note in section.notes:
            click.echo(f"note: {section.title}: not drawn: {note}", err=True)
    click.echo(str(path))


def _of_board(boards: Any, name: str) -> Any:
    from gatecrash.boards.panel import panel
    from gatecrash.boards.published import FIGURES
    from gatecrash.boards.report import Section, drawn

    arranged, folder = panel(boards.results(name)), boards.folder(name)
    plots, notes = drawn(_drawings(arranged, folder))
    triggers = boards.figure(name, "triggers")
    if triggers.is_file():
        plots[FIGURES["triggers"]] = triggers.read_bytes()
    return Section(name, arranged, folder, plots, notes)


def _of_store(store: Any, grid: str | None, plugin_paths: tuple[Path, ...]) -> list[Any]:
    """A section for each dataset, model and recipe."""
    from gatecrash.boards.outdated import with_traits
    from gatecrash.boards.panel import panel, table_position
    from gatecrash.boards.report import Section, drawn
    from gatecrash.boards.spec import ground_of
    from gatecrash.cli.leaderboard_command import title_of
    from gatecrash.host.loading import load_plugins

    host = load_plugins(plugin_paths)
    results = with_traits(sorted(store.results(), key=table_position), host)
    grids = {result.grid for result in results}
    groups: dict[tuple[str, ...], list[Any]] = {}
    for result in results:
        if grid in {None, result.grid}:
            groups.setdefault(ground_of(result), []).append(result)
    if not groups:
        raise UserError(
            f"no results of a grid {grid!r}; {did_you_mean(grid, grids)}"
            if grid and grids
            else f"the store {store.root} has no results yet; run a grid first (gatecrash run quickstart)"
        )
    sections = []
    for members in sorted(groups.values(), key=lambda members: title_of(members[0])):
        arranged = panel(members)
        drawings = _drawings(arranged, store.root)
        drawings["Triggers"] = partial(_triggers, arranged, store, host)
        sections.append(Section(title_of(members[0]), arranged, store.root, *drawn(drawings)))
    return sections


def _triggers(arranged: Any, store: Any, host: Any) -> Any:
    from gatecrash.boards.plots.triggers import dataset_of, stored_triggers, triggers

    return triggers(stored_triggers(arranged, store, dataset_of(arranged, host)))


def _drawings(arranged: Any, pictures: Path) -> dict[str, Callable[[], Any]]:
    """The figures that these results have data for."""
    from gatecrash.boards.plots.heatmap import heatmap
    from gatecrash.boards.plots.masks import has_masks, masks
    from gatecrash.boards.plots.reversed import reversed_triggers, stored_reversed
    from gatecrash.boards.plots.tradeoff import tradeoff

    found: dict[str, Callable[[], Any]] = {
        "ASR, ACC and DER of every attack under every defense": partial(heatmap, arranged),
        "What each defense keeps and what it leaves": partial(tradeoff, arranged),
    }
    for defense in arranged.defenses:
        cells = arranged.at(defense=defense)
        if any(stored_reversed(cell, pictures) for cell in cells):
            found[f"Reversed triggers of {defense}"] = partial(reversed_triggers, arranged, pictures, defense)
        if any(has_masks(cell) for cell in cells):
            found[f"Masks of {defense}"] = partial(masks, arranged, defense)
    return found
