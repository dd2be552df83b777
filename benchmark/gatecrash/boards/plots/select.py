"""Which cells a figure of single cells shows."""

from __future__ import annotations

from collections.abc import Callable

from gatecrash.boards.panel import Panel
from gatecrash.errors import UserError, did_you_mean
from gatecrash.records.result import Result


def chosen_cells(panel: Panel, has: Callable[[Result], bool], what: str, defense: str | None, attack: str | None) -> list[Result]:
    """A cell for each attack: that of the lowest seed which has `what`, under one defense (the first that has it, unless it is given).

    Raises UserError with what there is.
    """
    _check("defense", defense, panel.defenses)
    _check("attack", attack, panel.attacks)
    for name in panel.defenses if defense is None else [defense]:
        found = [next((cell for cell in panel.at(row, name) if has(cell)), None) for row in panel.attacks if attack in {None, row}]
        cells = [cell for cell in found if cell is not None]
        if cells:
            return cells
    of = f" of {defense}" if defense is not None else ""
    on = f" on {attack}" if attack is not None else ""
    raise UserError(f"no result{of}{on} has {what}; run a defense that keeps them")


def _check(kind: str, label: str | None, known: tuple[str, ...]) -> None:
    if label is not None and label not in known:
        raise UserError(f"no results of the {kind} {label!r}; {did_you_mean(label, known)}")
