"""One HTML page of many results, for a person with a browser: nothing is fetched, nothing that a plugin wrote is markup.

Everything is in the file: pictures are data URIs, style and script are inline, and the page's own content security policy allows just
these (by their hashes) and no connection at all. It reads without the script too: sorting and choosing a measure are conveniences.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gatecrash.boards.detectors import model_detectors, sample_detectors
from gatecrash.boards.page import provenance_facts
from gatecrash.boards.panel import NONE, Panel
from gatecrash.boards.pictures import picture
from gatecrash.boards.spec import dataset_label
from gatecrash.boards.standings import UNKNOWN, attack_standings, defense_standings
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.text import percent, spread
from gatecrash.records.measures import MEASURES, MeasureName
from gatecrash.records.result import Result

SHOWN: tuple[MeasureName, ...] = ("asr", "acc", "ra", "der")
"""Measures that the matrix can show, the first at the start."""
RANKED: tuple[MeasureName, ...] = ("der", "asr", "ra", "clean_reject_rate")
"""Columns of the ranking."""
ROWS = 300
"""Of a kept table; longer ones are cut, and say so."""
HIDDEN = frozenset({"scores"})
"""Measures that are counts behind the others."""


@dataclass(frozen=True)
class Section:
    """Results that can stand in one table."""

    title: str
    panel: Panel
    pictures: Path
    """The folder below which the cells' figures lie."""
    plots: Mapping[str, bytes]
    """PNG by what it shows."""
    notes: Sequence[str] = ()
    """What could not be drawn, and why."""


