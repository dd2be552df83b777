"""The backdoors of victims that have several, one by one: a mean hides the one that a defense leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gatecrash.boards.content import Field, Table
from gatecrash.boards.fields import rate, text
from gatecrash.boards.panel import Panel
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.tables.matrix import MANY
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.result import Result

Value = Callable[[Result], float | None]
MEAN, WORST = "mean", "worst"


def backdoors_table(panel: Panel) -> Table:
    """ASR of each backdoor, their mean and that of the worst, under every defense; without rows where no victim has several backdoors."""
    rows: list[tuple[str, str, Value]] = []
    for attack in panel.attacks:
        cells = [cell for cell in panel.at(attack) if cell.status == "ok"]
        names = list(dict.fromkeys(name for cell in cells for name in cell.measures.asr_by_backdoor or {}))
        if len(names) > 1:
            rows += [(attack, name, partial(_of_one, name=name)) for name in names]
            rows += [(attack, MEAN, _mean), (attack, WORST, _worst)]
    if len(panel.defenses) <= MANY:
        columns = ("attack", "backdoor", *panel.defenses)
        body = [(text(row), text(name), *(_field(panel, row, defense, value) for defense in panel.defenses)) for row, name, value in rows]
        return Table(columns, tuple(body), row_names=columns[:2])
    every = [(row, name, defense, _field(panel, row, defense, value)) for row, name, value in rows for defense in panel.defenses]
    columns = ("attack", "defense", "backdoor", "ASR")
    return Table(columns, tuple((text(row), text(of), text(name), shown) for row, name, of, shown in every), row_names=columns[:3])


def _field(panel: Panel, attack: str, defense: str, value: Value) -> Field:
    cells: Sequence[Result] = [cell for cell in panel.at(attack, defense) if cell.status == "ok"]
    return rate(Interval(over_seeds(cells, value).value, None, None))


def _of_one(cell: Result, name: str) -> float | None:
    return (cell.measures.asr_by_backdoor or {}).get(name)


def _mean(cell: Result) -> float | None:
    return cell.measures.asr


def _worst(cell: Result) -> float | None:
    return cell.measures.asr_worst
