"""The plots of a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.heatmap import heatmap
from gatecrash.boards.plots.masks import has_masks, masks
from gatecrash.boards.plots.reversed import reversed_triggers, stored_reversed
from gatecrash.boards.plots.style import save
from gatecrash.boards.plots.tradeoff import tradeoff
from gatecrash.boards.published.folder import FIGURES
from gatecrash.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots_of(panel: Panel, pictures: Path) -> dict[str, Callable[[], Figure]]:
    """What draws the plots that these results have data for, by what they show; their pictures lie below the folder `pictures`."""
    makers: dict[str, Callable[[], Figure]] = {
        FIGURES["heatmap"]: partial(heatmap, panel),
        "ACC and ASR of each defense": partial(tradeoff, panel),
    }
    for defense in panel.defenses:
        cells = panel.at(defense=defense)
        if any(stored_reversed(cell, pictures) for cell in cells):
            makers[f"Reversed triggers of {defense}"] = partial(reversed_triggers, panel, pictures, defense)
        if any(has_masks(cell) for cell in cells):
            makers[f"Masks of {defense}"] = partial(masks, panel, defense)
    return makers


def drawn(makers: Mapping[str, Callable[[], Figure]]) -> tuple[dict[str, bytes], list[str]]:
    """PNGs of the figures that can be drawn, by what they show, and a line for each that cannot."""
    figures, notes = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        for shows, make in makers.items():
            try:
                save(make(), path)
                figures[shows] = path.read_bytes()
            except UserError as error:
                notes.append(f"{shows}: {error}")
    return figures, notes
