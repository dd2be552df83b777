"""Every attack under every defense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from gatecrash.boards.content import Field, Table
from gatecrash.boards.fields import measured, text
from gatecrash.boards.panel import Panel
from gatecrash.records.measures import MeasureName
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

MANY = 12
"""With more defenses than this each gets a row instead of a column, here and in figures."""


OUTDATED = "†"
"""Marks cells that were measured with an older version of something installed here."""


def matrix(
    panel: Panel,
    measures: Sequence[MeasureName],
    outdated: Collection[str] = (),
    *,
    attacks: Sequence[str] | None = None,
    link: Callable[[str, str], str] | None = None,
) -> Table:
    """The measures, joined by /, of every attack (or of those named) under every defense.

    Cells whose keys are in `outdated` are marked. `link` gives a field's target from its attack and its defense. A row for each attack, or,
    where defenses are many, for each defense.
    """

    def field(attack: str, defense: str) -> Field:
        target = link(attack, defense) if link is not None else ""
        return replace(matrix_field(panel, attack, defense, measures, outdated), link=target)

    names = tuple(panel.attacks if attacks is None else attacks)
    if len(panel.defenses) <= MANY:
        body = [(text(attack), *(field(attack, defense) for defense in panel.defenses)) for attack in names]
        return Table(("attack \\ defense", *panel.defenses), tuple(body), row_names=("attack \\ defense",))
    body = [(text(defense), *(field(attack, defense) for attack in names)) for defense in panel.defenses]
    return Table(("defense \\ attack", *names), tuple(body), row_names=("defense \\ attack",))


def accuracy_restored(panel: Panel) -> Table:
    """RA of every attack under every defense."""
    return matrix(panel, ["ra"], attacks=[name for name in panel.attacks if name != NONE])


def matrix_field(panel: Panel, attack: str, defense: str, measures: Sequence[MeasureName], outdated: Collection[str] = ()) -> Field:
    """The finished seeds of one attack and defense together, and what became of the others."""
    cells = panel.at(attack, defense)
    done = [cell for cell in cells if cell.status == "ok"]
    lost = Counter(str(cell.status) for cell in cells if cell.status != "ok")
    lost["missing"] = len(panel.seeds) - len(cells)
    lost = +lost  # without what there is none of
    if not done:
        return Field(", ".join(lost), "mark")
    note = ", ".join([f"n={len(done)}", *(f"{count} {status}" for status, count in lost.items())]) if lost else ""
    parts = [measured(done, name) for name in measures if not (name == "der" and _undefended(done))]
    parts = [part for part in parts if part.numbers]
    mark = OUTDATED if any(cell.key in outdated for cell in cells) else ""
    shown = " / ".join(part.text for part in parts)
    return Field(shown + mark, "rate", tuple(number for part in parts for number in part.numbers), note)


def _undefended(cells: Sequence[Result]) -> bool:
    """Whether these are the cells that a defense's effectiveness is measured against."""
    return all(cell.defense_name == NONE for cell in cells)