def report(title: str, sections: Sequence[Section]) -> str:
    """The page, as HTML."""
    from jinja2 import Environment, StrictUndefined

    style, script = (_file(name) for name in ("report.css", "report.js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    return environment.from_string(_file("report.html")).render(
        title=title,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        measures={name: (MEASURES[name].label, _meaning(name)) for name in SHOWN},
        sections=[_section(number, section) for number, section in enumerate(sections)],
    )


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def shown(value: Any) -> str:
    """A stored value for a person."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(one)}" for key, one in value.items())
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def _section(number: int, section: Section) -> dict[str, Any]:
    from gatecrash.boards.leaderboard import caveats, how_to_read

    arranged = section.panel
    first = arranged.cells[0]
    cells = {
        (defense, attack): _group(f"s{number}-d{row}-a{column}", section, attack, defense)
        for row, defense in enumerate(arranged.defenses)
        for column, attack in enumerate(arranged.attacks)
    }
    return {
        "id": f"s{number}",
        "title": section.title,
        "setting": f"{dataset_label(first)}, {first.model.name}, {first.recipe.get('epochs')} epochs; "
        f"seeds {', '.join(map(str, arranged.seeds))}",
        "notes": [note.replace("**", "") for note in caveats(arranged)],
        "how": how_to_read(arranged),
        "attacks": arranged.attacks,
        "none": NONE,
        "rows": [{"defense": name, "cells": [cells[name, attack] for attack in arranged.attacks]} for name in arranged.defenses],
        "classes": _defenses(arranged),
        "survivors": _attacks(arranged),
        "detectors": {
            "Of poisoned training rows (rates in %; on none every flagged row is a false alarm)": sample_detectors(arranged),
            "Of backdoored models (each victim is one; intervals are 95%)": model_detectors(arranged),
        },
        "plots": [{"shows": shows, "uri": _uri(png)} for shows, png in section.plots.items()],
        "undrawn": list(section.notes),
        "groups": list(cells.values()),
        "facts": provenance_facts(arranged),
    }


def _meaning(name: MeasureName) -> str:
    measure = MEASURES[name]
    return f"{measure.title}, %; {measure.direction}{', 50 is no effect' if name == 'der' else ''}"


def _group(anchor: str, section: Section, attack: str, defense: str) -> dict[str, Any]:
    """One field of the matrix: its seeds together."""
    cells = section.panel.at(attack, defense)
    done = [cell for cell in cells if cell.status == "ok"]
    ended = [*(str(cell.status) for cell in cells), *["missing"] * (len(section.panel.seeds) - len(cells))]
    counts = {status: ended.count(status) for status in dict.fromkeys(ended)}
    lost = ", ".join(f"{count} {status}" if done else status for status, count in counts.items() if status != "ok")
    return {
        "id": anchor,
        "attack": attack,
        "defense": defense,
        "lost": lost,
        "values": {name: _measured(done, name) for name in SHOWN},
        "seeds": [_cell(cell, section.pictures) for cell in cells],
    }


def _measured(done: Sequence[Result], measure: MeasureName) -> dict[str, Any]:
    if measure == "der" and all(cell.defense_name == NONE for cell in done):
        done = []  # effectiveness is measured against these
    mean = over_seeds(done, measure)
    rates = [value for cell in done if (value := cell.measures.value(measure)) is not None]
    single = done[0].measures.limits(measure) if len(rates) == 1 else None
    return {"text": spread(rates, single) if single is not None else percent(mean), "number": mean.value}


def _cell(cell: Result, pictures: Path) -> dict[str, Any]:
    plugins = [("attack", cell.attack), *(("defense", stage) for stage in cell.defense)]
    found = {shows: picture(pictures, path) for shows, path in cell.figures.items()}
    tables = [("trajectory", list(_steps(cell))), *sorted(cell.tables.items())]
    return {
        "seed": cell.seed,
        "status": cell.status,
        "error": cell.error,
        "facts": {"key": cell.key, "log": cell.log, **cell.provenance.model_dump(include={"date", "device", "cpu", "commit"})},
        "configs": [{"kind": kind, "name": f"{stage.name} (version {stage.version})", "options": stage.config} for kind, stage in plugins],
        "measures": {name: value for name, value in sorted(cell.measures.model_dump().items()) if value is not None and name not in HIDDEN},
        "figures": [{"shows": shows, "uri": _uri(png)} for shows, png in found.items() if png is not None],
        "tables": [_table(name, rows) for name, rows in tables if rows],
    }


def _steps(cell: Result) -> Iterator[dict[str, Any]]:
    """The trajectory as a flat table."""
    for step in cell.trajectory:
        yield {**step.params, **step.model_dump(exclude={"params"})}


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    body = [[row.get(column) for column in columns] for row in rows[:ROWS]]
    return {"name": name, "columns": columns, "rows": body, "more": max(0, len(rows) - ROWS)}


def _defenses(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "access": "" if access == UNKNOWN else access,
            "rows": [
                [
                    "–" if one.rank is None else one.rank,
                    one.defense + (f" ({one.lacking} of {len(panel.landed)} victims lacking)" if one.lacking else ""),
                    *(percent(over_seeds(one.cells, measure)) for measure in RANKED),
                    f"{one.worst} (DER {100 * one.worst_der:.1f})",
                    _mean(one.cells, "seconds_defense"),
                ]
                for one in standings
            ],
        }
        for access, standings in defense_standings(panel).items()
    ]


def _attacks(panel: Panel) -> list[list[Any]]:
    return [
        [one.rank, one.attack, f"{one.survived} of {one.met} defenses", percent(one.asr_left), one.hardest]
        for one in attack_standings(panel)
    ]


def _mean(cells: Sequence[Result], measure: MeasureName) -> str:
    value = over_seeds(cells, measure).value
    return "" if value is None else f"{value:.1f}"


Drawings = Mapping[str, Callable[[], Any]]


def drawn(drawings: Drawings) -> tuple[dict[str, bytes], list[str]]:
    """PNGs of the figures that can be drawn, by what they show, and a line for each that cannot."""
    import tempfile

    from gatecrash.boards.plots.style import save
    from gatecrash.errors import UserError

    found, notes = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        for shows, make in drawings.items():
            try:
                save(make(), path)
                found[shows] = path.read_bytes()
            except UserError as error:
                notes.append(f"{shows}: {error}")
    return found, notes
