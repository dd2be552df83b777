"""gatecrash report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gatecrash.cli.options import source_options, write_text

if TYPE_CHECKING:
    from gatecrash.boards.panel import Panel
    from gatecrash.boards.report import IllustratedPanel
    from gatecrash.boards.source import ResultGroup, ResultSource


@click.command("report")
@click.argument("board", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file to write.  [default: report.html, or BOARD.html]",
)
@source_options
def command(source: ResultSource, output: Path | None) -> None:
    """Write one HTML page of a store's results, or of the published BOARD: tables to sort, plots, and every cell's details.

    The page needs no network: everything is in the file.
    """
    from gatecrash.boards.report import report

    panels = [_illustrated(source, group) for group in source.groups()]
    path = output if output is not None else Path(f"{source.board or 'report'}.html")
    write_text(path, report(source.board or "Gatecrash results", panels))
    for panel in panels:
        for note in panel.notes:
            click.echo(f"note: {panel.title}: not drawn: {note}", err=True)
    click.echo(str(path))


def _illustrated(source: ResultSource, group: ResultGroup) -> IllustratedPanel:
    """A board has its picture of the triggers; of a store's results it is drawn from the victims."""
    from gatecrash.boards.published import FIGURES
    from gatecrash.boards.report import IllustratedPanel, drawn, plots_of

    makers = plots_of(group.panel, source.pictures)
    if source.board is None:
        makers[FIGURES["triggers"]] = partial(_triggers, source, group.panel)
    plots, notes = drawn(makers)
    if source.board is not None and (picture := source.boards.figure(source.board, "triggers")).is_file():
        plots[FIGURES["triggers"]] = picture.read_bytes()
    return IllustratedPanel(source.board or group.title, group.panel, source.pictures, plots, notes)


def _triggers(source: ResultSource, panel: Panel) -> Any:
    from gatecrash.boards.plots.triggers import dataset_of, stored_triggers, triggers

    return triggers(panel, stored_triggers(panel, source.store, dataset_of(panel, source.host)))
