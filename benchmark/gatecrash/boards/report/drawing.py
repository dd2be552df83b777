"""The plots of a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.boards.plots.style import save
from gatecrash.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
