"""The tables of a board. Each function gives Markdown of one panel, without a heading."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from gatecrash.boards.panel import NONE, Panel
from gatecrash.boards.standings import UNKNOWN, DefenseStanding, attack_standings, defense_standings
from gatecrash.boards.statistics import over_seeds, paired
from gatecrash.boards.text import escape, percent, spread, table
from gatecrash.records.measures import MeasureName
from gatecrash.records.result import Result

OUTDATED = "†"
"""Marks cells that were measured with an older version of something installed here."""


def matrix(panel: Panel, outdated: Collection[str] = ()) -> str:
    """ACC / ASR of every attack under every defense."""
    return _matrix(panel, _acc_and_asr, outdated)


def matrix_by_defense(panel: Panel, outdated: Collection[str] = ()) -> str:
    """The same the other way round, which is narrower: defenses are many."""
    rows = []
    for defense in panel.defenses:
        row = {"defense \\ attack": escape(defense)}
        for attack in panel.attacks:
            row[escape(attack)] = _cell(panel, panel.at(attack, defense), _acc_and_asr, outdated)
        rows.append(row)
    return table(rows)


def accuracy_restored(panel: Panel) -> str:
    """RA of every attack under every defense."""
    return _matrix(panel, lambda cells: percent(over_seeds(cells, "ra")), attacks=[name for name in panel.attacks if name != NONE])


def _matrix(panel: Panel, text: Callable[[list[Result]], str], outdated: Collection[str] = (), attacks: Sequence[str] | None = None) -> str:
    rows = []
    for attack in panel.attacks if attacks is None else attacks:
        row = {"attack \\ defense": escape(attack)}
        for defense in panel.defenses:
            row[escape(defense)] = _cell(panel, panel.at(attack, defense), text, outdated)
        rows.append(row)
    return table(rows)


def _cell(panel: Panel, cells: list[Result], text: Callable[[list[Result]], str], outdated: Collection[str]) -> str:
    """Its finished seeds together, and what became of the others."""
    done = [cell for cell in cells if cell.status == "ok"]
    counts: dict[str, int] = {}
    for cell in cells:
        if cell.status != "ok":
            counts[cell.status] = counts.get(cell.status, 0) + 1
    if len(cells) < len(panel.seeds):
        counts["missing"] = len(panel.seeds) - len(cells)
    if not done:
        return ", ".join(counts)
    notes = [f"n={len(done)}", *(f"{count} {status}" for status, count in counts.items())] if counts else []
    mark = OUTDATED if any(cell.key in outdated for cell in cells) else ""
    return text(done) + (f" ({', '.join(notes)})" if notes else "") + mark


def _acc_and_asr(done: list[Result]) -> str:
    text = spread([cell.measures.acc for cell in done if cell.measures.acc is not None], done[0].measures.acc_interval)
    rates = [cell.measures.asr for cell in done if cell.measures.asr is not None]
    return f"{text} / {spread(rates, done[0].measures.asr_interval)}" if rates else text


def attacks_alone(panel: Panel) -> str:
    """The victims as they are, without a defense."""
    rows = []
    for attack in panel.attacks:
        plain = [cell for cell in panel.at(attack, NONE) if cell.status == "ok"]
        if plain:
            landed = f"{sum(cell.victim_key in panel.landed for cell in plain)} of {len(plain)}" if attack != NONE else ""
            rows.append(
                {
                    "attack": escape(attack),
                    "ACC": percent(over_seeds(plain, "acc")),
                    "ASR": percent(over_seeds(plain, "asr")),
                    "ASR on a benign model": percent(over_seeds(plain, "asr_floor")),
                    "RA": percent(over_seeds(plain, "ra")),
                    "landed": landed,
                    "poisoned": percent(over_seeds(plain, "poison_share")),
                    "seconds": _mean(plain, "seconds_victim"),
                }
            )
    return table(rows) if rows else "No attack has finished."


def defense_ranking(panel: Panel, *, details: bool = True) -> str:
    """A table for each access class."""
    classes = defense_standings(panel)
    if not classes:
        return "No defense has met an attack that landed."
    parts = []
    for access, standings in classes.items():
        if len(classes) > 1 or access != UNKNOWN:
            parts += [f"**{escape(access[0].upper() + access[1:])}**", ""]
        parts += [table([_standing_row(panel, one, details) for one in standings]), ""]
    return "\n".join(parts).rstrip()


def _standing_row(panel: Panel, one: DefenseStanding, details: bool) -> dict[str, str]:
    row = {
        "rank": "–" if one.rank is None else str(one.rank),
        "defense": escape(one.defense) + (f" ({one.lacking} of {len(panel.landed)} victims lacking)" if one.lacking else ""),
        "DER": percent(one.der),
        "ASR": percent(over_seeds(one.cells, "asr")),
        "RA": percent(over_seeds(one.cells, "ra")),
        "clean rejected": percent(over_seeds(one.cells, "clean_reject_rate")),
        "ACC lost on benign": percent(over_seeds(_benign(panel, one.defense), _acc_lost, least=-1.0)),
    }
    if details:
        row["worst against"] = f"{escape(one.worst)} (DER {100 * one.worst_der:.1f})"
    row["seconds"] = _mean(one.cells, "seconds_defense")
    return row


def attack_ranking(panel: Panel) -> str:
    rows = [
        {
            "rank": str(one.rank),
            "attack": escape(one.attack),
            "survives": f"{one.survived} of {one.met} defenses",
            "ASR left, mean": percent(one.asr_left),
            "weakest against": escape(one.hardest),
        }
        for one in attack_standings(panel)
    ]
    return table(rows) if rows else "No attack that landed has met a defense."


def benign_price(panel: Panel) -> str:
    """What each defense costs a victim in which there is nothing to defend against."""
    rows = []
    for defense in panel.defenses:
        cells = _benign(panel, defense)
        if defense != NONE and cells:
            lost = paired(_benign(panel, NONE), cells, "acc").mean
            rows.append(
                {
                    "defense": escape(defense),
                    "ACC before": percent(over_seeds(cells, "acc_before")),
                    "ACC after": percent(over_seeds(cells, "acc")),
                    "ACC lost, paired": percent(lost),
                    "clean rejected": percent(over_seeds(cells, "clean_reject_rate")),
                    "clean rows flagged": percent(over_seeds(cells, "detection_fpr")),
                    "called backdoored": _count([cell.measures.verdict for cell in cells]),
                }
            )
    return table(rows) if rows else "No defense has met the benign victim."


def cost(panel: Panel) -> str:
    """Seconds and memory of victims and of defenses."""
    rows = []
    for attack in panel.attacks:
        cells = [cell for cell in panel.at(attack, NONE) if cell.status == "ok"]
        if cells:
            rows.append(_cost_row("victim", attack, cells, "seconds_victim"))
    for defense in panel.defenses:
        cells = [cell for cell in panel.at(defense=defense) if cell.status == "ok"]
        if defense != NONE and cells:
            rows.append(_cost_row("defense", defense, cells, "seconds_defense"))
    return table(rows) if rows else "Nothing has finished."


def _cost_row(kind: str, name: str, cells: list[Result], measure: MeasureName) -> dict[str, str]:
    memory = [cell.measures.peak_memory_mb for cell in cells if cell.measures.peak_memory_mb is not None]
    return {"": kind, "name": escape(name), "seconds": _mean(cells, measure), "peak memory, MB": f"{max(memory):,.0f}" if memory else ""}


def lost_cells(panel: Panel, *, with_missing: bool = True) -> list[str]:
    """A line for each cell that failed, does not apply or has no result."""
    lines = [
        f"- {escape(panel.attack_of[cell.key])} × {escape(panel.defense_of[cell.key])}, seed {cell.seed}: "
        f"{cell.status}{f': {escape(cell.error)}' if cell.error else ''}"
        for cell in panel.cells
        if cell.status != "ok"
    ]
    if with_missing:
        lines += [f"- {escape(attack)} × {escape(defense)}, seed {seed}: missing" for attack, defense, seed in panel.missing()]
    return lines


def _benign(panel: Panel, defense: str) -> list[Result]:
    return [cell for cell in panel.at(NONE, defense) if cell.status == "ok"]


def _acc_lost(cell: Result) -> float | None:
    before, after = cell.measures.acc_before, cell.measures.acc
    return None if before is None or after is None else before - after


def _mean(cells: Sequence[Result], measure: MeasureName) -> str:
    values = [value for cell in cells if (value := cell.measures.value(measure)) is not None]
    return f"{sum(values) / len(values):.1f}" if values else ""


def _count(values: list[Any]) -> str:
    given = [value for value in values if value is not None]
    return f"{sum(map(bool, given))} of {len(given)}" if given else ""
