"""Reversed triggers: the smallest pattern that a defense such as Neural Cleanse found to move images into each class."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatecrash.boards.panel import Panel
from gatecrash.boards.pictures import picture
from gatecrash.boards.plots.select import chosen_cells
from gatecrash.boards.plots.style import COLOURS, drawing, short
from gatecrash.records.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACCUSED = COLOURS[1]


LINE = 10
"""Classes side by side; further classes are drawn below."""


ROWS = ("mask", "pattern", "mask × pattern")


INCHES = 0.92
"""Side of a tile. All other lengths are in tiles."""


GAP, LEFT, ABOVE, BELOW, HEADER = 0.06, 1.35, 0.42, 0.6, 0.4


LEAST_WIDTH = 4.2
"""Tiles beside each other, at least, so that a header has room."""


Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class ReversedTrigger:
    """The trigger found for one class. `mask` float [H, W] and `pattern` float [H, W] or [H, W, 3], in [0, 1]."""

    name: str
    mask: Pixels
    pattern: Pixels
    norm: float | None = None
    anomaly: float | None = None
    accused: bool = False

    @property
    def masked(self) -> Pixels:
        """What the trigger adds to an image: the pattern where the mask lets it through."""
        return self.pattern * (self.mask if self.pattern.ndim == 2 else self.mask[..., None])


def stored_reversed(result: Result, root: Path) -> list[ReversedTrigger]:
    """The triggers that a cell kept: pictures `mask-<class>` and `pattern-<class>` below `root`, numbers from its table `classes`."""
    about = {str(row.get("class")): row for row in result.tables.get("classes", [])}
    labels = [name.removeprefix("mask-") for name in result.figures if name.startswith("mask-")]
    found = []
    for label in sorted(labels, key=lambda one: (not one.isdecimal(), int(one) if one.isdecimal() else 0, one)):
        mask, pattern = (_pixels(root, result.figures.get(f"{kind}-{label}")) for kind in ("mask", "pattern"))
        if mask is not None and pattern is not None and mask.ndim == 2 and mask.shape == pattern.shape[:2]:
            row = about.get(label, {})
            name = label if str(row.get("name", label)) == label else f"{label}: {row['name']}"
            found.append(ReversedTrigger(name, mask, pattern, row.get("norm"), row.get("anomaly_index"), bool(row.get("accused"))))
    return found


def _pixels(root: Path, path: str | None) -> Pixels | None:
    from PIL import Image

    content = picture(root, path) if path is not None else None
    return None if content is None else np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64) / 255


def reversed_triggers(panel: Panel, root: Path, defense: str | None = None, attack: str | None = None) -> Figure:
    """A block of three rows for each victim (the lowest seed that has pictures, which lie below `root`); accused classes are framed.

    `defense` and `attack` are labels; by default the first defense that kept triggers, on all victims. Raises UserError with what there is.
    """
    cells = chosen_cells(panel, lambda cell: bool(stored_reversed(cell, root)), "reversed triggers", defense, attack)
    blocks = [(_header(panel, cell), stored_reversed(cell, root)) for cell in cells]
    with drawing() as figure_class:
        columns = max(min(LINE, len(found)) for _, found in blocks)
        width = LEFT + max(columns, LEAST_WIDTH)
        height = sum(HEADER + sum(ABOVE + len(ROWS) + BELOW for _ in _lines(found)) for _, found in blocks)
        figure = figure_class(figsize=(width * INCHES, height * INCHES))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        top = 0.0
        for header, found in blocks:
            axis.text(0, top + 0.2, short(header, int(10.2 * width)), fontsize=10, fontweight="bold", va="center")
            top += HEADER
            for line in _lines(found):
                _draw_line(axis, line, top + ABOVE)
                top += ABOVE + len(ROWS) + BELOW
        # after imshow, which sets limits of its own
        axis.set_xlim(0, width)
        axis.set_ylim(height, 0)
        axis.set_aspect("auto")
    return figure


def _header(panel: Panel, cell: Result) -> str:
    return f"{panel.attack_of[cell.key]}, seed {cell.seed}: {panel.defense_of[cell.key]}"


def _wrapped(name: str) -> str:
    """A class's name in the two lines above its tiles."""
    return "\n".join(textwrap.wrap(short(name), 12, max_lines=2, placeholder="…"))


def _lines(found: Sequence[ReversedTrigger]) -> Iterator[Sequence[ReversedTrigger]]:
    yield from (found[start : start + LINE] for start in range(0, len(found), LINE))


def _draw_line(axis: Any, line: Sequence[ReversedTrigger], top: float) -> None:
    """Classes beside each other, tiles from `top` on; y grows downwards."""
    from matplotlib.patches import Rectangle

    for row, title in enumerate(ROWS):
        axis.text(LEFT - 0.1, top + row + 0.5, title, fontsize=9, ha="right", va="center")
    for column, one in enumerate(line):
        left = LEFT + column
        for row, pixels in enumerate((one.mask, one.pattern, one.masked)):
            extent = (left + GAP, left + 1 - GAP, top + row + 1 - GAP, top + row + GAP)
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
            frame = Rectangle((left + GAP, top + row + GAP), 1 - 2 * GAP, 1 - 2 * GAP, fill=False, edgecolor="#888888", linewidth=0.6)
            axis.add_patch(frame)
        axis.text(left + 0.5, top - 0.08, _wrapped(one.name), fontsize=8, ha="center", va="bottom", linespacing=1.05)
        numbers = [f"L1 {one.norm:.1f}" if one.norm is not None else "", f"index {one.anomaly:z.1f}" if one.anomaly is not None else ""]
        axis.text(left + 0.5, top + len(ROWS) + 0.04, "\n".join(filter(None, numbers)), fontsize=7.5, ha="center", va="top")
        if one.accused:
            axis.text(left + 0.5, top + len(ROWS) + 0.36, "accused", fontsize=8, fontweight="bold", color=ACCUSED, ha="center", va="top")
            axis.add_patch(Rectangle((left, top), 1, len(ROWS), fill=False, edgecolor=ACCUSED, linewidth=2.5))
