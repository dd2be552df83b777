"""What each defense does to a victim that has no backdoor."""

from __future__ import annotations

from gatecrash.boards.content import Table
from gatecrash.boards.fields import count, label, rate, summary, table, text
from gatecrash.boards.panel import Panel
from gatecrash.boards.statistics import paired
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result


def benign_effects(panel: Panel) -> Table:
    rows = []
    for defense in panel.defenses:
        cells = benign_cells(panel, defense)
        if defense != NONE and cells:
            rows.append(
                {
                    "defense": text(defense),
                    label("acc_before"): summary(cells, "acc_before"),
                    f"{label('acc')} after": summary(cells, "acc"),
                    f"{label('acc')} lost, paired": rate(paired(benign_cells(panel, NONE), cells, "acc").mean),
                    label("clean_reject_rate"): summary(cells, "clean_reject_rate"),
                    "clean rows flagged": summary(cells, "detection_fpr"),
                    "flagged as backdoored": count(cell.measures.verdict for cell in cells),
                }
            )
    return table(rows, ("defense",), empty="No defense has met the benign victim.")


def benign_cells(panel: Panel, defense: str) -> list[Result]:
    return [cell for cell in panel.at(NONE, defense) if cell.status == "ok"]


def acc_lost(cell: Result) -> float | None:
    before, after = cell.measures.acc_before, cell.measures.acc
    return None if before is None or after is None else before - after
