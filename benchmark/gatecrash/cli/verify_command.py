"""gatecrash verify."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from gatecrash.cli.options import boards_option, check_device, overrides_option, parse_overrides, plugins_option
from gatecrash.errors import UserError


@click.command("verify")
@click.argument("what", metavar="RESULT.json|BOARD")
@click.option("--sample", "size", type=click.IntRange(1), default=None, metavar="K", help="Only K cells of the board, the same each time.")
@click.option("--device", default=None, metavar="NAME", help="cpu, cuda or cuda:N.  [default: CUDA where there is one]")
@boards_option
@overrides_option
@plugins_option
def command(
    what: str, size: int | None, device: str | None, boards_path: Path | None, overrides: tuple[str, ...], plugin_paths: tuple[Path, ...]
) -> int:
    """Run a published result, or the cells of a board, again from the stored spec, in a temporary store, and compare.

    First, a result's measures must follow from its own counts. On the same kind of machine (CPU, torch, threads) every measure must then be
    equal to the last digit. On any other, each must lie within limits that are measured here: over test images or, for a board with several
    seeds, where one more training is expected. If the dataset lies in another folder here, name it: -o dataset.imagefolder.root=DIR. Cells
    that were measured with older versions than those installed are named, not run. Exit code 1 if a cell is not confirmed.
    """
    from gatecrash.boards.published import read_result
    from gatecrash.boards.source import ResultSource
    from gatecrash.boards.verify import sample, verify
    from gatecrash.records.store import Store

    changes = parse_overrides(overrides)
    check_device(device)
    source = ResultSource(board=what, boards_path=boards_path, plugin_paths=plugin_paths)
    siblings = [] if what.endswith(".json") else source.results()
    chosen = sample(siblings or [read_result(Path(what))], size)
    if not chosen:
        raise UserError(f"{what} has no finished cell; there is nothing to verify")
    confirmed = older = 0
    with tempfile.TemporaryDirectory(prefix="gatecrash-verify-") as folder:
        store = Store(Path(folder)).open()
        for result in chosen:
            found = verify(result, store, source.host, siblings=siblings, overrides=changes, device=device)
            confirmed += found.good
            older += found.outcome == "outdated"
            title = f"{result.attack.name} × {result.defense_name} (seed {result.seed})"
            click.echo(f"{found.outcome:9} {title}{f': {found.detail}' if found.detail else ''}")
    click.echo(f"{confirmed} of {len(chosen)} cells confirmed{f', {older} older and not run' if older else ''}", err=True)
    return 0 if confirmed + older == len(chosen) else 1
