"""Reversed triggers: the smallest pattern that a defense such as Neural Cleanse found to move images into each class."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gatecrash.boards.panel import Panel
from gatecrash.boards.pictures import picture
from gatecrash.boards.plots.select import chosen_cells
from gatecrash.boards.plots.style import COLOURS, GRAPHEMES, drawing, wrapped
from gatecrash.boards.sections import setting_line
from gatecrash.records.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACCUSED = COLOURS[1]


LINE_OF = 10
"""Classes side by side; further classes are drawn below."""


MANY = 12
"""With more classes than this only those are drawn that matter."""


SMALLEST = 5
"""Of many classes, how many are drawn for their small norm."""


NAME = 12
"""Characters in a line above a tile."""


ROWS = ("mask", "pattern", "mask × pattern")


INCHES = 0.92
"""Side of a tile. All other lengths are in tiles."""


GAP, LEFT, ABOVE, BELOW, LINE, BETWEEN = 0.06, 1.35, 0.2, 0.6, 0.14, 0.2


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
    target: bool = False
    """Whether the attack's goal is this class."""

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
            target = str(result.attack.config.get("target")) in {label, str(row.get("name"))}
            numbers = (row.get("norm"), row.get("anomaly_index"))
            found.append(ReversedTrigger(name, mask, pattern, *numbers, accused=bool(row.get("accused")), target=target))
    return found


def drawn_of(found: Sequence[ReversedTrigger]) -> list[ReversedTrigger]:
    """All of them; of more than 12 those of accused classes, of the attack's target, and the five with the smallest norm."""
    if len(found) <= MANY:
        return list(found)
    smallest = sorted(found, key=lambda one: math.inf if one.norm is None else one.norm)[:SMALLEST]
    return [one for one in found if one.accused or one.target or any(one is other for other in smallest)]


def _pixels(root: Path, path: str | None) -> Pixels | None:
    from PIL import Image

    content = picture(root, path) if path is not None else None
    return None if content is None else np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64) / 255


def reversed_triggers(panel: Panel, root: Path, defense: str | None = None, attack: str | None = None) -> Figure:
    """A block of three rows for each victim (the lowest seed that has pictures, which lie below `root`); accused classes are framed.

    `defense` and `attack` are labels; by default the first defense that kept triggers, on all victims. Raises UserError with what there is.
    """
    cells = chosen_cells(panel, lambda cell: bool(stored_reversed(cell, root)), "reversed triggers", defense, attack)
    found = {cell.key: stored_reversed(cell, root) for cell in cells}
    drawn = {key: drawn_of(triggers) for key, triggers in found.items()}
    columns = max(min(LINE_OF, len(triggers)) for triggers in drawn.values())
    width = LEFT + max(columns, LEAST_WIDTH)
    characters = int(0.85 * GRAPHEMES * width * INCHES)  # bold is wider
    heads = [wrapped(setting_line(panel), characters), *(wrapped(_header(panel, cell, found, drawn), characters) for cell in cells)]
    height = sum(_height(head) for head in heads) + sum(_heights(line) for each in drawn.values() for line in _lines(each))
    with drawing() as figure_class:
        figure = figure_class(figsize=(width * INCHES, height * INCHES))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        top = 0.0
        for head, triggers in zip(heads, [[], *drawn.values()], strict=True):
            axis.text(0, top, head, fontsize=10, fontweight="bold" if triggers else "normal", va="top")
            top += _height(head)
            for line in _lines(triggers):
                _draw_line(axis, line, top + _above(line))
                top += _heights(line)
        # after imshow, which sets limits of its own
        axis.set_xlim(0, width)
        axis.set_ylim(height, 0)
        axis.set_aspect("auto")
    return figure


def _header(panel: Panel, cell: Result, found: Mapping[str, Sequence[Any]], drawn: Mapping[str, Sequence[Any]]) -> str:
    all_of, some = len(found[cell.key]), len(drawn[cell.key])
    part = f" ({some} of {all_of} classes: accused, target, smallest masks)" if some < all_of else ""
    return f"{panel.attack_of[cell.key]}, seed {cell.seed}: {panel.defense_of[cell.key]}{part}"


def _height(head: str) -> float:
    """In tiles, as all lengths."""
    return 0.19 * (head.count("\n") + 1) + BETWEEN


def _name(one: ReversedTrigger) -> str:
    return wrapped(f"{one.name} (target)" if one.target else one.name, NAME)


def _above(line: Sequence[ReversedTrigger]) -> float:
    return ABOVE + LINE * max(_name(one).count("\n") for one in line)


def _heights(line: Sequence[ReversedTrigger]) -> float:
    return _above(line) + len(ROWS) + BELOW


def _lines(found: Sequence[ReversedTrigger]) -> Iterator[Sequence[ReversedTrigger]]:
    yield from (found[start : start + LINE_OF] for start in range(0, len(found), LINE_OF))


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
        axis.text(left + 0.5, top - 0.08, _name(one), fontsize=8, ha="center", va="bottom", linespacing=1.05)
        numbers = [f"L1 {one.norm:.1f}" if one.norm is not None else "", f"index {one.anomaly:z.1f}" if one.anomaly is not None else ""]
        axis.text(left + 0.5, top + len(ROWS) + 0.04, "\n".join(filter(None, numbers)), fontsize=7.5, ha="center", va="top")
        if one.accused:
            axis.text(left + 0.5, top + len(ROWS) + 0.36, "accused", fontsize=8, fontweight="bold", color=ACCUSED, ha="center", va="top")
            axis.add_patch(Rectangle((left, top), 1, len(ROWS), fill=False, edgecolor=ACCUSED, linewidth=2.5))
