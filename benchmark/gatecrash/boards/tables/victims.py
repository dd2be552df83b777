"""Victims without a defense, what victims and defenses cost, and the cells that have no scores."""

from __future__ import annotations

from collections.abc import Sequence

from gatecrash.boards.content import Field, Table
from gatecrash.boards.fields import count, label, summary, table, text
from gatecrash.boards.panel import Panel
from gatecrash.records.measures import MeasureName
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

EXTRA: tuple[MeasureName, ...] = ("leak", "cover_acc", "acc_lost", "source_to_target")


def attacks_alone(panel: Panel) -> Table:
    """The victims as they are, without a defense; measures that few attacks have only where one has them."""
    alone = {attack: _undefended(panel, attack) for attack in panel.attacks}
    extra = [name for name in EXTRA if any(cell.measures.value(name) is not None for cells in alone.values() for cell in cells)]
    landed = panel.landed | panel.harmed
    rows = []
    for attack, cells in alone.items():
        if cells:
            rows.append(
                {
                    "attack": text(attack),
                    **_summaries(cells, "acc", "asr", "asr_floor", "ra", *extra),
                    "landed": count(cell.victim_key in landed for cell in cells) if attack != NONE else Field(kind="count"),
                    **_summaries(cells, "poison_share", "seconds_victim"),
                }
            )
    return table(rows, ("attack",), empty="No attack has finished.")


def cost(panel: Panel) -> Table:
    """Seconds and memory of victims and of defenses."""
    rows = []
    for attack in panel.attacks:
        cells = _undefended(panel, attack)
        if cells:
            rows.append({"": text("victim"), "name": text(attack), **_summaries(cells, "seconds_victim", "peak_memory_mb")})
    for defense in panel.defenses:
        cells = [cell for cell in panel.at(defense=defense) if cell.status == "ok"]
        if defense != NONE and cells:
            rows.append({"": text("defense"), "name": text(defense), **_summaries(cells, "seconds_defense", "peak_memory_mb")})
    return table(rows, ("", "name"), empty="Nothing has finished.")


def lost_cells(panel: Panel, *, with_missing: bool = True) -> list[str]:
    """A line for each cell that failed, does not apply or has no result."""
    lines = [
        f"{panel.attack_of[cell.key]} × {panel.defense_of[cell.key]}, seed {cell.seed}: "
        f"{cell.status}{f': {cell.error}' if cell.error else ''}"
        for cell in panel.cells
        if cell.status != "ok"
    ]
    if with_missing:
        lines += [f"{attack} × {defense}, seed {seed}: missing" for attack, defense, seed in panel.missing()]
    return lines


def _undefended(panel: Panel, attack: str) -> list[Result]:
    return [cell for cell in panel.at(attack, NONE) if cell.status == "ok"]


def _summaries(cells: Sequence[Result], *names: MeasureName) -> dict[str, Field]:
    return {label(name): summary(cells, name) for name in names}
