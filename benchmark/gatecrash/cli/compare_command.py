"""gatecrash compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gatecrash.cli.options import boards_in, boards_option, existing_store, store_option
from gatecrash.errors import UserError, did_you_mean


@click.command("compare")
@click.argument("first")
@click.argument("second")
@store_option
@click.option("--board", default=None, metavar="NAME", help="Compare in this published board instead of a store.")
@boards_option
def command(first: str, second: str, store: Path | None, board: str | None, boards_path: Path | None) -> None:
    """Compare the defenses FIRST and SECOND on the victims that both met: FIRST minus SECOND, in points.

    A defense is named as in the tables: `anp`, `fine-pruning (threshold=0.8)`, `activation-clustering + anp`. DER and ASR are compared on
    victims whose backdoor landed, ACC on all. The interval is the 95% t interval over seeds of the mean difference within each seed.
    """
    from gatecrash.boards.panel import panel
    from gatecrash.boards.spec import ground_of
    from gatecrash.cli.leaderboard_command import title_of

    if board is not None and store is not None:
        raise UserError("--board and --store exclude each other")
    results = boards_in(boards_path).results(board) if board is not None else existing_store(store).results()
    groups: dict[tuple[str, ...], list[Any]] = {}
    for result in results:
        groups.setdefault(ground_of(result), []).append(result)
    panels = [panel(members) for _, members in sorted(groups.items())]
    labels = {label for arranged in panels for label in arranged.defenses}
    for name in (first, second):
        if name not in labels:
            raise UserError(f"no results of a defense {name!r}; {_alike(name, labels)}")
    shared = [arranged for arranged in panels if first in arranged.defenses and second in arranged.defenses]
    if not shared:
        raise UserError(f"{first} and {second} have not met the same victims; run both in one grid")
    click.echo("\n".join(f"{title_of(arranged.cells[0])}: {first} - {second}\n{_table(arranged, first, second)}\n" for arranged in shared))


def _alike(name: str, labels: set[str]) -> str:
    variants = sorted(label for label in labels if label.startswith(f"{name} ("))
    return f"give one of: {'; '.join(variants)}" if variants else did_you_mean(name, labels)


def _table(arranged: Any, first: str, second: str) -> str:
    from tabulate import tabulate

    from gatecrash.boards.statistics import paired
    from gatecrash.boards.text import percent
    from gatecrash.records.measures import MeasureName

    compared: tuple[tuple[MeasureName, int], ...] = (("der", 1), ("asr", -1), ("acc", 1))
    rows = []
    for measure, better in compared:
        mine, others = (arranged.at(defense=name) if measure == "acc" else arranged.hit(name) for name in (first, second))
        found = paired(mine, others, measure)
        rows.append([measure.upper(), percent(found.mean) or "–", found.victims, found.seeds, _verdict(found, better, first, second)])
    return tabulate(rows, headers=["", "difference, points", "victims", "seeds", "95% interval"], tablefmt="plain", disable_numparse=True)


def _verdict(found: Any, better: int, first: str, second: str) -> str:
    if found.seeds < 2:
        return "none: needs two seeds or more"
    if found.sign == 0:
        return "includes 0: no difference established"
    return f"{first if found.sign == better else second} is better"
