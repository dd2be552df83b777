"""Small grids, and what came of them."""

from __future__ import annotations

from typing import Any

from gatecrash.planning.grid import parse_grid
from gatecrash.records.summary import Summary
from support.grids import SMALL_GRID


def small(**fields: Any) -> Any:
    return parse_grid({**SMALL_GRID, **fields})


def numbers(summary: Summary) -> dict[str, Any]:
    """The measures of each cell, without what depends on the clock."""
    return {
        summary.plan.cells[key].title: {
            name: value for name, value in result.measures.model_dump().items() if not name.startswith(("seconds", "peak_memory"))
        }
        for key, result in summary.results.items()
    }
