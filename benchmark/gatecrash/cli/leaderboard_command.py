"""gatecrash leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gatecrash.cli.options import source_options, write_text
from gatecrash.errors import UserError

if TYPE_CHECKING:
    from gatecrash.boards.source import ResultSource


@click.command("leaderboard")
@click.option("--board", default=None, metavar="NAME", help="A published board: generate its files again, and print it.")
@click.option(
    "--check",
    is_flag=True,
    help="Only say whether published boards agree with their results (if not, exit code 1), and what is older.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "html"]),
    default="markdown",
    show_default=True,
    help="CSV has the numbers unrounded: a line for each, with the limits of its interval.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write to this file instead of printing.")
@source_options
def command(source: ResultSource, check: bool, form: str, output: Path | None) -> int:
    """Print the leaderboard: one for each dataset, model and recipe in the store, or a published one.

    Cells that a run asked for and that have no result yet are shown as such.
    """
    if check and form != "markdown":
        raise UserError("--check prints no board; leave --format out")
    if check:
        return _check(source)
    source.check()
    text = _of_board(source, source.board, form) if source.board is not None else _of_store(source, form)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
    return 0


def _check(source: ResultSource) -> int:
    from gatecrash.boards.published.checking import check

    if source.store_path is not None or source.grid is not None:
        raise UserError("--check is about published boards; leave --grid and --store out")
    names = source.boards.names() if source.board is None else [source.board]
    found = check(source.boards, names, source.host)
    for line in (*found.faults, *found.older):
        click.echo(line)
    if not found.faults:
        click.echo(f"{len(names)} {'board agrees with its' if len(names) == 1 else 'boards agree with their'} results")
    return 1 if found.faults else 0


def _of_board(source: ResultSource, name: str, form: str) -> str:
    """The board's files are generated again, unless they are those of a checkout that is not here."""
    from gatecrash.boards.published import HERE
    from gatecrash.boards.published.generated import board_files, board_page, regenerate
    from gatecrash.boards.render import FORMATS

    boards = source.boards
    page = boards.root / f"{name}.md"
    ours = source.boards_path is not None or HERE.is_dir()
    text = regenerate(boards, name, source.host) if ours else board_files(boards, name, source.host)[page]
    return text if form == "markdown" else FORMATS[form]([board_page(boards, name, source.host)])


def _of_store(source: ResultSource, form: str) -> str:
    from gatecrash.boards.leaderboard import leaderboard, missing_cells
    from gatecrash.boards.panel import arrange
    from gatecrash.boards.render import FORMATS

    source.store.check()  # before a dataset is decoded
    planned = source.planned
    if planned is not None and not any(source.store.result(cell.key) for cell in planned.asked()):
        remarks = missing_cells(len(planned.cells), len(planned.cells), str(source.grid))
        return FORMATS[form]([leaderboard(arrange([]), planned.grid, *remarks)])
    groups = source.groups()
    one_grid = source.grid is not None and len(groups) == 1
    title = source.runs[-1].grid if source.runs else source.grid or ""
    return FORMATS[form](
        [
            leaderboard(group.panel, title if one_grid else group.title, *missing_cells(group.missing, len(group.asked), source.grid))
            for group in groups
        ]
    )
