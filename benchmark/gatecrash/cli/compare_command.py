"""gatecrash compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gatecrash.cli.options import board_option, source_options
from gatecrash.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from gatecrash.boards.panel import Panel
    from gatecrash.boards.source import ResultSource


@click.command("compare")
@click.argument("first")
@click.argument("second")
@board_option
@source_options
def command(source: ResultSource, first: str, second: str) -> None:
    """Compare the defenses FIRST and SECOND on the victims that both were run on: FIRST minus SECOND, in percentage points.

    A defense is named as in the tables, or with options that single it out: `anp`, `fine-pruning(threshold=0.8)`,
    `activation-clustering + anp`. DER and ASR are compared on
    victims whose backdoor landed (ASR at least 50 points above that of the benign victim), ACC on all. The interval is the 95% t interval
    over seeds of the mean difference within each seed.
    """
    groups = source.groups()
    labels = {label for group in groups for label in group.panel.defenses}
    found = [[_label(group.panel, name) for name in (first, second)] for group in groups]
    for index, name in enumerate((first, second)):
        if not any(pair[index] for pair in found):
            raise UserError(f"no results of a defense {name!r}; {_alike(name, labels)}")
    shared = [(group, pair[0], pair[1]) for group, pair in zip(groups, found, strict=True) if pair[0] and pair[1]]
    if not shared:
        raise UserError(f"{first} and {second} were not run on the same victims; run both in one grid")
    click.echo("\n".join(f"{group.title}: {one} - {other}\n{_table(group.panel, one, other)}\n" for group, one, other in shared))


def _label(panel: Panel, name: str) -> str | None:
    """The only defense that the name means: in each panel labels have the options that vary there."""
    from gatecrash.planning.selection import means

    if name in panel.defenses:
        return name
    fitting = [label for label in panel.defenses if any(means(name, label, tuple(cell.defense)) for cell in panel.at(defense=label)[:1])]
    alone = [label for label in fitting if all(len(cell.defense) == 1 for cell in panel.at(defense=label)[:1])] or fitting
    return alone[0] if len(alone) == 1 else None


def _alike(name: str, labels: set[str]) -> str:
    variants = sorted(label for label in labels if label.startswith(f"{name} ("))
    return f"give one of: {'; '.join(variants)}" if variants else did_you_mean(name, labels)


def _table(panel: Panel, first: str, second: str) -> str:
    from tabulate import tabulate

    from gatecrash.boards.statistics import paired
    from gatecrash.boards.text import percent
    from gatecrash.records.measures import MEASURES, MeasureName

    compared: tuple[MeasureName, ...] = ("der", "asr", "acc")
    rows = []
    for name in compared:
        measure = MEASURES[name]
        mine, others = (panel.at(defense=defense) if name == "acc" else panel.hit(defense) for defense in (first, second))
        found = paired(mine, others, name)
        verdict = _verdict(found, 1 if measure.better == "high" else -1, first, second)
        rows.append([measure.label, percent(found.mean) or "–", found.victims, found.seeds, verdict])
    return tabulate(rows, headers=["", "difference, points", "victims", "seeds", "95% interval"], tablefmt="plain", disable_numparse=True)


def _verdict(found: Any, better: int, first: str, second: str) -> str:
    if found.seeds < 2:
        return "none: needs two seeds or more"
    if found.sign == 0:
        return "includes 0: no difference established"
    return f"{first if found.sign == better else second} is better"
