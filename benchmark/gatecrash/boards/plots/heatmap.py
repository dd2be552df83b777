"""Attacks x defenses, one field of colours for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import drawing, short
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError
from gatecrash.records.measures import MEASURES
from gatecrash.records.plan import NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MapMeasure = Literal["asr", "acc", "der"]


LONGEST_NAME = 32
"""Characters of a name beside or below a map."""


LONGEST_VARIANT = 100
"""The same where defenses are rows: the names of a sweep are long, and differ at their ends."""


MANY = 12
"""With more defenses than this each gets a row instead of a column."""


@dataclass(frozen=True)
class Map:
    """The means of one measure over seeds, by row and column."""

    measure: MapMeasure
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray[np.float64]
    """Percent, float64 [rows, columns]; NaN where there is no score."""
    reasons: dict[tuple[int, int], str]
    """Why there is no score, by row and column."""

    def transposed(self) -> Map:
        reasons = {(column, row): why for (row, column), why in self.reasons.items()}
        return Map(self.measure, self.columns, self.rows, self.values.T, reasons)


def heatmap(panel: Panel, measures: Sequence[MapMeasure] = ("asr", "acc", "der")) -> Figure:
    """Means over seeds; what has no score is hatched and says why. Raises UserError where nothing has a score."""
    measured = [measure for measure in measures if any(cell.measures.value(measure) is not None for cell in panel.cells)]
    if not measured:
        raise UserError("no cell has any of these measures; run attacks and defenses first")
    maps = [_map(panel, measure) for measure in measured]
    with drawing() as figure_class:
        if len(panel.defenses) > MANY:
            figure, axes = _side_by_side(figure_class, [each.transposed() for each in maps])
        else:
            figure, axes = _stacked(figure_class, maps)
        bar = figure.colorbar(axes[-1].images[0], ax=axes, shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("%")
        bar.outline.set_visible(False)
    return figure


def _map(panel: Panel, measure: MapMeasure) -> Map:
    """A row for each attack; the benign one, against which no attack can succeed, only for ACC."""
    attacks = [attack for attack in panel.attacks if measure == "acc" or attack != NONE]
    values = np.full((len(attacks), len(panel.defenses)), np.nan)
    reasons = {}
    for row, attack in enumerate(attacks):
        for column, defense in enumerate(panel.defenses):
            if measure == "der" and defense == NONE:
                continue  # effectiveness is measured against it
            cells = panel.at(attack, defense)
            mean = over_seeds([cell for cell in cells if cell.status == "ok"], measure).value
            if mean is not None:
                values[row, column] = 100 * mean
            else:
                why = next((str(cell.status) for cell in cells if cell.status != "ok"), "" if cells else "missing")
                reasons[row, column] = {"not-applicable": "n/a", "victim-failed": "failed"}.get(why, why)
    return Map(measure, attacks, panel.defenses, values, reasons)


def _stacked(figure_class: type[Figure], maps: Sequence[Map]) -> tuple[Figure, list[Any]]:
    """Maps below each other; the columns are named once, below the last."""
    sizes = [len(each.rows) + 0.9 for each in maps]
    figure = figure_class(figsize=(max(6.6, 3.2 + 0.78 * len(maps[0].columns)), 1.6 + 0.42 * sum(sizes)), layout="constrained")
    axes = list(figure.subplots(len(maps), 1, height_ratios=sizes, squeeze=False)[:, 0])
    for axis, each in zip(axes, maps, strict=True):
        _draw(axis, each)
        _label(axis, each.columns if axis is axes[-1] else (), each.rows, LONGEST_NAME)
        title, meaning = _title(each.measure, first=each is maps[0])
        axis.set_title(f"{title} ({meaning})", fontsize=10, loc="left")
    return figure, axes


def _side_by_side(figure_class: type[Figure], maps: Sequence[Map]) -> tuple[Figure, list[Any]]:
    """Maps beside each other; the rows are named once, left of the first."""
    sizes = [max(len(each.columns) + 0.9, 3.4) for each in maps]  # a title needs 3.4
    longest = min(LONGEST_VARIANT, max(map(len, maps[0].rows)))
    figure = figure_class(figsize=(2.4 + 0.075 * longest + 0.78 * sum(sizes), 2.2 + 0.3 * len(maps[0].rows)), layout="constrained")
    axes = list(figure.subplots(1, len(maps), width_ratios=sizes, squeeze=False)[0])
    for axis, each in zip(axes, maps, strict=True):
        _draw(axis, each)
        _label(axis, each.columns, each.rows if axis is axes[0] else (), LONGEST_VARIANT)
        title, meaning = _title(each.measure, first=each is maps[0])
        axis.set_title(f"{title}\n({meaning})", fontsize=10, loc="left")
    return figure, axes


def _title(measure: MapMeasure, *, first: bool) -> tuple[str, str]:
    """The measure, and which direction is good; the first map says for whom."""
    declared = MEASURES[measure]
    return f"{declared.title[0].upper()}{declared.title[1:]}", f"{declared.direction}{' for the defense' if first else ''}"


def _draw(axis: Any, each: Map) -> None:
    """Colours, and in each field its number or why there is none."""
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(each.values):
        if not np.isnan(value):
            # cividis runs from dark to light
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color="black" if value > 50 else "white")
    for (row, column), why in each.reasons.items():
        square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", edgecolor="#888888", hatch="////", linewidth=0)
        axis.add_patch(square)
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.text(column, row, why, ha="center", va="center", fontsize=8, bbox=background)
    axis.imshow(each.values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.vlines(np.arange(0.5, len(each.columns) - 1), -0.5, len(each.rows) - 0.5, color="white", linewidth=1)
    axis.hlines(np.arange(0.5, len(each.rows) - 1), -0.5, len(each.columns) - 0.5, color="white", linewidth=1)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _label(axis: Any, columns: Sequence[str], rows: Sequence[str], longest_row: int) -> None:
    names = [short(name, LONGEST_NAME) for name in columns]
    axis.set_xticks(range(len(columns)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), [short(name, longest_row) for name in rows])
