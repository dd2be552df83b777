"""All that a report shows of a single cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gatecrash.boards.content import Picture
from gatecrash.boards.pictures import picture
from gatecrash.boards.render.html import png_uri
from gatecrash.records.measures import MEASURES
from gatecrash.records.result import Result

ROWS = 300
"""Of a kept table; longer ones are cut, and say so."""
STEP_RATES = ("acc", "asr", "ra")
"""Of a trajectory."""
HIDDEN = frozenset({"scores"})
"""Measures that are counts behind the others."""


def cell_details(cell: Result, pictures: Path) -> dict[str, Any]:
    """For the template; `pictures` is the folder below which the cell's figures lie."""
    plugins = [("attack", cell.attack)]
    plugins += [("skipped defense" if place in cell.skipped else "defense", stage) for place, stage in enumerate(cell.defense)]
    contents = {shows: picture(pictures, path) for shows, path in cell.figures.items()}
    tables = [("trajectory", list(_steps(cell))), *sorted(cell.tables.items())]
    return {
        "seed": cell.seed,
        "status": cell.status,
        "error": cell.error,
        "facts": {"key": cell.key, "log": cell.log, **cell.provenance.model_dump(include={"date", "device", "cpu", "commit"})},
        "configs": [
            {
                "kind": kind,
                "name": f"{stage.name} (version {stage.version})",
                "options": _given(stage.config),
            }
            for kind, stage in plugins
        ],
        "measures": dict(_measures(cell)),
        "figures": [Picture(shows, png_uri(png)) for shows, png in contents.items() if png is not None],
        "tables": [_table(name, rows) for name, rows in tables if rows],
    }


def shown(value: Any) -> str:
    """A stored value for a person."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(part)}" for key, part in value.items())
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _measures(cell: Result) -> Iterator[tuple[str, Any]]:
    """By name; rates in percent, as everywhere."""
    for name, value in sorted(cell.measures.model_dump().items()):
        if value is not None and name not in HIDDEN:
            yield (f"{name}, %", _percent(value)) if MEASURES[name].unit == "rate" else (name, value)


def _percent(value: Any) -> Any:
    """A rate, the limits of its interval, or rates by name."""
    if isinstance(value, Mapping):
        return {name: _percent(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return " to ".join(map(_percent, value))
    return None if value is None else f"{100 * value:.1f}"


def _steps(cell: Result) -> Iterator[dict[str, Any]]:
    """The trajectory as a flat table."""
    for step in cell.trajectory:
        scored = step.model_dump(exclude={"params"})
        rates = {f"{name}, %": _percent(scored.pop(name, None)) for name in STEP_RATES}
        yield {**step.params, **rates, **scored}


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    body = [[row.get(column) for column in columns] for row in rows[:ROWS]]
    return {"name": name, "columns": columns, "rows": body, "more": max(0, len(rows) - ROWS)}
