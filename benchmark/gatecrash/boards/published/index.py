"""The list of published boards."""

from __future__ import annotations

from collections.abc import Sequence

from gatecrash.boards.content import Block, Code, Content, Field, Section, paragraph
from gatecrash.boards.fields import table, text
from gatecrash.boards.panel import arrange
from gatecrash.boards.published.folder import Boards
from gatecrash.boards.spec import dataset_label
from gatecrash.boards.standings import DefenseStanding, defense_standings
from gatecrash.boards.text import percent


def index(boards: Boards) -> Content:
    """A row for each board, with its best defenses."""
    rows = [_row(boards, name) for name in boards.names()]
    none_yet = paragraph("No board is published yet: ", Code("gatecrash publish GRID --board NAME"), ".")
    body: Block = table(rows, ("board",)) if rows else none_yet
    note = paragraph("Defenses joined by = share the first rank: no difference between them is established.")
    return Content("Leaderboards", (Section("", (body, note)),))


def _row(boards: Boards, name: str) -> dict[str, Field]:
    panel = arrange(boards.results(name))
    first = panel.cells[0]
    best = [f"{_best(standings)} ({access})" for access, standings in defense_standings(panel).items()]
    return {
        "board": Field(name, link=f"{name}.md"),
        "dataset": text(dataset_label(first)),
        "model": text(first.model.name),
        "attacks × defenses × seeds": text(f"{len(panel.attacks)} × {len(panel.defenses)} × {len(panel.seeds)}"),
        "best defense by mean DER (access class)": text("; ".join(best)),
    }


def _best(standings: Sequence[DefenseStanding]) -> str:
    first = [standing for standing in standings if standing.rank == 1]
    if first:
        return " = ".join(f"{standing.defense} {percent(standing.der)}" for standing in first)
    return f"{standings[0].defense} {percent(standings[0].der)}, unranked"
