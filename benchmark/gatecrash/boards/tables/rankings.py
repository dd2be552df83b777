"""Defenses by their effectiveness, attacks by the defenses that they survive."""

from __future__ import annotations

from gatecrash.boards.content import Field, Table
from gatecrash.boards.fields import label, rank, rate, share, summary, table, text
from gatecrash.boards.panel import Panel
from gatecrash.boards.standings import UNKNOWN, DefenseStanding, attack_standings, defense_standings
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.tables.benign import acc_lost, benign_cells
from gatecrash.records.measures import MeasureName

RANKED: tuple[MeasureName, ...] = ("asr", "ra", "clean_reject_rate")
"""Beside DER, by which defenses are ranked."""


def defense_rankings(panel: Panel, *, details: bool = True) -> list[Table]:
    """A table for each access class; without `details` none says which attack a defense does worst against."""
    classes = defense_standings(panel)
    return [
        table(
            [_defense_row(panel, standing, details) for standing in standings],
            ("defense",),
            title=access[0].upper() + access[1:] if len(classes) > 1 or access != UNKNOWN else "",
        )
        for access, standings in classes.items()
    ]


def _defense_row(panel: Panel, standing: DefenseStanding, details: bool) -> dict[str, Field]:
    lacking = f"{standing.lacking} of {len(panel.landed)} victims lacking" if standing.lacking else ""
    row = {
        "rank": rank(standing.rank),
        "defense": text(standing.defense, lacking),
        label("der"): rate(standing.der),
        **{label(name): summary(standing.cells, name) for name in RANKED},
        f"{label('acc')} lost on benign": rate(over_seeds(benign_cells(panel, standing.defense), acc_lost, least=-1.0)),
    }
    if details:
        row["worst against"] = text(standing.worst, f"{label('der')} {100 * standing.worst_der:.1f}")
    return row | {label("seconds_defense"): summary(standing.cells, "seconds_defense")}


def attack_ranking(panel: Panel) -> Table:
    rows = [
        {
            "rank": rank(standing.rank),
            "attack": text(standing.attack),
            "survives": share(standing.survived, standing.met, "defenses"),
            f"{label('asr')} left, mean": rate(standing.asr_left),
            "weakest against": text(standing.hardest),
        }
        for standing in attack_standings(panel)
    ]
    return table(rows, ("attack",), empty="No attack that landed has met a defense.")
